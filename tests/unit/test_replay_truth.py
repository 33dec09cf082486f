"""What a replay must not be fooled by: models that are gone or of other features, partitions, thresholds, training."""

from dataclasses import replace

import msgspec
import pytest

from agents.replay.labelled import overall
from agents.replay.merging import merged
from agents.replay.question import Question
from agents.replay.run import ServedReplay
from agents.replay.scoring import AsServed, OneModel
from ml.drift.baseline import make_baseline
from schemas.errors import RetryableError
from schemas.events import ModelVersion, ShadowScore
from tests.replaying import DAWN_MS, SPEC, Linear, Registry, labelled, replayed, rows_of, served, sources_of
from tests.support import version_of

OLD = Linear(1.0)
ASK = Question(spec=SPEC, changed=SPEC)


def as_served(registry: Registry) -> AsServed:
    return AsServed(registry.spec, registry.library, registry.identity)


@pytest.mark.parametrize("block", [16, 1000, 8192])
async def test_drift_is_the_same_however_history_is_cut_and_whatever_entities_a_partition_has(block: int) -> None:
    rows = rows_of(4_000)
    rows[0::2, 0] *= 0.5
    rows[1::2, 0] = 0.5 + rows[1::2, 0] * 0.5  # the entities of the other partition
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    registry = Registry(baseline=make_baseline(rows, SPEC.features, {"score": OLD.predict(rows)}, bins=10), old=OLD)
    of_served, _ = await replayed(ASK, registry, as_served(registry), sources_of(predictions), block)
    assert of_served.told[0].alerts == []
    assert of_served.drift_windows == (20, 20)


@pytest.mark.parametrize("minutes", [0, 10])
async def test_what_is_told_of_drift_does_not_depend_on_the_blocks(minutes: int) -> None:
    rows = rows_of(4_000)
    rows[2_000:, 0] *= 0.3
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    drift = msgspec.structs.replace(SPEC.drift, window_minutes=minutes, lateness_minutes=0)
    spec = msgspec.structs.replace(SPEC, drift=drift)
    found = []
    for block in (7, 333, 8192):
        calm = rows_of(2_000, seed=1)
        baseline = make_baseline(calm, SPEC.features, {"score": OLD.predict(calm)}, bins=10)
        registry = Registry(spec, baseline, old=OLD)
        ask = Question(spec=spec, changed=spec)
        of_served, _ = await replayed(ask, registry, as_served(registry), sources_of(predictions), block)
        found.append((of_served.told, of_served.drift_windows))
    assert found[0][0][0].alerts
    assert found[0] == found[1] == found[2]


async def test_an_event_whose_model_is_gone_keeps_the_score_that_was_served() -> None:
    predictions = [served(i, row, OLD, model_id="gone" if i < 100 else "old") for i, row in enumerate(rows_of(300))]
    samples = [labelled(p, p.label) for p in predictions]
    registry = Registry(old=OLD)
    of_served, of_labelled = await replayed(ASK, registry, as_served(registry), sources_of(predictions, samples))
    assert {whose.model_id: one.not_executed for whose, one in of_served.compared.items()} == {"gone": 100, "old": 0}
    assert of_served.decisions.compared == 300
    assert of_labelled.pairs is not None
    assert len(of_labelled.pairs.table) == 300
    assert of_labelled.reports[0] == of_labelled.reports[1]


class Shop(Registry):
    """A registry whose snapshots are pruned, and whose store may be away."""

    away = False

    def find(self, model_id: str) -> ModelVersion:
        if self.away:
            raise RetryableError("the store is away")
        if model_id.startswith("online@"):
            return msgspec.structs.replace(version_of(self.spec, model_id), pruned=True)
        return super().find(model_id)


async def test_shadows_that_were_pruned_are_no_problem_and_are_told_apart_from_what_served() -> None:
    shadows = [ShadowScore(variant="online", model_id=f"online@{i // 10}", score=0.5) for i in range(30)]
    predictions = [served(i, row, OLD, shadows=(shadows[i],)) for i, row in enumerate(rows_of(30))]
    registry = Shop(old=OLD)
    of_served, _ = await replayed(ASK, registry, as_served(registry), sources_of(predictions))
    assert registry.library.problems == {}
    assert registry.library.pruned == {"online@0", "online@1", "online@2"}
    lost = {whose.model_id for whose, one in of_served.compared.items() if one.not_executed and whose.shadow}
    assert lost == registry.library.pruned


async def test_a_store_that_is_away_ends_the_replay_and_is_not_taken_for_a_broken_model() -> None:
    registry = Shop(old=OLD)
    registry.away = True
    with pytest.raises(RetryableError, match="away"):
        await replayed(ASK, registry, as_served(registry), sources_of([served(0, rows_of(1)[0], OLD)]))
    assert registry.library.problems == {}


async def test_what_a_model_of_other_features_scored_is_left_out_though_they_are_as_many() -> None:
    predictions = [served(i, row, OLD, model_id="other" if i < 40 else "old") for i, row in enumerate(rows_of(100))]
    samples = [labelled(p, p.label) for p in predictions]
    registry = Registry(old=OLD)
    registry.foreign = frozenset({"other"})
    scorer = OneModel(SPEC, "old", OLD)
    of_served, of_labelled = await replayed(
        replace(ASK, model="old"), registry, scorer, sources_of(predictions, samples)
    )
    assert (of_served.events, of_served.unusable) == (60, 40)
    assert (of_labelled.samples, of_labelled.unusable) == (60, 40)


async def test_the_interval_of_accuracy_is_of_the_very_decisions_in_its_row() -> None:
    predictions = [served(i, row, OLD) for i, row in enumerate(rows_of(400))]  # decided by 0.5
    samples = [labelled(p, int(i % 3 == 0)) for i, p in enumerate(predictions)]
    today = msgspec.structs.replace(SPEC, threshold=0.3)
    registry = Registry(today, old=OLD)
    of_served, of_labelled = await replayed(
        Question(spec=today, changed=today), registry, as_served(registry), sources_of(predictions, samples)
    )
    assert of_labelled.pairs is not None
    found = overall(today, today, of_labelled.pairs)
    [accuracy] = [difference for difference in found.differences if difference.metric == "accuracy"]
    assert accuracy.champion == pytest.approx(found.served["accuracy"])
    assert accuracy.candidate == pytest.approx(found.replayed["accuracy"])
    assert accuracy.value == 0
    assert of_served.decisions.changes == {}
    assert of_labelled.pairs.better == of_labelled.pairs.worse == 0


async def test_events_that_a_candidate_may_have_learnt_from_are_counted_and_the_later_ones_told_apart() -> None:
    predictions = [served(i, row, OLD) for i, row in enumerate(rows_of(100))]
    samples = [labelled(p, p.label) for p in predictions]
    registry, learnt_to_ms = Registry(old=OLD), DAWN_MS + 30_000
    scorer = OneModel(SPEC, "old", OLD)
    replay = ServedReplay(ASK, scorer, registry.identity, registry.drifting(SPEC), learnt_to_ms=learnt_to_ms)
    _, of_labelled = await replayed(ASK, registry, scorer, sources_of(predictions, samples))
    await replay.open()
    async for block in merged(sources_of(predictions)):
        await replay.take(block)
    assert (await replay.result()).learnt == 30
    assert of_labelled.pairs is not None
    later = of_labelled.pairs.since(learnt_to_ms)
    assert later is not None
    assert len(later.table) == 70
    assert of_labelled.pairs.since(DAWN_MS + 100_000) is None


async def test_no_history_at_all_is_no_block() -> None:
    assert [block async for block in merged([])] == []
