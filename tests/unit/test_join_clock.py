"""The join's clock, and the log of its sweeps."""

import numpy as np

from agents.join.clock import MAX_SWEEPS, NEVER, Clock, SweepLog
from stream.timestamps import SLACK_MS


def _read(clock: Clock, number: int, times: list[int], timestamps: list[int] | None = None) -> list[int]:
    stamps = np.array(timestamps or [0] * len(times))
    swept: list[int] = clock.advance(number, np.array(times), stamps).tolist()
    return swept


def test_the_clock_is_the_earlier_head_in_steps_of_the_grid_and_never_goes_back() -> None:
    clock = Clock(grid_ms=10, idle_wait_ms=1_000)
    assert _read(clock, 0, [35, 99]) == [NEVER, NEVER]
    assert _read(clock, 1, [9, 25, 5, 70]) == [0, 20, 20, 70]
    assert _read(clock, 0, [50]) == [70]
    assert clock.time_ms == 70


def test_a_side_that_never_came_is_waited_for_from_the_first_record_of_the_other() -> None:
    clock = Clock(grid_ms=10, idle_wait_ms=100)
    assert _read(clock, 0, [20, 40, 60], [1_000, 1_099, 1_100]) == [NEVER, NEVER, 60]


def test_a_side_that_comes_back_holds_the_clock_but_does_not_turn_it_back() -> None:
    clock = Clock(grid_ms=10, idle_wait_ms=100)
    _read(clock, 1, [10], [0])
    assert _read(clock, 0, [50, 80], [99, 100]) == [10, 80]
    assert _read(clock, 1, [20], [150]) == [80]
    assert _read(clock, 0, [200], [160]) == [80]


def test_the_clock_stands_still_within_a_batch_that_begins_idle_and_ends_busy() -> None:
    clock = Clock(grid_ms=10, idle_wait_ms=100)
    _read(clock, 0, [50], [1_000])
    assert _read(clock, 1, [20, 30, 60], [0, 950, 960]) == [50, 50, 50]


def test_a_time_far_ahead_of_its_timestamp_counts_as_a_day_ahead() -> None:
    clock = Clock(grid_ms=1, idle_wait_ms=1_000)
    assert _read(clock, 0, [SLACK_MS + 90, SLACK_MS + 91, 10**13], [90, 90, 95]) == [NEVER] * 3
    assert clock.sides[0].head_ms == SLACK_MS + 95
    assert _read(clock, 1, [10**13], [50]) == [SLACK_MS + 50]


def test_a_sweep_that_is_stopped_goes_on_with_the_next_record() -> None:
    clock = Clock(grid_ms=10, idle_wait_ms=1_000)
    _read(clock, 0, [500])
    swept = clock.advance(1, np.array([5, 300, 400]), np.zeros(3, dtype=np.int64))
    assert clock.restrain(swept, 310).tolist() == [0, 300, 310]
    assert clock.swept_ms == 310
    assert _read(clock, 1, [7]) == [400]


def test_a_clock_does_not_depend_on_where_batches_end() -> None:
    rng = np.random.default_rng(1)
    times, stamps = rng.integers(0, 1_000, 100).tolist(), np.sort(rng.integers(0, 300, 100)).tolist()
    whole, cut = (Clock(grid_ms=7, idle_wait_ms=90) for _ in range(2))
    for clock in (whole, cut):
        _read(clock, 1, [30], [5])
    swept = _read(whole, 0, times, stamps)
    assert [_read(cut, 0, [time], [stamp])[0] for time, stamp in zip(times, stamps, strict=True)] == swept
    assert cut == whole


def test_sweeps_survive_packing_and_the_ones_that_part_nothing_are_forgotten() -> None:
    log = SweepLog()
    log.note(0, NEVER, np.array([NEVER, 20, 20, 30]), np.array([5, 6, 7, 8]), 100)
    log.note(1, 30, np.array([70]), np.array([101]), 8)
    log.forget((6, 100))
    assert log.base_ms == 20
    again = SweepLog(log.base_ms, log.packed(10), 10)
    assert again.sweeps == log.sweeps
    assert [(sweep.time_ms, sweep.offsets) for sweep in again.sweeps] == [(30, (8, 100)), (70, (8, 101))]
    assert SweepLog(5, SweepLog().packed(10), 10).sweeps == []


def test_of_sweeps_without_records_between_them_that_still_matter_only_the_last_is_kept() -> None:
    log = SweepLog()
    log.note(1, NEVER, np.array([10, 20, 30, 40]), np.array([1, 2, 3, 4]), 500)
    log.forget((400, 3))
    assert [(sweep.time_ms, sweep.offsets) for sweep in log.sweeps] == [(30, (500, 3)), (40, (500, 4))]
    assert log.base_ms == NEVER


def test_a_log_of_sweeps_is_bounded_and_keeps_the_newest() -> None:
    log = SweepLog()
    for i in range(3 * MAX_SWEEPS):
        log.note(0, i, np.array([i + 1]), np.array([i + 1]), 0)
        log.forget((0, 0))
    assert len(log.sweeps) <= MAX_SWEEPS
    assert [sweep.time_ms for sweep in log.sweeps[-100:]] == list(range(3 * MAX_SWEEPS - 99, 3 * MAX_SWEEPS + 1))
