"""Lanes: what waits for a task is taken in Kafka's order, small batches together, and an input is held in time."""

import pytest

from stream.batches import TopicPartition
from stream.lanes import LANE_BATCHES, LITTLE_BYTES, LITTLE_LANE_BATCHES, LITTLE_ROWS, Lanes
from tests.support import Entry, batch

LEFT, RIGHT = TopicPartition("left", 0), TopicPartition("right", 0)


class Held:
    """A source that remembers what it was told: the inputs that are fetched, and what the broker has yet of each."""

    def __init__(self) -> None:
        self.fetched = {LEFT, RIGHT}
        self.more: dict[TopicPartition, int] = {}

    def resume(self, source: TopicPartition) -> None:
        self.fetched.add(source)

    def hold(self, source: TopicPartition) -> None:
        self.fetched.discard(source)

    def unread(self, source: TopicPartition) -> int:
        return self.more.get(source, 0)


def _put(lanes: Lanes, source: TopicPartition, first: int, rows: int, value: bytes = b"") -> None:
    """Put in a batch of so many rows, of which each has its offset as its timestamp."""
    lanes.put(batch(source, [Entry(number, value, timestamp=number) for number in range(first, first + rows)]))


def _taken(lanes: Lanes, *, aligned: bool = True) -> list[tuple[TopicPartition, int, int]]:
    """Take all that can be taken: of each batch its source, its first offset and its rows."""
    taken = []
    while (found := lanes.take(aligned=aligned)) is not None:
        taken.append((found.source, found.records[0].offset, len(found.records)))
    return taken


def test_small_batches_are_taken_together_up_to_what_is_little() -> None:
    lanes = Lanes([LEFT], Held())
    for first in range(0, 400, 100):
        _put(lanes, LEFT, first, 100)
    assert lanes.rows == 400
    assert _taken(lanes) == [(LEFT, 0, 200), (LEFT, 200, 200)]
    assert not lanes


@pytest.mark.parametrize(("sizes", "taken"), [((LITTLE_ROWS, 1), 2), ((LITTLE_ROWS - 1, 1), 1), ((1, LITTLE_ROWS), 2)])
def test_no_merged_batch_is_more_than_little(sizes: tuple[int, int], taken: int) -> None:
    lanes = Lanes([LEFT], Held())
    _put(lanes, LEFT, 0, sizes[0])
    _put(lanes, LEFT, sizes[0], sizes[1])
    assert len(_taken(lanes)) == taken


def test_what_came_earlier_on_the_other_input_is_not_skipped() -> None:
    lanes = Lanes([LEFT, RIGHT], Held())
    for source, first in ((LEFT, 0), (RIGHT, 10), (LEFT, 20), (LEFT, 30)):
        _put(lanes, source, first, 5)
    assert _taken(lanes) == [(LEFT, 0, 5), (RIGHT, 10, 5), (LEFT, 20, 10)]


def test_an_aligned_input_waits_for_one_that_has_more_to_come() -> None:
    source = Held()
    lanes = Lanes([LEFT, RIGHT], source)
    source.more[RIGHT] = 1
    _put(lanes, LEFT, 7, 3)
    assert _taken(lanes) == []
    assert _taken(lanes, aligned=False) == [(LEFT, 7, 3)]
    _put(lanes, LEFT, 10, 3)
    _put(lanes, RIGHT, 5, 1)
    assert _taken(lanes) == [(RIGHT, 5, 1)]
    source.more[RIGHT] = 0
    assert _taken(lanes) == [(LEFT, 10, 3)]


@pytest.mark.parametrize(
    ("rows", "value", "batches"),
    [(LITTLE_ROWS, b"", LANE_BATCHES), (1, b"", LITTLE_LANE_BATCHES), (1, b"x" * LITTLE_BYTES, LANE_BATCHES)],
)
def test_an_input_is_held_from_when_enough_waits_until_less_does(rows: int, value: bytes, batches: int) -> None:
    source = Held()
    lanes = Lanes([LEFT, RIGHT], source)
    for number in range(batches):
        assert source.fetched == {LEFT, RIGHT}
        _put(lanes, LEFT, number * rows, rows, value)
    assert source.fetched == {RIGHT}
    lanes.take(aligned=True)
    assert source.fetched == {LEFT, RIGHT}


def test_what_is_to_end_is_taken_without_waiting_and_fetches_nothing_more() -> None:
    source = Held()
    lanes = Lanes([LEFT, RIGHT], source)
    source.more[RIGHT] = 1
    for number in range(LANE_BATCHES):
        _put(lanes, LEFT, number * LITTLE_ROWS, LITTLE_ROWS)
    lanes.end()
    assert len(_taken(lanes)) == LANE_BATCHES
    assert source.fetched == set()


def test_cleared_lanes_are_empty_and_align_again() -> None:
    source = Held()
    lanes = Lanes([LEFT, RIGHT], source)
    source.more[RIGHT] = 1
    _put(lanes, LEFT, 0, 1)
    lanes.end()
    lanes.clear()
    assert (bool(lanes), lanes.rows, source.fetched) == (False, 0, set())
    _put(lanes, LEFT, 0, 1)
    assert _taken(lanes) == []
