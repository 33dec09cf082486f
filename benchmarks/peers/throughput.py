"""How many events per second a contestant scores of a topic that is full, and what that costs."""

import time
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.outputs import Events
from benchmarks.peers.turns import Turn, wait, wait_for_answer
from benchmarks.usage import Usage

_STEADY: Final = (0.1, 0.9)
_CONTESTANT: Final = "contestant"


class Steady(NamedTuple):
    """The part of the outputs that counts: `events` were appended from the one time to the other."""

    events: int
    from_ms: int
    to_ms: int


class Speed(NamedTuple):
    """What a turn showed. `events` have a prediction; where it is `partial`, time was up before all had one.

    `eps` are events per second and `cpu_us` microseconds of processor time per event, both in the steady part.
    `peak_mb` are the megabytes (10⁶ bytes) resident at most. `startup_s` is from spawning to the first prediction, and
    `total_s` to the last one; until then `total_cpu_s` of processor time were used. Of one that writes in bursts these
    two tell whether its steady part is one.
    """

    events: int
    eps: float
    cpu_us: float
    peak_mb: float
    startup_s: float
    total_s: float
    total_cpu_s: float
    partial: bool


def take_turn(turn: Turn, events: Events, turn_s: float) -> Speed:
    """Let a contestant score everything, or as much as it can from its first prediction on in `turn_s`.

    Raises OutputsDiffer or ContestantFailed.
    """
    course = turn.course
    course.clear()
    spawned_s = time.time()
    with turn.running() as running, Usage({_CONTESTANT: running.pid}) as usage:
        wait_for_answer(running, lambda: bool(course.cluster.ends(course.topics.predictions)))
        partial = not wait(running, lambda: turn.finished(len(events)), turn_s)
    outputs = turn.check(events, partial=partial)
    part = steady(outputs.times_ms)
    first_s, last_s = int(outputs.times_ms.min()) / 1000, int(outputs.times_ms.max()) / 1000
    return Speed(
        events=len(outputs.seen),
        eps=1000 * part.events / (part.to_ms - part.from_ms),
        cpu_us=1e6 * usage.cpu_s(_CONTESTANT, part.from_ms / 1000, part.to_ms / 1000) / part.events,
        peak_mb=usage.peak_mb(_CONTESTANT),
        startup_s=first_s - spawned_s,
        total_s=last_s - spawned_s,
        total_cpu_s=usage.cpu_s(_CONTESTANT, spawned_s, last_s),
        partial=partial,
    )


def steady(times_ms: NDArray[np.int64]) -> Steady:
    """Return the part between the 10th and the 90th percent of the outputs: start and end do not count.

    Raises ValueError when that is too short to be measured.
    """
    ordered = np.sort(times_ms)
    first, last = (int(share * len(ordered)) for share in _STEADY)
    if ordered[first] == ordered[last]:
        raise ValueError(f"{len(ordered)} events are too few: they were all written within a millisecond")
    return Steady(last - first, int(ordered[first]), int(ordered[last]))
