"""Whatever comes in whatever order, and however often the stage opens anew: the samples are what the rules say."""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.streams import StreamSpec
from stream.batches import Batch, Outbox, TopicPartition
from tests.joining import DAY, LABELS, MINUTE, PREDICTIONS, Made, Reference, entry, join_of, label, prediction, spec_of
from tests.support import Entry, LogMemory

Feed = tuple[TopicPartition, Sequence[Entry]]
SOURCES = (PREDICTIONS, LABELS)
EVENTS = 6
STEP = 10_000  # of event time, in ms: windows of one to three minutes have edges at its multiples

specs = st.builds(
    spec_of,
    window=st.integers(1, 3),
    lateness=st.integers(0, 2),
    idle_wait=st.sampled_from([0, 1, 3, 1_000]),
    assume_negative=st.booleans(),
)
times = st.integers(0, 60).map(lambda step: step * STEP)
waits = st.sampled_from([0, 0, 1, MINUTE])
shifts = st.sampled_from([0, 0, 0, STEP, 12 * STEP])  # of the time of an event that is scored again
eras = st.sampled_from([0, 0, 0, DAY, 100_000 * DAY])  # the later ones are too far ahead of Kafka's timestamps


@st.composite
def logs_of_anything(draw: st.DrawFn) -> LogMemory:
    """Two logs about a few events: repeated, revised, contradicting, out of order, of the future, not scored."""
    event_times = [draw(times) + draw(eras) for _ in range(EVENTS)]
    scored = draw(st.lists(st.tuples(st.integers(0, EVENTS - 2), shifts), max_size=12))
    labels = draw(st.lists(st.tuples(st.integers(0, EVENTS - 1), st.integers(-3, 25), st.integers(0, 1)), max_size=25))
    found: dict[TopicPartition, list[Any]] = {
        PREDICTIONS: [prediction(f"e{i}", event_times[i] + shift, score=shift, label=i % 2) for i, shift in scored],
        LABELS: [label(f"e{i}", max(0, event_times[i] + delay * STEP), value) for i, delay, value in labels],
    }
    return LogMemory({source: _records(draw, events) for source, events in found.items()})


def _records(draw: st.DrawFn, events: Sequence[Any]) -> list[Entry]:
    gap, timestamp = draw(st.integers(1, 2)), 0
    records = []
    for i, event in enumerate(events):
        timestamp += draw(waits)
        records.append(entry(event, i * gap, timestamp))
    return records


def weak_hash(identity: tuple[str, str]) -> int:
    """Three values, all with the same upper half: every look-up meets others."""
    return ord(identity[0][-1]) % 3


def _feeds(draw: st.DrawFn, memory: LogMemory, start: dict[TopicPartition, int], most: int = 100) -> list[Feed]:
    """Cut what is left of both logs into batches, in any order."""
    left = {source: [r for r in memory.logs[source] if r.offset >= start[source]] for source in SOURCES}
    feeds: list[Feed] = []
    while any(left.values()) and len(feeds) < most:
        source = draw(st.sampled_from([source for source in SOURCES if left[source]]))
        count = draw(st.integers(1, 8))
        feeds.append((source, left[source][:count]))
        left[source] = left[source][count:]
    return feeds


def _expected(spec: StreamSpec, feeds: Sequence[Feed]) -> Reference:
    reference = Reference(spec)
    for source, records in feeds:
        for record in records:
            reference.take(source, record)
    return reference


@settings(deadline=None)
@given(st.data(), specs, logs_of_anything(), st.sampled_from([hash, weak_hash]))
def test_any_records_in_any_batches_give_what_the_rules_say(
    data: Any, spec: StreamSpec, memory: LogMemory, hasher: Any
) -> None:
    feeds = _feeds(data.draw, memory, dict.fromkeys(SOURCES, 0))
    expected = _expected(spec, feeds)

    async def run() -> None:
        join, made = join_of(spec, memory, hasher), Made()
        await join.open(dict.fromkeys(SOURCES, 0))
        for source, records in feeds:
            outbox = Outbox()
            await join.process(Batch(source, records), outbox)
            made.add(outbox)
        assert made == expected.made
        assert join.pending == expected.pending

    asyncio.run(run())


@settings(max_examples=200, deadline=None)
@given(st.data(), specs, logs_of_anything(), st.sampled_from([hash, weak_hash]))
def test_what_is_committed_is_the_same_however_often_the_stage_opens_anew(
    data: Any, spec: StreamSpec, memory: LogMemory, hasher: Any
) -> None:
    runs = _Restarts(spec, memory, hasher)
    for feeds, kept in runs.plan(data.draw):
        pending = _expected(spec, runs.history).pending
        assert asyncio.run(runs.live(feeds, kept)) == pending
    assert runs.made == _expected(spec, runs.history).made


@settings(max_examples=200, deadline=None)
@given(st.data(), specs, logs_of_anything(), st.integers(1, 3))
def test_a_sweep_that_goes_on_with_the_next_records_goes_on_after_a_restart(
    data: Any, spec: StreamSpec, memory: LogMemory, most_expired: int
) -> None:
    runs = _Restarts(spec, memory, hash, most_expired)
    for feeds, kept in runs.plan(data.draw):
        asyncio.run(runs.live(feeds, kept))
    once = _Restarts(spec, LogMemory(memory.logs), hash, most_expired)
    asyncio.run(once.live(runs.history, len(runs.history)))
    assert runs.made == once.made


class _Restarts:
    """A stage that opens anew again and again; what is committed of it, and what it was fed until then."""

    def __init__(self, spec: StreamSpec, memory: LogMemory, hasher: Any, most_expired: int = 1_000) -> None:
        self._open = partial(join_of, spec, memory, hasher, most_expired=most_expired)
        self._memory = memory
        self._committed = dict.fromkeys(SOURCES, 0)
        self.history: list[Feed] = []
        self.made = Made()

    def plan(self, draw: st.DrawFn) -> Iterator[tuple[list[Feed], int]]:
        """Yield what to read before each crash and how much of it to commit; in the end all that is left."""
        for _ in range(draw(st.integers(1, 5))):
            feeds = _feeds(draw, self._memory, self._committed, most=8)
            yield feeds, draw(st.integers(0, len(feeds)))
        feeds = _feeds(draw, self._memory, self._committed)
        yield feeds, len(feeds)

    async def live(self, feeds: Sequence[Feed], kept: int) -> int:
        """Open, process `feeds`, commit the first `kept` of them in two commits, and crash; return what is pending."""
        join, offsets, outbox = self._open(), dict(self._committed), Outbox()
        await join.open(self._committed)
        pending = join.pending
        for i, (source, records) in enumerate(feeds):
            await join.process(Batch(source, records), outbox)
            offsets[source] = records[-1].offset + 1
            if i + 1 in (kept // 2, kept):
                await join.save(outbox)
                self._committed.update(offsets)
                self._memory.commit(outbox)
                self.made.add(outbox)
                outbox = Outbox()
        self.history.extend(feeds[:kept])
        return pending


@settings(deadline=None)
@given(st.data(), st.integers(1, 3), st.integers(0, 2), st.lists(st.tuples(times, st.integers(0, 25)), max_size=20))
def test_the_order_in_which_two_tidy_inputs_are_read_makes_no_difference(
    data: Any, window: int, lateness: int, events: list[tuple[int, int]]
) -> None:
    """Tidy is: each input in the order of its times, or late by no more than the lateness."""
    spec = spec_of(window, lateness)
    late = st.integers(0, lateness * MINUTE)
    scored = [(time + data.draw(late), prediction(f"e{i}", time)) for i, (time, _) in enumerate(events)]
    labels = [
        (time + delay * STEP + data.draw(late), label(f"e{i}", time + delay * STEP))
        for i, (time, delay) in enumerate(events)
    ]
    memory = LogMemory(
        {
            PREDICTIONS: [entry(e, i) for i, (_, e) in enumerate(sorted(scored, key=lambda each: each[0]))],
            LABELS: [entry(e, i) for i, (_, e) in enumerate(sorted(labels, key=lambda each: each[0]))],
        }
    )
    feeds = _feeds(data.draw, memory, dict.fromkeys(SOURCES, 0))

    async def run() -> None:
        join, made = join_of(spec, memory), Made()
        for source, records in feeds:
            outbox = Outbox()
            await join.process(Batch(source, records), outbox)
            made.add(outbox)
        inside = {f"e{i}" for i, (_, delay) in enumerate(events) if delay * STEP <= window * MINUTE}
        assert sorted(sample.event_id for sample in made.samples) == sorted(inside)

    asyncio.run(run())
