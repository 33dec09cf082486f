"""How long an event takes at a fixed rate, from its producer until a reader has its prediction in hand."""

import contextlib
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import xgboost
from numpy.typing import NDArray

from benchmarks import synthetic
from benchmarks.peers.outputs import Events
from benchmarks.peers.pacer import PROBES
from benchmarks.peers.turns import Turn, wait, wait_for_answer
from benchmarks.peers.watch import Watch

WARM_UP_S: Final = 5.0
_BEHIND_S: Final = 2.0
_LAST_S: Final = 60.0


class Latency(NamedTuple):
    """Milliseconds of the events that count, or None of a contestant that `fell_behind`: more than 2 s at the end.

    `late_ms` is of the instrument: how far behind its own schedule the producer was at p99, of which 5 ms are its tick.
    What it sends late counts from when it is sent.
    """

    rate: int
    events: int
    fell_behind: bool
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    late_ms: float


class Pace(NamedTuple):
    """A fixed rate in events per second, for so many seconds that count after the warm-up; and the model."""

    rate: int
    seconds: float
    seed: int
    booster: xgboost.Booster

    @property
    def uncounted(self) -> int:
        """How many events come before those that count."""
        return PROBES + int(WARM_UP_S * self.rate)

    @property
    def events(self) -> int:
        """How many events there are in all."""
        return self.uncounted + int(self.seconds * self.rate)


def take_turn(turn: Turn, pace: Pace) -> Latency:
    """Let a contestant answer events as they come. Raises OutputsDiffer or ContestantFailed."""
    course = turn.course
    course.clear(events=True)
    bootstrap, topic = course.cluster.bootstrap, course.topics.predictions
    notes = turn.folder / f"{turn.name}.npy"
    with (
        _undisturbed(),
        Watch(bootstrap, topic) as watch,
        _producer(turn, pace, notes) as producer,
        turn.running() as running,
    ):
        wait_for_answer(running, lambda: watch.count >= PROBES)
        assert producer.stdin is not None
        producer.stdin.write(b"go\n")
        producer.stdin.flush()
        sent = wait(running, lambda: producer.poll() is not None, WARM_UP_S + pace.seconds + _LAST_S, 0.05)
        if not sent or producer.returncode:
            raise TimeoutError("the producer of events failed")
        fell_behind = not wait(running, lambda: watch.count >= pace.events, _BEHIND_S, 0.01)
    values = synthetic.draw(pace.events, pace.seed)
    events = Events.read(course.cluster.read(course.topics.features), pace.booster, values)
    turn.check(events, partial=fell_behind)
    sent_ms = np.load(notes)
    return latency_of(pace, sent_ms, watch.seen_ms(events) - sent_ms, fell_behind=fell_behind)


def latency_of(
    pace: Pace, sent_ms: NDArray[np.float64], taken_ms: NDArray[np.float64], *, fell_behind: bool
) -> Latency:
    """Return the figures of what each event (events,) took; the first ones do not count."""
    due_ms = np.arange(pace.events - PROBES) * 1000 / pace.rate
    late_ms = float(np.percentile((sent_ms[PROBES:] - sent_ms[PROBES] - due_ms)[pace.uncounted - PROBES :], 99))
    p50, p99, most = _percentiles(taken_ms[pace.uncounted :], fell_behind)
    return Latency(
        rate=pace.rate,
        events=pace.events - pace.uncounted,
        fell_behind=fell_behind,
        p50_ms=p50,
        p99_ms=p99,
        max_ms=most,
        late_ms=round(late_ms, 2),
    )


def _percentiles(taken_ms: NDArray[np.float64], fell_behind: bool) -> list[float] | list[None]:
    """Return the median, the 99th percentile and the largest."""
    if fell_behind:
        return [None, None, None]
    return [round(figure, 2) for figure in np.percentile(taken_ms, (50, 99, 100)).tolist()]


@contextlib.contextmanager
def _producer(turn: Turn, pace: Pace, notes: Path) -> Iterator["subprocess.Popen[bytes]"]:
    course = turn.course
    words = [course.cluster.bootstrap, course.topics.features, pace.rate, pace.events, pace.seed, notes]
    command = [sys.executable, "-m", "benchmarks.peers.pacer", *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Collect no garbage meanwhile: with a million events in memory that would hold up the readers."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
