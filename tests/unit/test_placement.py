"""Keys on the wrong partition: single ones are dead letters, many stop the worker."""

import zlib

import pytest

from schemas.errors import FatalError
from stream.partitioner import partitions_of
from stream.placement import Placement

PARTITIONS = 4


def _placement() -> Placement:
    return Placement("flights.features", 1, PARTITIONS)


def _entities(count: int, *homes: int, start: int = 0) -> list[str]:
    """Return entities that belong on one of `homes`."""
    names = [f"N{i}" for i in range(start, start + 50 * count)]
    placed = partitions_of([name.encode() for name in names], PARTITIONS).tolist()
    return [name for name, home in zip(names, placed, strict=True) if home in homes][:count]


def _keys(entities: list[str]) -> list[bytes | None]:
    return [entity.encode() for entity in entities]


def _crc32(count: int) -> list[str]:
    """Return entities as librdkafka's default partitioner sends them to partition 1."""
    return [name for i in range(10 * count) if zlib.crc32((name := f"N{i}").encode()) % PARTITIONS == 1][:count]


def test_well_placed_keys_are_accepted() -> None:
    entities = _entities(100, 1)
    assert _placement().check(_keys(entities), entities) == {}


def test_a_batch_of_nothing_is_accepted() -> None:
    assert _placement().check([], []) == {}


def test_a_key_on_the_wrong_partition_is_told_where_it_belongs() -> None:
    good, [stray] = _entities(2, 1), _entities(1, 3)
    entities = [good[0], stray, good[1]]
    bad = _placement().check(_keys(entities), entities)
    assert list(bad) == [1]
    assert bad[1].reason == "wrong_partition"
    assert str(bad[1]) == (
        f"key '{stray}' belongs on partition 3 of 4, not on 1: the producer must use partitioner=murmur2_random"
    )


def test_a_missing_key_and_a_key_of_another_entity_are_told_apart() -> None:
    entities = _entities(2, 1)
    bad = _placement().check([None, b"somebody-else"], entities)
    assert {position: error.reason for position, error in bad.items()} == {0: "no_key", 1: "wrong_key"}
    assert "'somebody-else'" in str(bad[1])
    assert repr(entities[1]) in str(bad[1])


def test_an_entity_beyond_ascii_is_compared_as_utf8() -> None:
    entities = [f"é{i}" for i in range(20)]
    homes = partitions_of([entity.encode() for entity in entities], PARTITIONS).tolist()
    at_home = [entity for entity, home in zip(entities, homes, strict=True) if home == 1]
    assert at_home
    assert _placement().check(_keys(at_home), at_home) == {}


def test_another_partitioner_stops_the_worker_and_the_sentence_names_the_right_one() -> None:
    entities = _crc32(200)
    with pytest.raises(FatalError, match=r"flights\.features.*partitioner=murmur2_random"):
        _placement().check(_keys(entities), entities)


def test_it_is_noticed_however_small_the_batches_are() -> None:
    placement = _placement()
    with pytest.raises(FatalError):
        for entity in _crc32(100):
            placement.check([entity.encode()], [entity])


def test_a_few_strays_among_many_never_stop_the_worker() -> None:
    placement = _placement()
    good, strays = _entities(90, 1), _entities(10, 2, 3)
    for _ in range(100):
        assert len(placement.check(_keys(good + strays), good + strays)) == 10


def test_a_producer_that_goes_wrong_after_a_million_good_events_is_noticed() -> None:
    placement = _placement()
    good, wrong = _entities(1000, 1), _crc32(500)
    for _ in range(1000):
        placement.check(_keys(good), good)
    with pytest.raises(FatalError):
        for _ in range(6):
            placement.check(_keys(wrong), wrong)


def test_missing_keys_are_not_blamed_on_the_partitioner() -> None:
    placement = _placement()
    entities = _entities(1000, 0, 1, 2, 3)
    bad = placement.check([None] * 1000, entities)
    assert {error.reason for error in bad.values()} == {"no_key"}


def test_keys_that_are_not_the_entity_are_not_blamed_on_the_partitioner() -> None:
    placement = _placement()
    entities, devices = _entities(1000, 0, 1, 2, 3), _entities(1000, 1, start=100_000)
    bad = placement.check(_keys(devices), entities)
    assert {error.reason for error in bad.values()} == {"wrong_key"}
