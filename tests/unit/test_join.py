"""The join's rules one by one, and its two inputs' bad records."""

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from agents.join import Join
from agents.join.writer import PlainSample
from schemas.errors import FatalError
from schemas.events import Checkpoint, DeadLetter, Label, Prediction, Sample, ShadowScore
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import Batch, Outbox, TopicPartition
from tests.joining import (
    DAY,
    DEAD,
    LABELS,
    MINUTE,
    PREDICTIONS,
    SAMPLES,
    Made,
    entry,
    join_of,
    label,
    prediction,
    spec_of,
)
from tests.support import Entry, LogMemory

WINDOW = 2 * MINUTE
LATE = 1 * MINUTE
FAR = 100 * MINUTE  # past every deadline of an event at time 0
SHADOW = ShadowScore(variant="online", model_id="o1", score=0.7)


class World:
    """A stage that has opened, its inputs, and what it made."""

    def __init__(self, spec: StreamSpec | None = None, share: float = 1.0, most_expired: int = 1_000) -> None:
        self.spec = spec or spec_of()
        self.memory = LogMemory({PREDICTIONS: [], LABELS: []})
        self.open = partial(join_of, self.spec, self.memory, share=share, most_expired=most_expired)
        self.join = self.open()
        self.made = Made()
        self.next = {PREDICTIONS: 0, LABELS: 0}
        self.outboxes: list[Outbox] = []

    async def take(self, *events: Prediction | Label, timestamp: int = 0) -> "World":
        """Read each event, in a batch of its own."""
        for event in events:
            source = PREDICTIONS if isinstance(event, Prediction) else LABELS
            await self.raw(source, [entry(event, self.next[source], timestamp)])
        return self

    async def raw(self, source: TopicPartition, records: Sequence[Entry]) -> None:
        """Read records in one batch."""
        self.memory.logs[source].extend(records)
        outbox = Outbox()
        await self.join.process(Batch(source, records), outbox)
        self.next[source] = records[-1].offset + 1
        self.made.add(outbox)
        self.outboxes.append(outbox)

    async def tick(self, time_ms: int) -> "World":
        """Let both inputs reach a time, by events of no interest."""
        await self.take(prediction(f"tick {time_ms}", time_ms), label(f"tick {time_ms}", time_ms))
        self.made.samples = [sample for sample in self.made.samples if not sample.event_id.startswith("tick")]
        return self

    async def restart(self) -> None:
        """Commit, and open another instance from what was committed."""
        outbox = Outbox()
        await self.join.save(outbox)
        self.memory.commit(outbox)
        self.join = self.open()
        await self.join.open(self.next)

    def count(self, name: str, **labels: str) -> float:
        registry = self.join._metrics.registry
        return registry.get_sample_value(name, {"stream": "flights", **labels}) or 0.0


async def test_a_sample_says_everything_that_was_known_of_its_event() -> None:
    scored = prediction("e1", 5, latency_ms=400, shadows=(SHADOW,))
    world = await World().take(scored, label("e1", 50, weight=2.5))
    assert world.made.samples == [
        Sample(
            event_id="e1",
            entity_id="N1",
            revision=0,
            event_time_ms=5,
            label_time_ms=50,
            features=(1 / 3, None),
            label=1,
            weight=2.5,
            score=0.1 + 0.2,
            predicted=0,
            model_id="m1",
            variant="champion",
            deployment_revision=3,
            scored_time_ms=12,
            latency_ms=400,
            shadows=(SHADOW,),
        )
    ]
    assert world.join.pending == 0


async def test_samples_are_keyed_by_stream_and_leave_out_what_is_not_there() -> None:
    world = await World().take(prediction("e1", 5), label("e1", 50))
    [[(key, value)]] = world.outboxes[-1].targets.values()
    assert key == b"flights"
    assert not {"shadows", "replaces", "assumed", "scores", "latency_ms"} & json.loads(value).keys()


def test_a_plain_sample_has_the_fields_of_a_sample() -> None:
    assert set(PlainSample.__struct_fields__) == set(Sample.__struct_fields__)


async def test_class_scores_and_class_names_come_through() -> None:
    spec = spec_of(task="multiclass", classes=("owl", "tit", "jay"))
    scored = prediction("e1", 5, scores=[0.2, 0.7, 0.1], score=0.7, label="tit")
    world = await World(spec).take(scored, label("e1", 50, "jay"), label("e1", 51, "crow"))
    [sample] = world.made.samples
    assert (sample.scores, sample.predicted, sample.label) == ([0.2, 0.7, 0.1], "tit", "jay")
    assert world.made.letters == [(1, "unknown_label")]


@pytest.mark.parametrize("label_first", [False, True])
async def test_a_label_at_the_windows_edge_is_inside_and_one_millisecond_later_outside(label_first: bool) -> None:
    events = [prediction("in", 1_000), label("in", 1_000 + WINDOW), prediction("out", 1_000)]
    events.append(label("out", 1_000 + WINDOW + 1))
    world = await World().take(*sorted(events, key=lambda event: isinstance(event, Prediction) is label_first))
    assert [sample.event_id for sample in world.made.samples] == ["in"]
    assert world.made.letters == [(1, "outside_window")]


async def test_a_label_before_its_event_is_inside() -> None:
    world = await World().take(label("e1", 5), prediction("e1", 50))
    assert [sample.label_time_ms for sample in world.made.samples] == [5]


async def test_the_same_label_and_time_again_is_dropped_and_counted_even_when_a_later_one_has_come() -> None:
    world = await World().take(prediction("e1", 0), label("e1", 5), label("e1", 5), label("e1", 9, 0), label("e1", 5))
    assert [(sample.revision, sample.label, sample.replaces) for sample in world.made.samples] == [
        (0, 1, None),
        (1, 0, 1),
    ]
    assert world.made.letters == []
    assert world.count("ml_labels_duplicate_total") == 2


@pytest.mark.parametrize("label_first", [False, True])
async def test_an_earlier_label_is_superseded_and_another_of_the_same_time_conflicting(label_first: bool) -> None:
    world = World()
    scored, labels = prediction("e1", 0), [label("e1", 9), label("e1", 5, 0), label("e1", 9, 0), label("e1", 12, 0)]
    await world.take(*([*labels, scored] if label_first else [scored, *labels]))
    assert world.made.letters == [(1, "superseded"), (2, "conflicting")]
    assert [(sample.revision, sample.label_time_ms) for sample in world.made.samples] == [(0, 9), (1, 12)]


async def test_a_label_that_repeats_one_that_waits_is_dropped_and_counted() -> None:
    world = World()
    await world.raw(LABELS, [entry(label("e1", 5), i) for i in range(3)])
    await world.take(label("e1", 5), label("e1", 5, 0))
    assert world.count("ml_labels_duplicate_total") == 3
    await world.tick(FAR)
    assert world.made.letters == [(0, "no_prediction"), (4, "no_prediction")]


async def test_when_the_oldest_of_the_labels_that_wait_expires_the_others_are_still_found() -> None:
    world = await World().take(*[label("e1", i * MINUTE) for i in (0, 2, 4, 5)])
    for minute in (2, 3):
        await world.tick(minute * MINUTE + 2_000)
    assert [offset for offset, _ in world.made.letters] == [0, 1]
    await world.take(label("e1", 5 * MINUTE), prediction("e1", 3 * MINUTE))
    assert [sample.label_time_ms for sample in world.made.samples] == [4 * MINUTE, 5 * MINUTE]
    assert world.count("ml_labels_duplicate_total") == 1


@pytest.mark.parametrize("label_first", [False, True])
@pytest.mark.parametrize("step", [1, 0, -1])
async def test_thousands_of_labels_of_one_event_take_little_longer_than_one(label_first: bool, step: int) -> None:
    """They take 5 to 20 ms; one look at each label by each other took ten seconds."""
    world, many = World(), 2_000
    labels = [entry(label("e1", many + step * i), i) for i in range(many)]
    started = time.process_time()
    if label_first:
        await world.raw(LABELS, labels)
        await world.take(prediction("e1", 0))
    else:
        await world.take(prediction("e1", 0))
        await world.raw(LABELS, labels)
    assert time.process_time() - started < 0.5
    assert [sample.revision for sample in world.made.samples] == list(range(many if step > 0 else 1))
    assert [reason for _, reason in world.made.letters] == ["superseded"] * (many - 1 if step < 0 else 0)
    assert world.count("ml_labels_duplicate_total") == (many - 1 if step == 0 else 0)


async def test_an_event_of_the_far_future_and_its_label_end_nothing_and_do_not_stay() -> None:
    world, far = World(spec_of(window=2 * 24 * 60)), 100_000 * DAY
    await world.take(prediction("e1", MINUTE), prediction("far", far), label("far", far + 5), label("alone", far))
    await world.take(label("e1", 2 * MINUTE))
    for day in range(1, 6):
        await world.take(prediction(f"p{day}", day * DAY), label(f"p{day}", day * DAY), timestamp=day * DAY)
    assert [sample.event_id for sample in world.made.samples] == ["far", "e1", "p1", "p2", "p3", "p4", "p5"]
    assert world.made.letters == [(1, "no_prediction")]
    await world.restart()
    assert {(source, start) for source, start, _ in world.memory.reads} == {(PREDICTIONS, 4), (LABELS, 5)}


async def test_a_label_that_outlasts_its_event_of_the_far_future_is_not_refused_after_a_restart() -> None:
    world, far = World(spec_of(idle_wait=100_000)), 100_000 * DAY
    await world.take(prediction("far", far))
    await world.take(label("other", far), label("far", far), timestamp=DAY)
    await world.take(prediction("p", 3 * DAY // 2), label("l", 3 * DAY // 2), timestamp=DAY)
    await world.restart()
    await world.take(prediction("q", 5 * DAY), label("q", 5 * DAY), timestamp=5 * DAY)
    assert [sample.event_id for sample in world.made.samples] == ["far", "q"]
    assert world.made.letters == [(2, "no_prediction"), (0, "no_prediction")]


async def test_what_expires_when_the_clock_leaps_comes_in_pieces_and_each_event_once() -> None:
    world = World(spec_of(assume_negative=True), most_expired=30)
    await world.raw(PREDICTIONS, [entry(prediction(f"e{i}", i * 1_000), i) for i in range(100)])
    made = []
    for i in range(6):
        await world.take(prediction(f"p{i}", FAR), label(f"l{i}", FAR))
        made.append(len(world.made.samples))
        await world.restart()
    assert max(len(box.targets.get(SAMPLES, [])) for box in world.outboxes) <= 30
    assert 0 < made[0] <= 30 < made[1] < 100
    assert [sample.event_id for sample in world.made.samples] == [f"e{i}" for i in range(100)]


async def test_a_label_without_prediction_is_a_dead_letter_once_the_clock_has_passed_its_lateness() -> None:
    world = World(spec_of(window=2, lateness=1))
    await world.take(label("e1", 1_000))
    await world.tick(1_000 + LATE)
    assert world.made.letters == []
    await world.tick(1_000 + LATE + 1_000)
    assert world.made.letters == [(0, "no_prediction")]
    letter = decode(DeadLetter, world.outboxes[-1].targets[DEAD][0][1])
    assert (letter.topic, letter.partition, letter.stage) == ("flights.labels", 0, "join")
    assert world.outboxes[-1].targets[DEAD][0][0] == b"N1"
    await world.take(prediction("e1", 1_000))
    assert world.made.samples == []


async def test_a_prediction_without_label_is_counted_once_its_window_and_the_lateness_are_over() -> None:
    world = await World().take(prediction("e1", 0))
    await world.tick(WINDOW + LATE)
    assert world.join.pending == 1
    await world.tick(FAR)
    assert world.join.pending == 0
    assert world.count("ml_join_unlabelled_total") == 1
    assert world.made == Made()


async def test_a_prediction_without_label_becomes_an_assumed_negative_where_the_stream_says_so() -> None:
    world = World(spec_of(assume_negative=True))
    await world.take(prediction("ä1", 7, shadows=(SHADOW,)), prediction("e2", 8), label("e2", 9))
    world.made = Made()
    await world.tick(FAR)
    [sample] = world.made.samples
    assert (sample.event_id, sample.entity_id, sample.label, sample.assumed) == ("ä1", "N1", 0, True)
    assert (sample.label_time_ms, sample.features, sample.shadows) == (7 + WINDOW, (1 / 3, None), (SHADOW,))


async def test_a_second_prediction_of_an_event_that_waits_is_ignored() -> None:
    world = await World().take(prediction("e1", 0), prediction("e1", 0, score=0.9), label("e1", 5))
    assert [sample.score for sample in world.made.samples] == [0.1 + 0.2]
    assert world.count("ml_join_ignored_total", reason="repeated") == 1


async def test_events_of_one_id_but_two_entities_are_two() -> None:
    world = World(spec_of())
    await world.take(prediction("e", 0, entity_id="1N"), prediction("e1", 0, entity_id="N", score=0.5))
    await world.take(label("e1", 5, entity_id="N"))
    assert [(sample.entity_id, sample.score) for sample in world.made.samples] == [("N", 0.5)]


async def test_the_clock_follows_the_predictions_alone_when_no_label_has_come_for_long() -> None:
    world = World(spec_of(idle_wait=10))
    await world.take(prediction("e1", 0), prediction("e2", FAR), timestamp=0)
    await world.take(prediction("e3", FAR), timestamp=10 * MINUTE - 1)
    assert world.join.pending == 3
    await world.take(prediction("e4", FAR), timestamp=10 * MINUTE)
    assert world.join.pending == 3
    assert world.count("ml_join_unlabelled_total") == 1


async def test_the_clock_follows_the_labels_alone_when_predictions_stop() -> None:
    world = World(spec_of(idle_wait=10))
    await world.take(prediction("e1", 0), label("e2", FAR), timestamp=0)
    assert world.join.pending == 1
    await world.take(label("e3", FAR), timestamp=10 * MINUTE)
    assert world.join.pending == 0


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Entry(0, b"{", b"N1"), "malformed_json"),
        (Entry(0, None, b"N1"), "empty"),
        (Entry(0, b'{"event_id":"e"}', b"N1"), "invalid_field"),
        (Entry(0, encode(label("e", 5, True)), b"N1"), "invalid_field"),
        (Entry(0, encode(label("e", 5, 2)), b"N1"), "unknown_label"),
        (Entry(0, encode(label("e", 5, "1")), b"N1"), "unknown_label"),
        (Entry(0, encode(label("e", 5, weight=1e-7)), b"N1"), "invalid_field"),
        (Entry(0, encode(label("e", 5, weight=1.1e6)), b"N1"), "invalid_field"),
        (Entry(0, encode(label("e", 5, weight=-1.0)), b"N1"), "invalid_field"),
        (Entry(0, encode(label("e", 5)), b"N2"), "wrong_key"),
        (Entry(0, encode(label("e", 5)), None), "no_key"),
        (Entry(0, encode(label("e", 5)) + b" " * 1_000, b"N1"), "too_large"),
    ],
)
async def test_a_bad_label_is_a_dead_letter_with_its_reason_and_harms_no_other(record: Entry, reason: str) -> None:
    world = await World().take(prediction("e1", 0))
    await world.raw(LABELS, [record, entry(label("e1", 5), 1)])
    assert world.made.letters == [(0, reason)]
    assert len(world.made.samples) == 1
    assert world.count("ml_dead_letters_total", stage="join", reason=reason) == 1


async def test_too_many_bad_labels_stop_the_worker_but_late_ones_do_not() -> None:
    world = World(share=0.5)
    await world.take(prediction("e1", 0), *[label("e1", FAR + i) for i in range(20)])
    assert [reason for _, reason in world.made.letters] == ["outside_window"] * 20
    with pytest.raises(FatalError, match="could not be used"):
        await world.raw(LABELS, [Entry(20 + i, b"{", b"N1") for i in range(10)])


@pytest.mark.parametrize("value", [b"{", None, encode(prediction("e2", 0, features=(1.0,)))])
async def test_a_prediction_that_cannot_be_used_is_skipped_and_counted(value: bytes | None) -> None:
    world = World()
    await world.raw(PREDICTIONS, [Entry(0, value, b"N1"), entry(prediction("e1", 0), 1)])
    await world.take(label("e1", 5))
    assert len(world.made.samples) == 1
    assert world.count("ml_join_ignored_total", reason="unusable") == 1


async def test_another_instance_goes_on_where_the_last_one_committed() -> None:
    world = await World().take(prediction("e1", 0), prediction("e2", 0), label("e1", 5), label("e3", 6))
    world.made = Made()
    await world.restart()
    assert world.join.pending == 1
    await world.take(label("e1", 5), label("e1", 7, 0), label("e2", 8), prediction("e3", 0))
    found = [(sample.event_id, sample.revision, sample.label_time_ms) for sample in world.made.samples]
    assert found == [("e1", 1, 7), ("e2", 0, 8), ("e3", 0, 6)]
    assert world.made.letters == []


async def test_only_what_still_matters_is_read_again() -> None:
    world = World()
    for i in range(100):
        await world.take(prediction(f"e{i}", i * MINUTE), label(f"e{i}", i * MINUTE))
    await world.restart()
    kept = (WINDOW + LATE) // MINUTE + 1
    assert {(source, start) for source, start, _ in world.memory.reads} == {
        (PREDICTIONS, 100 - kept),
        (LABELS, 100 - kept),
    }


async def test_a_label_refused_before_a_restart_is_not_refused_again_after_it() -> None:
    """Its prediction is gone by then, so without care the label would be read again and wait in vain."""
    world = World()
    await world.take(label("e2", WINDOW + LATE), prediction("e1", 0), label("e1", WINDOW + LATE - 1))
    await world.tick(WINDOW + LATE + 2_000)
    assert world.made.letters == [(1, "outside_window")]
    await world.restart()
    assert (LABELS, 0) in [(source, start) for source, start, _ in world.memory.reads]
    await world.tick(FAR)
    assert world.made.letters == [(1, "outside_window"), (0, "no_prediction")]


@pytest.mark.parametrize("change", [{"format": 99}, {"offsets": {"flights.predictions": 10}}])
async def test_a_checkpoint_that_cannot_be_used_is_ignored_and_everything_read_again(change: dict[str, Any]) -> None:
    world = await World().take(prediction("e1", 0), label("e1", 5), prediction("e2", 0))
    await world.tick(1_000)
    await world.restart()
    fields = {name: getattr(world.memory.committed, name) for name in Checkpoint.__struct_fields__}
    world.memory.committed = Checkpoint(**fields | change)
    world.made = Made()
    await world.join.open(world.next)
    assert world.join.pending == 1
    await world.take(label("e1", 5), label("e2", 6))
    assert [sample.event_id for sample in world.made.samples] == ["e2"]


async def test_a_restart_with_nothing_committed_starts_with_nothing() -> None:
    world = await World().take(prediction("e1", 0))
    await world.join.open({PREDICTIONS: 0, LABELS: 0})
    assert isinstance(world.join, Join)
    assert world.join.pending == 0
