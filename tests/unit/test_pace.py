"""How a task learns how many records make one step."""

import itertools

import pytest

from stream.batches import Batch, TopicPartition
from stream.tasks import STEP_S, Pace
from tests.support import Entry

SOURCE = TopicPartition("in", 0)


def _batch(records: int) -> Batch:
    return Batch(SOURCE, [Entry(offset) for offset in range(records)], epoch=7)


@pytest.mark.parametrize("per_row_s", [1e-6, 5e-6, 1e-4, 5e-4])
def test_it_settles_where_a_step_takes_its_aim(per_row_s: float) -> None:
    pace = Pace()
    for _ in range(20):
        pace.learn(pace.rows, pace.rows * per_row_s)
    assert pace.rows == pytest.approx(min(max(STEP_S / per_row_s, 16), 8192), abs=1)


@pytest.mark.parametrize(("seconds", "limit"), [(100.0, 16), (0.0, 8192)])
def test_it_grows_by_doubling_at_most_and_stays_within_bounds(seconds: float, limit: int) -> None:
    pace = Pace()
    before = pace.rows
    for _ in range(12):
        pace.learn(pace.rows, seconds)
        assert pace.rows <= before * 2
        before = pace.rows
    assert pace.rows == limit


def test_one_slow_step_is_enough_to_shrink_the_next_to_its_aim() -> None:
    pace = Pace()
    pace.learn(4096, 4096 * STEP_S / 100)
    assert pace.rows == 100


def test_a_batch_is_cut_without_loss_and_each_piece_knows_where_it_belongs() -> None:
    pace = Pace()
    whole = _batch(1000)
    pieces = list(pace.cut(whole))
    assert [record.offset for piece in pieces for record in piece.records] == list(range(1000))
    assert {len(piece.records) for piece in pieces[:-1]} == {256}
    assert {(piece.source, piece.epoch) for piece in pieces} == {(SOURCE, 7)}
    assert [piece.next_offset for piece in pieces] == [256, 512, 768, 1000]


def test_a_pace_that_changes_between_two_pieces_counts_from_the_next_one() -> None:
    pace = Pace()
    sizes = []
    for piece in itertools.islice(pace.cut(_batch(5000)), 4):
        sizes.append(len(piece.records))
        pace.learn(len(piece.records), 0.0)
    assert sizes == [256, 512, 1024, 2048]
