"""The arithmetic on the worker's histogram of event-loop lag."""

import pytest

from benchmarks.loop_lag import LoopLag

INFINITY = float("inf")


def test_only_what_came_between_two_readings_counts() -> None:
    lag = LoopLag.between({0.01: 5, 0.05: 7, INFINITY: 7}, {0.01: 15, 0.05: 27, INFINITY: 28})
    assert (lag.samples, lag.above_limit) == (21, 1)


def test_a_first_reading_may_be_empty() -> None:
    assert LoopLag.between({}, {0.05: 3, INFINITY: 4}).samples == 4


def test_a_quantile_lies_in_its_bucket_in_proportion() -> None:
    lag = LoopLag({0.01: 90, 0.05: 10, INFINITY: 0})
    assert lag.quantile_s(0.45) == pytest.approx(0.005)
    assert lag.quantile_s(0.95) == pytest.approx(0.03)
    assert lag.quantile_s(1.0) == pytest.approx(0.05)


def test_one_late_turn_in_a_thousand_is_too_late_and_one_in_two_thousand_is_not() -> None:
    often = LoopLag({0.05: 997, 0.1: 3})
    seldom = LoopLag({0.05: 1999, 0.1: 1})
    assert often.quantile_s(0.999) > 0.05 >= seldom.quantile_s(0.999)


def test_beyond_the_last_bound_the_lag_is_at_least_that_bound() -> None:
    lag = LoopLag({0.05: 1, 60.0: 0, INFINITY: 9})
    assert lag.quantile_s(0.5) == 60.0
    assert lag.as_dict()["max_bucket"] == 3_600_000


def test_the_highest_bucket_is_that_of_the_worst_turn() -> None:
    assert LoopLag({0.05: 9, 0.25: 1, 60.0: 0}).as_dict()["max_bucket"] == 250


def test_spans_add_up() -> None:
    total = LoopLag.total([LoopLag({0.05: 2, 0.1: 1}), LoopLag({0.05: 3, 0.1: 0})])
    assert (total.samples, total.above_limit) == (6, 1)


def test_a_loop_that_was_never_timed_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="never timed"):
        LoopLag({0.05: 0}).quantile_s(0.5)
