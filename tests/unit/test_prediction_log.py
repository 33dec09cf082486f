"""Finding predictions in their log, between the ends of transactions, which are offsets without a record."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from app.prediction_log import PredictionLog
from schemas.errors import PenstockError
from schemas.events import Prediction
from schemas.wire import encode
from stream.batches import TopicPartition
from tests.support import Entry

TOPIC = "flights.predictions"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


def prediction(event_id: str, **other: Any) -> bytes:
    return encode(
        Prediction(
            **{
                "event_id": event_id,
                "entity_id": "n1",
                "event_time_ms": 1,
                "scored_time_ms": 2,
                "model_id": "m1",
                "variant": "champion",
                "deployment_revision": 1,
                "score": 0.5,
                "scores": None,
                "label": 1,
                "features": (1.0,),
                "partition": 0,
                "offset": 0,
            }
            | other
        )
    )


class At(NamedTuple):
    offset: int
    timestamp: int


class Consumer:
    """Two partitions in memory. Each offset is logged 10 ms after the one before; it reads four records at a time."""

    def __init__(self, values: Mapping[TopicPartition, Mapping[int, bytes]], starts: Mapping[TopicPartition, int]):
        self.logs = {source: [Entry(i, v, None, 10 * i) for i, v in found.items()] for source, found in values.items()}
        self.starts = starts
        self.read = 0
        self.assigned: Sequence[TopicPartition] = ()
        self.at = 0

    def end(self, source: TopicPartition) -> int:
        return self.logs[source][-1].offset + 2 if self.logs[source] else 0  # a marker is at the end

    async def beginning_offsets(self, sources: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {source: self.starts.get(source, 0) for source in sources}

    async def end_offsets(self, sources: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {source: self.end(source) for source in sources}

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, At | None]:
        def first(source: TopicPartition, time: int) -> At | None:
            later = [At(entry.offset, entry.timestamp) for entry in self.logs[source] if entry.timestamp >= time]
            return later[0] if later else None

        return {source: first(source, time) for source, time in times.items()}

    def assign(self, sources: Sequence[TopicPartition]) -> None:
        self.assigned = sources

    def seek(self, source: TopicPartition, offset: int) -> None:
        assert source in self.assigned
        self.at = offset

    async def getmany(self, source: TopicPartition, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Entry]]:
        found = [entry for entry in self.logs[source] if entry.offset >= self.at][:4]
        self.at = found[-1].offset + 1 if found else self.end(source)
        self.read += len(found)
        return {source: found}

    async def position(self, source: TopicPartition) -> int:
        return self.at


def log_of(consumer: Consumer, *, embedded: bool = False) -> PredictionLog:
    return PredictionLog(consumer, TOPIC, 2, embedded=embedded)


@pytest.fixture
def consumer() -> Consumer:
    """Of partition 0 the first 10 offsets are gone; every third one is a transaction's end. Partition 1 has no gaps."""
    first = {i: prediction(f"a{i}", offset=i) for i in range(10, 100) if i % 3}
    second = {i: prediction(f"b{i}", offset=i) for i in range(20)}
    return Consumer({P0: first, P1: second}, {P0: 10})


async def test_a_prediction_is_found_at_its_place(consumer: Consumer) -> None:
    found = await log_of(consumer).at((0, 13))
    assert (found.place, found.logged_time_ms, found.prediction.event_id) == ((0, 13), 130, "a13")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ((2, 0), "flights.predictions has no partition 2; its last one is 1"),
        ((0, 9), "holds no record at 0:9: of partition 0 there are offsets 10 to 99"),
        ((1, 21), "holds no record at 1:21: of partition 1 there are offsets 0 to 20"),
        ((0, 15), "has the end of a transaction at 0:15, and no prediction"),
        ((1, 20), "has the end of a transaction at 1:20, and no prediction"),
    ],
)
async def test_a_place_without_a_prediction_is_told_apart(
    consumer: Consumer, place: tuple[int, int], sentence: str
) -> None:
    with pytest.raises(PenstockError, match=sentence):
        await log_of(consumer).at(place)


async def test_an_empty_partition_says_so() -> None:
    with pytest.raises(PenstockError, match="holds no record at 1:0: partition 1 is empty"):
        await log_of(Consumer({P0: {}, P1: {}}, {})).at((1, 0))


@pytest.mark.parametrize("embedded", [False, True])
async def test_an_event_is_found_in_any_partition_by_when_it_was_logged(consumer: Consumer, embedded: bool) -> None:
    log = log_of(consumer, embedded=embedded)
    for event_id, time_ms, place in (("a31", 310, (0, 31)), ("b7", 70, (1, 7))):
        for span in ((time_ms, time_ms), (0, 10_000), (-5, time_ms)):
            assert [one.place for one in await log.of_event(event_id, *span)] == [place]
        for span in ((time_ms + 1, 10_000), (0, time_ms - 1), (5_000, 6_000)):
            assert await log.of_event(event_id, *span) == []


async def test_only_what_was_logged_in_that_time_is_read(consumer: Consumer) -> None:
    await log_of(consumer).of_event("a31", 310, 320)
    assert consumer.read <= 4
    await log_of(consumer, embedded=True).of_event("a31", 310, 320)
    assert consumer.read > 70


async def test_a_record_that_is_no_prediction_is_passed_over() -> None:
    values = {0: b"junk", 1: prediction("b1"), 2: b'{"event_id": 3}', 3: b""}
    log = log_of(Consumer({P0: {}, P1: values}, {}))
    assert [one.place for one in await log.of_event("b1", 0, 100)] == [(1, 1)]
    assert [one.place for one in await log.sample(9, random.Random(0))] == [(1, 1)]


@pytest.mark.parametrize("count", [1, 30, 79])
async def test_a_sample_has_as_many_different_predictions_as_were_asked_for(consumer: Consumer, count: int) -> None:
    places = [one.place for one in await log_of(consumer).sample(count, random.Random(1))]
    assert len(set(places)) == len(places) == count
    assert places != sorted(places) or count == 1
    assert places == [one.place for one in await log_of(consumer).sample(count, random.Random(1))]


async def test_a_sample_of_more_than_there_is_has_all(consumer: Consumer) -> None:
    found = await log_of(consumer).sample(1_000, random.Random(1))
    assert sorted(one.prediction.event_id for one in found) == sorted(
        [f"a{i}" for i in range(10, 100) if i % 3] + [f"b{i}" for i in range(20)]
    )
    since = await log_of(consumer).sample(1_000, random.Random(1), {P0: 98, P1: 500})
    assert [one.place for one in since] == [(0, 98)]


async def test_every_prediction_is_as_likely_as_any_other(consumer: Consumer) -> None:
    log = log_of(consumer)
    seen = Counter([one.place for seed in range(1_000) for one in await log.sample(8, random.Random(seed))])
    assert len(seen) == 80
    assert 60 < min(seen.values()) <= max(seen.values()) < 145, "100 each, and a deviation of 10"


async def test_neighbours_are_the_nearest_before_and_then_those_after(consumer: Consumer) -> None:
    log = log_of(consumer)
    near = await log.around((0, 20), 3, lambda _: True)
    assert [one.event_id for one in near] == ["a16", "a17", "a19"]
    near = await log.around((0, 13), 5, lambda _: True)
    assert [one.event_id for one in near] == ["a10", "a11", "a14", "a16", "a17"]
    even = await log.around((1, 18), 9, lambda one: one.offset % 2 == 0)
    assert [one.offset for one in even] == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert await log.around((1, 18), 9, lambda _: False) == []
    assert len(await log.around((1, 18), 100, lambda _: True)) == 19
