"""However the logs of a stream are cut between reading back and going on, the same is shown."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agents.views import Fold
from schemas.events import ModelVersion
from stream.batches import TopicPartition
from tests.drifting import alert_of, report_of
from tests.support import Entry, leap_through, version_of
from tests.viewing import (
    ALERTS,
    DEPLOYMENTS,
    DRIFT,
    EXPERIMENTS,
    MODELS,
    NOW_MS,
    SPEC,
    Reader,
    entries,
    experiment_of,
    routed,
    told_of,
)

IDS = st.sampled_from(["m1", "m2", "m3"])
Happening = tuple[TopicPartition, msgspec.Struct]


@st.composite
def version(draw: st.DrawFn) -> ModelVersion:
    return msgspec.structs.replace(
        version_of(SPEC, draw(IDS)),
        changes=draw(st.integers(0, 3)),
        status=draw(st.sampled_from(["draft", "staging", "archived"])),
        baseline=draw(st.sampled_from(["", "b" * 64])),
        pruned=draw(st.booleans()),
    )


@st.composite
def happenings(draw: st.DrawFn) -> list[Happening]:
    """What was written, in order: a report is of an experiment that was deployed before it."""
    made: list[Happening] = []
    running = ""
    for number in range(draw(st.integers(0, 30))):
        kind = draw(st.sampled_from([DRIFT, ALERTS, MODELS, DEPLOYMENTS, EXPERIMENTS]))
        event: Any = None
        if kind == DRIFT:
            event = report_of(number)
        elif kind == ALERTS:
            event = alert_of(draw(st.sampled_from("abc")), kind=draw(st.sampled_from(["drift", "other"])))
        elif kind == MODELS:
            event = draw(version())
        elif kind == DEPLOYMENTS:
            running = draw(st.sampled_from(["", running, f"x{number}"]))
            experiment = experiment_of(running, 50, 50, epoch=number) if running else None
            event = routed(number, experiment, champion=draw(IDS), shadows=(draw(IDS),), previous=draw(IDS))
        elif running:
            event = told_of(running, number)
        if event is not None:
            made.append((kind, event))
    return made


def logs_of(happened: list[Happening]) -> dict[TopicPartition, list[Entry]]:
    logs: dict[TopicPartition, list[Entry]] = {}
    for time_ms, (source, event) in enumerate(happened, NOW_MS - 1_000):
        log = logs.setdefault(source, [])
        log += entries(event, first=len(log), timestamp=time_ms)
    return logs


@given(happenings(), st.data())
def test_a_fold_that_goes_on_shows_what_one_shows_that_reads_all(
    happened: list[Happening], data: st.DataObject
) -> None:
    logs = logs_of(happened)
    whole = Fold("flights")
    leap_through(whole.recall(Reader(logs), None, NOW_MS))

    cut = data.draw(st.integers(0, len(happened)))
    stops = {source: len(log) for source, log in logs_of(happened[:cut]).items()}
    fold = Fold("flights")
    leap_through(fold.recall(Reader(logs), stops, NOW_MS))
    for source in data.draw(st.permutations(list(logs))):  # logs are not in step with each other
        for record in logs[source][stops.get(source, 0) :]:
            fold.take(source, [record], record.offset + 1)
            if data.draw(st.booleans()):
                fold.view()
    assert fold.view() == whole.view()
