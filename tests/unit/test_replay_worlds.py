"""The world instead is the world that was until something differs; from there it goes its own way."""

from typing import Final

import msgspec
import pytest

from agents.replay.merging import merged
from agents.replay.question import Question
from agents.replay.run import LabelledReplay, LabelledResult, ServedReplay, ServedResult
from agents.replay.scoring import AsServed, OneModel
from ml.drift.baseline import make_baseline
from schemas.events import Prediction
from schemas.streams import ArchiveSpec, StreamSpec
from tests.replaying import SPEC, TOPICS, Linear, Registry, labelled, replayed, rows_of, served, sources_of

EVENTS: Final = 3_000
BLOCK: Final = 333
FROM: Final = 1_500
"""From this event on, another score was logged than the model gives."""

NOW, LOGGED = Linear(0.6), Linear(1.0)


def history(differs_from: int) -> tuple[list[Prediction], Registry]:
    """Return predictions, logged as the model gives them up to one event, and who can score them again."""
    rows = rows_of(EVENTS)
    predictions = [served(i, row, NOW if i < differs_from else LOGGED) for i, row in enumerate(rows)]
    return predictions, Registry(baseline=make_baseline(rows, SPEC.features, {"score": NOW.predict(rows)}), old=NOW)


async def of_served(spec: StreamSpec, predictions: list[Prediction], registry: Registry, *, two: bool) -> ServedResult:
    """Replay predictions; `two` worlds from the beginning, or only from where they differ."""
    question = Question(spec=spec, changed=spec)
    scorer = AsServed(spec, registry.library, registry.identity)
    instead = registry.drifting(spec) if two else None
    replay = ServedReplay(question, scorer, registry.identity, registry.drifting(spec), instead)
    await replay.open()
    async for block in merged(sources_of(predictions)[: spec.partitions], BLOCK):
        await replay.take(block)
    return await replay.result()


async def of_labelled(predictions: list[Prediction], registry: Registry, *, two: bool) -> LabelledResult:
    """Replay samples whose labels are the decisions of the logged scores' model."""
    samples = [labelled(each, int((each.features[0] or 0.0) >= SPEC.threshold)) for each in predictions]
    changed = msgspec.structs.replace(SPEC, archive=ArchiveSpec(enabled=not SPEC.archive.enabled)) if two else SPEC
    replay = LabelledReplay(Question(spec=SPEC, changed=changed), AsServed(SPEC, registry.library, registry.identity))
    async for block in merged(sources_of(predictions, samples)[SPEC.partitions :], BLOCK):
        for _, records in block.of(TOPICS.samples).pieces:
            await replay.take(records)
    return replay.result()


@pytest.mark.parametrize("minutes", [0, 10])
async def test_drift_is_told_as_if_there_had_been_two_worlds_from_the_beginning(minutes: int) -> None:
    drift = msgspec.structs.replace(SPEC.drift, window_minutes=minutes, lateness_minutes=0)
    spec = msgspec.structs.replace(SPEC, drift=drift)
    found, expected = [await of_served(spec, *history(FROM), two=two) for two in (False, True)]
    assert (found.told, found.drift_windows) == (expected.told, expected.drift_windows)
    was, instead = found.told
    assert was.alerts  # of the logged scores, which the baseline knows nothing of
    assert not instead.alerts
    assert [one.identical for one in found.compared.values()] == [FROM]


async def test_evaluation_is_told_as_if_there_had_been_two_worlds_from_the_beginning() -> None:
    found, expected = [await of_labelled(*history(FROM), two=two) for two in (False, True)]
    assert (found.told, found.reports) == (expected.told, expected.reports)
    was, instead = found.reports
    assert [was[number] == instead[number] for number in (0, len(was) - 1)] == [True, False]


async def test_where_nothing_differs_there_is_one_world() -> None:
    predictions, registry = history(EVENTS)
    samples = [labelled(each, each.label) for each in predictions]
    question = Question(spec=SPEC, changed=SPEC)
    scorer = AsServed(SPEC, registry.library, registry.identity)
    served_result, labelled_result = await replayed(question, registry, scorer, sources_of(predictions, samples))
    assert served_result.told[0] is served_result.told[1]
    assert labelled_result.reports[0] is labelled_result.reports[1]


async def test_another_model_is_another_world_though_it_gives_the_same_scores() -> None:
    predictions, registry = history(EVENTS)
    registry.models["twin"] = NOW
    samples = [labelled(each, each.label) for each in predictions]
    question = Question(spec=SPEC, changed=SPEC, model="twin")
    scorer = OneModel(SPEC, "twin", NOW)
    _, result = await replayed(question, registry, scorer, sources_of(predictions, samples))
    was, instead = result.reports
    assert {report.variants[0].model_id for report in was.values()} == {"old"}
    assert {report.variants[0].model_id for report in instead.values()} == {"twin"}
