"""A learner in a replay: it sees labels when they were there, and what it has learnt serves only afterwards."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from agents.replay.learning import Learning
from agents.replay.merging import BLOCK
from agents.replay.question import Question
from agents.replay.scoring import AsServed
from schemas.streams import LearnerSpec
from tests.replaying import SPEC, Linear, Registry, labelled, replayed, rows_of, served, sources_of

LEARNER = LearnerSpec(
    algorithm="river-logistic",
    strategy="mini_batch",
    batch_size=50,
    max_buffer=1000,
    publish_every=200,
    parameters={},
)
WITH_LEARNER = msgspec.structs.replace(SPEC, learners={"online": LEARNER})
ASK = Question(spec=WITH_LEARNER, changed=WITH_LEARNER, learner="online")
OLD = Linear(1.0)


def learner(registry: Registry) -> Learning:
    before = AsServed(registry.spec, registry.library, registry.identity)
    return Learning(registry.spec, "online", LEARNER, None, before)


async def test_a_learner_serves_from_its_first_snapshot_on_and_becomes_better_than_what_was_served() -> None:
    rows = rows_of(2_000)
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    samples = [labelled(p, int(p.features[0] < 0.5)) for p in predictions]  # the opposite of what the model says
    registry = Registry(WITH_LEARNER, old=OLD)
    learning = learner(registry)
    of_served, of_labelled = await replayed(ASK, registry, learning, sources_of(predictions, samples))
    assert learning.published[0].startswith("online@")
    assert len(learning.published) + len(learning.kept_back) == 10
    firsts, lasts = of_labelled.reports[1][0], of_labelled.reports[1][max(of_labelled.reports[1])]
    assert firsts.variants[0].model_id == "old"
    assert lasts.variants[0].model_id.startswith("online@")
    assert (lasts.variants[0].figures.accuracy or 0) > 0.9 > 0.1 > (firsts.variants[0].figures.accuracy or 0)
    assert of_served.decisions.changes


async def test_labels_that_have_nothing_to_do_with_the_events_teach_a_learner_nothing() -> None:
    rows = rows_of(3_000)
    coins = np.random.default_rng(5).integers(0, 2, len(rows)).tolist()
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    samples = [labelled(p, coin) for p, coin in zip(predictions, coins, strict=True)]
    registry = Registry(WITH_LEARNER, old=OLD)
    _, of_labelled = await replayed(ASK, registry, learner(registry), sources_of(predictions, samples))
    assert of_labelled.pairs is not None
    hits = of_labelled.pairs.decided == of_labelled.pairs.table.labels
    assert abs(hits.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(hits))


async def test_an_event_is_judged_by_the_score_of_its_time_however_late_its_label_comes() -> None:
    rows = rows_of(1_000)
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    late = labelled(predictions[0], 1 - predictions[0].label, delay_ms=2_000_000)
    samples = [*(labelled(p, int(p.features[0] < 0.5)) for p in predictions[1:]), late]
    patient = msgspec.structs.replace(WITH_LEARNER, join=msgspec.structs.replace(SPEC.join, window_minutes=100))
    registry = Registry(patient, old=OLD)
    learning = learner(registry)
    ask = replace(ASK, spec=patient, changed=patient)
    _, of_labelled = await replayed(ask, registry, learning, sources_of(predictions, samples))
    assert of_labelled.pairs is not None
    assert learning.published
    first = int(np.argmin(of_labelled.pairs.table.event_time_ms))
    assert of_labelled.pairs.replayed[first] == predictions[0].score


async def test_two_replays_of_a_learner_are_the_same() -> None:
    predictions = [served(i, row, OLD) for i, row in enumerate(rows_of(900))]
    samples = [labelled(p, int(p.features[1] > 0.5)) for p in predictions]
    found = []
    for _ in range(2):
        registry = Registry(WITH_LEARNER, old=OLD)
        learning = learner(registry)
        of_served, of_labelled = await replayed(ASK, registry, learning, sources_of(predictions, samples))
        assert of_labelled.pairs is not None
        scores = of_labelled.pairs.replayed.tobytes()
        found.append((scores, of_served.decisions.changes, of_labelled.reports, learning.published))
    assert found[0] == found[1]


async def test_a_snapshot_serves_the_very_next_event_however_history_is_cut_and_only_such_are_called_served() -> None:
    rows = rows_of(1_000)
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    samples = [labelled(p, int(p.features[0] < 0.5)) for p in predictions]
    found = []
    for block in (64, 300, BLOCK):
        registry = Registry(WITH_LEARNER, old=OLD)
        learning = learner(registry)
        of_served, of_labelled = await replayed(ASK, registry, learning, sources_of(predictions, samples), block)
        assert of_labelled.pairs is not None
        assert {v.model_id.split("@")[0] for v in of_labelled.reports[1][9].variants} == {"online"}
        assert learning.served == learning.published[: len(learning.served)]
        found.append((of_labelled.pairs.replayed.tobytes(), of_served.decisions.changes, learning.served))
    assert found[0] == found[1] == found[2]
    assert found[0][2]
    assert learning.published[-1] not in learning.served, "when it was made, all had been served"


async def test_an_event_whose_prediction_is_not_held_has_no_score_for_a_model_of_now_may_know_its_label() -> None:
    predictions = [served(i, row, OLD) for i, row in enumerate(rows_of(400))]
    samples = [labelled(p, int(p.features[0] < 0.5)) for p in predictions]
    registry = Registry(WITH_LEARNER, old=OLD)
    _, of_labelled = await replayed(ASK, registry, learner(registry), sources_of(predictions[100:], samples))
    assert of_labelled.not_scored == 100
    assert of_labelled.pairs is not None
    assert len(of_labelled.pairs.table) == 300


async def test_events_whose_labels_can_come_no_more_are_forgotten_but_not_looked_for_at_each_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.replay.learning._LEAST_SWEPT", 100)
    rows = rows_of(2_000)
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    samples = [labelled(p, p.label) for p in predictions]
    registry = Registry(WITH_LEARNER, old=OLD)
    learning = learner(registry)
    _, of_labelled = await replayed(ASK, registry, learning, sources_of(predictions, samples), 64)
    assert of_labelled.not_scored == 0
    assert 60 <= len(learning._given) <= 400, "a minute of events, and what came since the last sweep"
