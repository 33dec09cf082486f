"""When each strategy learns, and why it says so."""

from typing import Any

import numpy as np
import pytest

from ml.learning.strategies import Adaptive, Clock, Rule, Settings, rule

HOUR = 3_600_000


def _rule(strategy: Any, **settings: Any) -> Rule:
    found = rule(Settings(strategy=strategy, **settings), Clock())
    assert found is not None
    return found


def _updates(found: Rule, event_time_ms: Any, right: Any = None) -> list[tuple[int, str]]:
    """Feed all samples; return after how many samples each update came, and its reason."""
    times = np.asarray(event_time_ms, np.int64)
    right = np.ones(len(times), bool) if right is None else np.asarray(right, bool)
    updates, waiting, position = [], 0, 0
    while position < len(times):
        start = position
        count, reason = found.admit(
            waiting,
            times[start:],
            lambda n, start=start: int(right[start : start + n].sum()),  # type: ignore[misc]
        )
        position += count
        waiting += count
        assert waiting <= found.settings.max_buffer
        if reason is not None:
            assert waiting > 0
            updates.append((position, reason))
            found.updated(waiting)
            waiting = 0
    return updates


def test_incremental_has_no_rule_because_nothing_waits() -> None:
    assert rule(Settings(strategy="incremental"), Clock()) is None


def test_a_mini_batch_is_learnt_when_it_is_whole() -> None:
    assert _updates(_rule("mini_batch", batch_size=4), range(10)) == [(4, "batch"), (8, "batch")]


@pytest.mark.parametrize("strategy", ["mini_batch", "periodic", "adaptive"])
def test_a_full_buffer_is_learnt_whatever_the_strategy(strategy: str) -> None:
    found = _rule(strategy, batch_size=100, max_buffer=3)
    assert _updates(found, range(7)) == [(3, "buffer_full"), (6, "buffer_full")]


def test_a_period_is_learnt_when_the_first_event_of_a_later_one_comes() -> None:
    found = _rule("periodic", period_ms=10)
    assert _updates(found, [11, 12, 19, 20, 29, 45, 46]) == [(3, "period"), (5, "period")]


def test_periods_are_counted_from_the_epoch_not_from_the_first_sample() -> None:
    assert _updates(_rule("periodic", period_ms=10), [9, 10]) == [(1, "period")]
    assert _updates(_rule("periodic", period_ms=10), [10, 19]) == []


def test_an_event_of_an_earlier_period_belongs_to_what_waits_and_turns_nothing_back() -> None:
    assert _updates(_rule("periodic", period_ms=10), [15, 21, 14, 25, 13, 30]) == [(1, "period"), (5, "period")]


def test_adaptive_learns_when_time_has_passed_since_the_last_update() -> None:
    found = _rule("adaptive", batch_size=100, period_ms=HOUR)
    times = [0, 10, HOUR - 1, HOUR, HOUR + 1, 2 * HOUR - 1, 2 * HOUR]
    assert _updates(found, times) == [(4, "elapsed"), (7, "elapsed")]


def _adaptive(**settings: Any) -> Adaptive:
    """A rule whose usual level is 80 of 100."""
    clock = Clock(newest_ms=0, updated_ms=0, level_hits=80.0, level_samples=100.0)
    return Adaptive(Settings(strategy="adaptive", batch_size=100, max_buffer=1000, **settings), clock)


def test_adaptive_learns_when_the_accuracy_has_fallen_clearly() -> None:
    wrong = [True] * 60 + [False] * 40
    assert _updates(_adaptive(), np.zeros(150), wrong + [True] * 50) == [(100, "accuracy")]


def test_adaptive_takes_no_notice_of_a_fall_that_chance_explains() -> None:
    slightly_wrong = [True] * 75 + [False] * 25
    assert _updates(_adaptive(), np.zeros(100), slightly_wrong) == []


def test_adaptive_notices_a_small_fall_once_enough_samples_show_it() -> None:
    first = _updates(_adaptive(), np.zeros(999), ([True] * 73 + [False] * 27) * 10)[0]
    assert first == (200, "accuracy")


def test_adaptive_takes_no_notice_of_a_fall_smaller_than_its_share() -> None:
    found = _adaptive(accuracy_drop=0.2)
    assert _updates(found, np.zeros(999), ([True] * 70 + [False] * 30) * 10) == []


def test_adaptive_does_not_look_before_a_batch_waits() -> None:
    assert _updates(_adaptive(), np.zeros(99), [False] * 99) == []


def test_adaptive_has_no_level_before_its_first_update() -> None:
    found = _rule("adaptive", batch_size=10, max_buffer=30)
    assert _updates(found, np.zeros(30), [True] * 10 + [False] * 20) == [(30, "buffer_full")]


def test_the_usual_level_follows_what_was_learnt() -> None:
    found = _adaptive()
    _updates(found, np.zeros(1000 * 30), [True, False] * 15_000)
    assert found.clock.level_hits / found.clock.level_samples == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("setting", ["batch_size", "max_buffer", "period_ms"])
def test_settings_below_one_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        Settings(**{setting: 0})
