"""However the events lie in time: the parts follow one another, share no time, and lose nothing."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ml.training.protocol import TrainingImpossible
from ml.training.split import folds, split
from ml.training.table import Table

times = st.lists(st.integers(0, 300), max_size=200).map(sorted)


def table_of(moments: list[int]) -> Table:
    rows = np.arange(len(moments))
    return Table(
        rows[:, None].astype(np.float32),
        rows % 2,
        np.ones(len(rows)),
        np.array(moments, np.int64),
        rows,
        rows.astype(np.float64),
    )


def follow(parts: list[Table]) -> bool:
    """Whether none is empty, and each begins after the one before ends."""
    return all(map(len, parts)) and all(a.event_time_ms[-1] < b.event_time_ms[0] for a, b in pairwise(parts))


@given(times, st.floats(0.05, 0.5), st.floats(0.05, 0.45))
def test_the_three_parts_are_the_whole_in_the_order_of_time(moments: list[int], validation: float, test: float) -> None:
    try:
        found = split(table_of(moments), validation, test)
    except TrainingImpossible:
        return  # too few times
    parts = [found.train, found.validation, found.test]
    assert follow(parts)
    assert np.concatenate([part.entities for part in parts]).tolist() == list(range(len(moments)))


@given(times, st.integers(1, 20))
def test_each_fold_ends_where_the_next_begins_to_be_judged(moments: list[int], count: int) -> None:
    try:
        found = folds(table_of(moments), count)
    except TrainingImpossible:
        return  # too few times
    assert len(found) == count
    assert all(follow([train, judged]) for train, judged in found)
    assert all(train.entities[0] == 0 for train, _ in found)
    assert all(len(train) + len(judged) == len(later) for (train, judged), (later, _) in pairwise(found))
    last_train, last_judged = found[-1]
    assert len(last_train) + len(last_judged) == len(moments)


@given(st.integers(20, 300), st.integers(1, 8))
def test_events_of_different_times_can_always_be_cut(rows: int, count: int) -> None:
    table = table_of(list(range(rows)))
    assert abs(len(split(table, 0.1, 0.2).test) - 0.2 * rows) <= 1
    assert max(abs(len(judged) - rows / (count + 1)) for _, judged in folds(table, count)) <= 1
