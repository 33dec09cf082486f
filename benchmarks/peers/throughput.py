"""How many events per second a contestant scores of a topic that is full, and what that costs."""

import time
from typing import Final, NamedTuple

from benchmarks.comparison import steady
from benchmarks.peers.outputs import Events
from benchmarks.peers.turns import Turn, wait, wait_for_answer
from benchmarks.usage import Usage

_CONTESTANT: Final = "contestant"


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
        eps=part.eps,
        cpu_us=1e6 * usage.cpu_s(_CONTESTANT, part.from_ms / 1000, part.to_ms / 1000) / part.events,
        peak_mb=usage.peak_mb(_CONTESTANT),
        startup_s=first_s - spawned_s,
        total_s=last_s - spawned_s,
        total_cpu_s=usage.cpu_s(_CONTESTANT, spawned_s, last_s),
        partial=partial,
    )
