"""When a learner learns what has come: rules over the number and the event times of samples, never the wall clock.

Whatever the strategy, at most `max_buffer` samples wait; when that many do, they are learnt (reason "buffer_full").
What a rule decides depends on the samples in their order, not on how many of them come at once.
"""

import math
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Name = Literal["incremental", "mini_batch", "periodic", "adaptive"]
Hits = Callable[[int], int]
"""How many of the next so many samples the model, as it is now, would predict rightly."""

_FORGETTING = 0.9  # per update: the reference is mostly of the last ten
_CHANCE = 2.0  # standard errors


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`batch_size` is for mini_batch and adaptive; `period_ms`, of event time, for periodic and adaptive.

    `accuracy_drop` is the share of its accuracy that a model may lose before the adaptive strategy learns; a single
    score of `threshold` and above predicts class 1.
    """

    strategy: Name = "adaptive"
    batch_size: int = 100
    max_buffer: int = 1000
    period_ms: int = 24 * 3_600_000
    accuracy_drop: float = 0.05
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if min(self.batch_size, self.max_buffer, self.period_ms) < 1:
            raise ValueError("batch_size, max_buffer and period_ms must be at least 1")


class Clock(msgspec.Struct):
    """What a rule remembers: all that it needs to go on after a restart.

    `newest_ms` is the newest event time that came; `updated_ms` what it was at the last update. `hits` of the waiting
    samples were predicted rightly. `level_hits` of `level_samples` were before, the older the fainter.
    """

    newest_ms: int | None = None
    updated_ms: int | None = None
    hits: int = 0
    level_hits: float = 0.0
    level_samples: float = 0.0


class Rule(Protocol):
    """A strategy other than incremental. It keeps what it must remember in `clock`."""

    settings: Settings
    clock: Clock

    def admit(self, waiting: int, event_time_ms: NDArray[np.int64], hits: Hits) -> tuple[int, str | None]:
        """Return how many of the next samples join the `waiting` ones, and the reason to learn these then, if any.

        `event_time_ms` has at least one sample. When none joins there is a reason.
        """

    def updated(self, samples: int) -> None:
        """Take note that the `samples` waiting ones were learnt."""


def rule(settings: Settings, clock: Clock) -> Rule | None:
    """Return the rule of a strategy; None for incremental, where nothing ever waits."""
    if settings.strategy == "incremental":
        return None
    kinds: dict[str, Callable[[Settings, Clock], Rule]]
    kinds = {"mini_batch": MiniBatch, "periodic": Periodic, "adaptive": Adaptive}
    return kinds[settings.strategy](settings, clock)


class _Base:
    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock

    def updated(self, samples: int) -> None:
        self.clock.updated_ms = self.clock.newest_ms

    def _fits(self, waiting: int, event_time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the newest event time as of each sample that still has room."""
        room = event_time_ms[: self.settings.max_buffer - waiting]
        return np.maximum.accumulate(room if self.clock.newest_ms is None else np.maximum(room, self.clock.newest_ms))

    def _full(self, waiting: int) -> str | None:
        return "buffer_full" if waiting >= self.settings.max_buffer else None


class MiniBatch(_Base):
    """Learns each `batch_size` samples (reason "batch")."""

    def admit(self, waiting: int, event_time_ms: NDArray[np.int64], hits: Hits) -> tuple[int, str | None]:
        newest = self._fits(waiting, event_time_ms)[: self.settings.batch_size - waiting]
        self.clock.newest_ms = int(newest[-1])
        waiting += len(newest)
        return len(newest), "batch" if waiting == self.settings.batch_size else self._full(waiting)


class Periodic(_Base):
    """Learns what has come when the event times pass from one period to a later one (reason "period").

    Periods are counted from the epoch, so where a learner starts does not matter.
    """

    def admit(self, waiting: int, event_time_ms: NDArray[np.int64], hits: Hits) -> tuple[int, str | None]:
        newest = self._fits(waiting, event_time_ms)
        period = self.settings.period_ms
        current = int(newest[0]) // period
        before = (current if self.clock.newest_ms is None else self.clock.newest_ms // period) if waiting else current
        count = int(np.searchsorted(newest // period, before, side="right"))
        if count:
            self.clock.newest_ms = int(newest[count - 1])
        if count < len(newest):
            return count, "period"
        return count, self._full(waiting + count)


class Adaptive(_Base):
    """Learns when it pays: the buffer is full, the model has become worse ("accuracy"), or time has passed ("elapsed").

    Worse means: at each `batch_size` waiting samples, the share of the waiting ones that the model predicted rightly
    (before it learnt them) is below the usual level by `accuracy_drop` of it, and by two standard errors of a share of
    so many samples, which chance alone exceeds once in 44 times. The level is that of the updates before, each
    counting 0.9 of the next one. Time has passed when `period_ms` lie between the newest event time and
    what that was at the last update.
    """

    def admit(self, waiting: int, event_time_ms: NDArray[np.int64], hits: Hits) -> tuple[int, str | None]:
        until_check = self.settings.batch_size - waiting % self.settings.batch_size
        newest = self._fits(waiting, event_time_ms)[:until_check]
        if self.clock.updated_ms is None:
            self.clock.updated_ms = int(newest[0])
        late = int(np.searchsorted(newest, self.clock.updated_ms + self.settings.period_ms))
        count = min(late + 1, len(newest))
        self.clock.newest_ms = int(newest[count - 1])
        self.clock.hits += hits(count)
        waiting += count
        if waiting % self.settings.batch_size == 0 and self._is_worse(waiting):
            return count, "accuracy"
        return count, self._full(waiting) or ("elapsed" if late < len(newest) else None)

    def updated(self, samples: int) -> None:
        super().updated(samples)
        self.clock.level_hits = _FORGETTING * self.clock.level_hits + self.clock.hits
        self.clock.level_samples = _FORGETTING * self.clock.level_samples + samples
        self.clock.hits = 0

    def _is_worse(self, waiting: int) -> bool:
        if not self.clock.level_samples:
            return False
        level = self.clock.level_hits / self.clock.level_samples
        error = math.sqrt(level * (1 - level) / waiting)
        return level - self.clock.hits / waiting > max(self.settings.accuracy_drop * level, _CHANCE * error)
