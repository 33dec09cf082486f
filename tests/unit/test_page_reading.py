"""How the page reads: small topics from near their ends, of large ones the newest predictions only."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from app.page.board import READ_BACK, StreamFold
from app.page.ends import NEWEST, Ends
from app.page.tails import Source, Tails
from schemas.errors import RetryableError
from schemas.events import Alert, DeadLetter
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.batches import Record, TopicPartition
from tests.drifting import alert_of
from tests.support import Entry, leap_through, now
from tests.watching import NOW_MS, letter_of

FEATURES, PREDICTIONS = (TopicPartition(f"flights.{name}", 0) for name in ("features", "predictions"))
ALERTS, LETTERS = TopicPartition("flights.alerts", 0), TopicPartition("flights.features.dead", 0)
SPEC = StreamSpec(name="flights", features=("distance",), partitions=1)


class Consumer:
    """A consumer of logs in memory that gives three records of each partition at a time, and notes what it gave."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[Entry]] = defaultdict(list)
        self.ends: dict[TopicPartition, int] = defaultdict(int)
        self.given: dict[TopicPartition, list[int]] = defaultdict(list)
        self._paused: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self.assigned: Sequence[TopicPartition] = ()
        self.stuck = False

    def add(self, source: TopicPartition, *values: bytes, markers: int = 0) -> None:
        for value in values:
            self.logs[source].append(Entry(self.ends[source], value, timestamp=NOW_MS))
            self.ends[source] += 1
        self.ends[source] += markers

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned = partitions

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= set(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self.ends[partition] for partition in partitions}

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int = 0
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        found = {}
        for source in partitions or self.assigned:
            assert source in self.assigned
            if source in self._paused or self.stuck:
                continue
            unread = [entry for entry in self.logs[source] if entry.offset >= self._positions[source]]
            self._positions[source] = unread[3].offset if len(unread) > 3 else self.ends[source]
            if unread:
                found[source] = unread[:3]
                self.given[source] += [entry.offset for entry in unread[:3]]
        if not found:
            await asyncio.sleep(timeout_ms / 1_000)
        return found


def prediction(offset: int, latency_ms: int = 0) -> bytes:
    return b'{"event_id": "e", "offset": %d, "latency_ms": %d}' % (offset, latency_ms)


class World:
    """One stream with one partition, looked at by a clock that ticks a second at each look."""

    def __init__(self) -> None:
        self.consumer = Consumer()
        self.fold = StreamFold(SPEC)
        self.now_ms = NOW_MS
        self.ends = Ends(self.consumer, [SPEC], lambda: self.now_ms)  # type: ignore[arg-type]

    async def look(self) -> Any:
        self.now_ms += 1_000
        await self.ends.look({"flights": self.fold})
        return self.fold.board(self.now_ms).flow


def test_rates_lag_and_latency_follow_from_the_ends_and_the_newest_predictions() -> None:
    async def main() -> None:
        world = World()
        world.consumer.add(FEATURES, *[b""] * 1_000)
        world.consumer.add(PREDICTIONS, *[prediction(offset, 900) for offset in range(990)], markers=1)
        await world.ends.open()
        flow = await world.look()
        assert (flow.lag, flow.latency_p99_ms) == (10, None)  # how long earlier ones took is no news
        world.consumer.add(FEATURES, *[b""] * 50)
        world.consumer.add(PREDICTIONS, *[prediction(offset, 8) for offset in range(990, 1_010)], markers=1)
        flow = await world.look()
        assert (flow.in_eps, flow.out_eps, flow.lag, flow.latency_p50_ms) == (50, 20, 40, 8)
        assert len(world.consumer.given[PREDICTIONS]) < 40
        assert not world.consumer.given[FEATURES]

    leap_through(main())


def test_of_very_many_new_predictions_only_the_newest_are_read() -> None:
    async def main() -> None:
        world = World()
        await world.ends.open()
        await world.look()
        world.consumer.add(FEATURES, *[b""] * 5_000)
        world.consumer.add(PREDICTIONS, *[prediction(offset, 5) for offset in range(5_000)])
        flow = await world.look()
        assert (flow.out_eps, flow.lag) == (5_000, 0)
        assert len(world.consumer.given[PREDICTIONS]) == NEWEST

    leap_through(main())


def test_where_there_are_no_predictions_yet_all_events_wait() -> None:
    async def main() -> None:
        world = World()
        world.consumer.add(FEATURES, *[b""] * 7)
        await world.ends.open()
        assert (await world.look()).lag == 7

    leap_through(main())


def test_the_last_prediction_is_found_before_many_that_were_taken_back() -> None:
    async def main() -> None:
        world = World()
        world.consumer.add(FEATURES, *[b""] * 100)
        world.consumer.add(PREDICTIONS, *[prediction(offset) for offset in range(60)], markers=1_000)
        await world.ends.open()
        assert (await world.look()).lag == 40
        assert len(world.consumer.given[PREDICTIONS]) <= 60

    leap_through(main())


def test_a_dead_letter_is_an_answer_too_and_what_is_no_prediction_is_none() -> None:
    async def main() -> None:
        world = World()
        world.consumer.add(FEATURES, *[b""] * 10)
        world.consumer.add(PREDICTIONS, prediction(3), b"{", b"")
        await world.ends.open()
        assert (await world.look()).lag == 6
        world.fold.take(DeadLetter, [Entry(0, encode(letter_of(8)))])
        assert (await world.look()).lag == 1

    leap_through(main())


async def test_the_event_loop_goes_on_between_looks_at_many_streams() -> None:
    specs = [StreamSpec(name=f"s{number}", features=("a",), partitions=1) for number in range(50)]
    folds = {spec.name: StreamFold(spec) for spec in specs}
    ends = Ends(Consumer(), specs, lambda: NOW_MS)  # type: ignore[arg-type]
    await ends.open()
    looking = asyncio.ensure_future(ends.look(folds))
    steps = 0
    while not looking.done():
        await asyncio.sleep(0)
        steps += 1
    assert steps > len(specs)
    assert all(fold.board(NOW_MS).flow.lag == 0 for fold in folds.values())


def tails_of(consumer: Consumer, fold: StreamFold) -> Tails:
    sources = {ALERTS: Source("flights", Alert), LETTERS: Source("flights", DeadLetter)}
    return Tails(consumer, sources, {"flights": fold})  # type: ignore[arg-type]


def test_small_topics_are_read_from_near_their_ends_and_then_followed() -> None:
    async def main() -> None:
        consumer, fold = Consumer(), StreamFold(SPEC)
        consumer.add(
            ALERTS, *[encode(alert_of(f"a{number}", subject=f"f{number}")) for number in range(1_100)], markers=1
        )
        consumer.add(LETTERS, *[encode(letter_of(offset)) for offset in range(500)])
        tails = tails_of(consumer, fold)
        await tails.open()
        await tails.catch_up()
        assert consumer.given[ALERTS] == list(range(1_101 - READ_BACK[Alert], 1_100))
        assert consumer.given[LETTERS] == list(range(500 - READ_BACK[DeadLetter], 500))
        assert fold.board(NOW_MS).alerts[0].id == "a1099"
        letters = fold.board(NOW_MS).dead_letters
        assert (letters.count, letters.at_least) == (READ_BACK[DeadLetter], True)
        consumer.add(ALERTS, encode(alert_of("new")))
        begun_s = now()
        await tails.follow(begun_s + 1)
        assert fold.board(NOW_MS).alerts[0].id == "new"
        assert now() == pytest.approx(begun_s + 1, abs=0.01)

    leap_through(main())


def test_topics_that_do_not_come_are_given_up() -> None:
    async def main() -> None:
        consumer = Consumer()
        consumer.add(ALERTS, b"{}")
        consumer.stuck = True
        tails = tails_of(consumer, StreamFold(SPEC))
        await tails.open()
        with pytest.raises(RetryableError, match="have not come within 30 s"):
            await tails.catch_up()

    leap_through(main())
