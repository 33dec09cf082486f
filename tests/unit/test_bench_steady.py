"""The check of the benchmark of steady memory finds each kind of wrong prediction, and its judgement knows the goal."""

import json

import numpy as np
import pytest

from benchmarks.comparison import OutputsDiffer
from benchmarks.plain import Row
from benchmarks.steady import Checker, judged
from benchmarks.synthetic import event_id
from benchmarks.usage import Sample

SCORES = np.array([0.25, 0.5, 0.75], dtype=np.float32)


def _row(number: int, score: float) -> Row:
    return Row(b"key", json.dumps({"event_id": event_id(number), "score": score}).encode(), 0, 0, 0)


def test_portions_are_complete_when_each_event_has_its_score() -> None:
    checker = Checker(SCORES)
    checker.take([_row(2, 0.75), _row(0, 0.25)])
    assert not checker.complete
    checker.take([_row(1, 0.5)])
    assert checker.complete
    checker.next_portion()
    assert not checker.complete
    checker.take([_row(3, 0.25), _row(4, 0.5), _row(5, 0.75)])
    assert checker.complete


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (_row(0, 0.25), "twice"),  # of the portion before
        (_row(3, 0.25), "twice"),
        (_row(6, 0.25), "none of the events from 3 on"),
        (_row(4, 0.75), "got 0.75, expected 0.5"),
    ],
)
def test_a_wrong_prediction_is_named(row: Row, words: str) -> None:
    checker = Checker(SCORES)
    checker.take([_row(number, float(SCORES[number])) for number in range(3)])
    checker.next_portion()
    checker.take([_row(3, 0.25)])
    with pytest.raises(OutputsDiffer, match=words):
        checker.take([row])


def _samples(*sizes_mb: int) -> list[Sample]:
    """Three samples in each second, the first of them an outlier, of a size in MB that changes by the second."""
    return [
        Sample(second + part, 0.0, 1_000_000 * (10 * mb if part == 0.2 else mb))
        for second, mb in enumerate(sizes_mb)
        for part in (0.2, 0.4, 0.6)
    ]


def test_growth_is_from_the_millionth_event_to_the_last() -> None:
    result = judged(_samples(80, 100, 104, 105), [0.0, 1.0, 2.0, 3.0, 4.0], 500_000)
    assert (result["mb_after_first"], result["mb_after_all"]) == (100.0, 105.0)
    assert (result["growth"], result["within"], result["events"]) == (0.05, True, 2_000_000)
    assert result["peak_mb"] == 1_050.0


def test_growth_of_more_than_five_percent_is_not_within() -> None:
    assert judged(_samples(100, 106), [0.0, 1.0, 2.0], 1_000_000)["within"] is False


def test_shrinking_is_within() -> None:
    assert judged(_samples(100, 90), [0.0, 1.0, 2.0], 1_000_000)["within"] is True
