"""When a stream is trained without any other reason: a cron expression that is read by the clock of its labels.

That clock is the newest label time in the samples log. So a replay at any speed asks at the same places in the log, and
a stream that stands still asks for nothing. No state is kept: which moment comes next follows from the clock alone.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from croniter import croniter

from ml.evaluation.histogram import Ints
from schemas.events import RetrainRequest
from schemas.streams import StreamSpec

_MINUTE: Final = timedelta(minutes=1)


class Due(NamedTuple):
    """A moment of the schedule that the clock has passed, when it came to `clock_ms`; there may have been more."""

    moment_ms: int
    clock_ms: int


class Schedule:
    """The moments of a cron expression of five fields in a time zone.

    A time of day that the zone's clocks show twice counts the first time; one that they skip counts at the moment when
    they are set forward. So a daily moment comes once on every day.
    """

    def __init__(self, expression: str, time_zone: str) -> None:
        """Take an expression and a zone that `TrainingSpec.problems` has nothing to say against."""
        self.expression: Final = expression
        self.time_zone: Final = time_zone
        self._zone = ZoneInfo(time_zone)

    def after(self, time_ms: int) -> int:
        """Return the first moment after `time_ms`, both in milliseconds since the epoch; about 0.1 ms."""
        time = datetime.fromtimestamp(time_ms / 1000, UTC)
        walls = croniter(self.expression, time.astimezone(self._zone).replace(tzinfo=None), ret_type=datetime)
        while (moment := self._moment_of(walls.get_next())) <= time:  # of an hour that the clocks show again
            pass
        return round(moment.timestamp() * 1000)

    def _moment_of(self, wall: datetime) -> datetime:
        """Return when the clocks of the zone first show `wall`, or what comes instead. A later one is never earlier."""
        while True:
            moment = wall.replace(tzinfo=self._zone).astimezone(UTC)
            if moment.astimezone(self._zone).replace(tzinfo=None) == wall:
                return moment
            wall += _MINUTE

    def passed(self, clock_ms: int | None, times_ms: Ints) -> list[Due]:
        """Return what becomes due while `times_ms`, shape (n,), move a clock that stands at `clock_ms`.

        The first time of all only sets the clock. However many moments one time passes, they are due once, by the name
        of the first; so it does not matter how the log is cut. About 0.1 ms, and as much for each that is due.
        """
        if not len(times_ms):
            return []
        clock_ms = int(times_ms[0]) if clock_ms is None else clock_ms
        clocks_ms = np.maximum(np.maximum.accumulate(times_ms), clock_ms)
        found: list[Due] = []
        while True:
            moment_ms = self.after(clock_ms)
            row = int(np.searchsorted(clocks_ms, moment_ms))
            if row == len(clocks_ms):
                return found
            clock_ms = int(clocks_ms[row])
            found.append(Due(moment_ms, clock_ms))


def schedule_of(spec: StreamSpec) -> Schedule | None:
    """Return the stream's schedule, if it has one."""
    if spec.training is None or not spec.training.schedule:
        return None
    return Schedule(spec.training.schedule, spec.training.time_zone)


def request_of(stream: str, schedule: Schedule, due: Due, requested_by: str) -> RetrainRequest:
    """Return what a trainer is asked when a moment has passed; its id is of the stream and the moment."""
    parts = ("retrain", stream, "schedule", str(due.moment_ms))
    return RetrainRequest(
        id=hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32],
        stream=stream,
        reason="schedule",
        evidence={
            "schedule": schedule.expression,
            "time_zone": schedule.time_zone,
            "moment_time_ms": due.moment_ms,
        },
        requested_time_ms=due.clock_ms,
        requested_by=requested_by,
    )
