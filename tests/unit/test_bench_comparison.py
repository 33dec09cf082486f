"""The benchmark's arithmetic: rates are those of the steady part, and outputs that differ are named."""

import json

import pytest

from benchmarks.comparison import Turn, differences, summary, turn
from benchmarks.plain import Row

EXPECTED = {f"e{n}": n / 7 for n in range(20)}


def _row(event_id: str, score: float, time_ms: int = 0) -> Row:
    return Row(b"key", json.dumps({"event_id": event_id, "score": score}).encode(), 0, 0, time_ms)


ROWS = [_row(event_id, score) for event_id, score in EXPECTED.items()]


def test_the_expected_outputs_in_any_order_do_not_differ() -> None:
    assert differences(EXPECTED, ROWS[::-1]) == []


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (ROWS[1:], "1 not scored: e0"),
        ([*ROWS, ROWS[5]], "1 scored twice: e5"),
        ([*ROWS, _row("ghost", 0.5)], "1 never sent: ghost"),
        ([_row("e0", 1e-9), *ROWS[1:]], "1 scored differently: e0 got 1e-09, expected 0.0"),
    ],
)
def test_every_difference_is_named(rows: list[Row], sentence: str) -> None:
    assert differences(EXPECTED, rows) == [sentence]


def test_the_steady_rate_ignores_a_slow_start_and_a_slow_end() -> None:
    """1,000 rows, one per millisecond, but the first waited a minute for the second and the last another minute."""
    rows = [_row("e", 0.0, time_ms) for time_ms in (0, *range(60_000, 60_998), 120_000)]
    taken = turn(rows, commit_ms=None)
    assert taken.steady_eps == pytest.approx(1_000)
    assert taken.overall_eps == pytest.approx(1_000 / 120)


def test_rows_that_came_all_at_once_have_no_rate() -> None:
    with pytest.raises(ValueError, match="too few"):
        turn(ROWS, commit_ms=None)


def test_the_summary_takes_medians_and_compares_exactly_once_with_the_bare_loop() -> None:
    def turns(*rates: float) -> list[Turn]:
        return [Turn(rate, rate, commit_ms=rate / 10) for rate in rates]

    found = summary(
        {"bare_aiokafka": turns(50, 100, 900), "penstock": turns(80, 90, 10), "penstock_at_least_once": turns(95)}
    )
    assert found["bare_aiokafka_eps"] == 100
    assert found["penstock_eps"] == 80
    assert found["penstock_at_least_once_eps"] == 95
    assert found["ratio"] == 0.8
    assert found["commit_ms"] == 8.0
