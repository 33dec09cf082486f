"""The schedule: however the log is cut, and wherever it is begun anew, it asks the same; moments are those of cron."""

import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.schedule import Due, Schedule

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
MINUTE = timedelta(minutes=1)
ZONES = st.sampled_from(["UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
MEANINGS: Final[Mapping[str, Callable[[datetime], bool]]] = {
    "*/20 * * * *": lambda wall: wall.minute % 20 == 0,
    "30 2 * * *": lambda wall: (wall.hour, wall.minute) == (2, 30),
    "15 1,2,3 * * *": lambda wall: wall.hour in (1, 2, 3) and wall.minute == 15,
    "0 */6 * * sun,mon": lambda wall: wall.hour % 6 == wall.minute == 0 and wall.weekday() in (6, 0),
}
EXPRESSIONS = st.sampled_from(list(MEANINGS))
TURNS = st.sampled_from([datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 29), (4, 5), (10, 25), (11, 1))])


@given(
    EXPRESSIONS, ZONES, TURNS, st.lists(st.integers(-40 * HOUR_MS, 40 * HOUR_MS), min_size=1, max_size=30), st.data()
)
@settings(deadline=None)
def test_it_does_not_matter_how_the_log_is_cut(
    expression: str, zone: str, turn: datetime, shifts_ms: list[int], data: st.DataObject
) -> None:
    start_ms = round(turn.timestamp() * 1000)
    times_ms = np.array([start_ms + shift_ms for shift_ms in shifts_ms])
    whole = Schedule(expression, zone).passed(None, times_ms)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(times_ms)))) | {0, len(times_ms)})
    found: list[Due] = []
    clock_ms: int | None = None
    for start, stop in itertools.pairwise(cuts):
        found += Schedule(expression, zone).passed(clock_ms, times_ms[start:stop])  # a restart: only the clock is known
        clock_ms = int(times_ms[:stop].max())
    assert found == whole
    assert len({due.moment_ms for due in whole}) == len(whole)


@given(EXPRESSIONS, ZONES, TURNS, st.integers(-40 * HOUR_MS, 40 * HOUR_MS))
@settings(deadline=None)
def test_the_next_moment_is_the_first_at_which_the_clock_on_the_wall_fits(
    expression: str, zone: str, turn: datetime, shift_ms: int
) -> None:
    time_ms = round(turn.timestamp() * 1000) + shift_ms
    moment_ms = Schedule(expression, zone).after(time_ms)
    assert moment_ms > time_ms
    minute_ms = (time_ms // MINUTE_MS + 1) * MINUTE_MS
    while not _fits(expression, zone, minute_ms):
        minute_ms += MINUTE_MS
    assert moment_ms == minute_ms


def _fits(expression: str, zone: str, time_ms: int) -> bool:
    """Whether a person who looks at the wall every minute, and acts on each time of day only once, acts now."""
    now = _wall(zone, time_ms)
    before = _wall(zone, time_ms - MINUTE_MS)
    if now.fold:  # that hour is shown again
        return False
    skipped = [] if before.fold else [before + timedelta(minutes=i) for i in range(1, (now - before) // MINUTE)]
    return any(map(MEANINGS[expression], [*skipped, now]))


def _wall(zone: str, time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
