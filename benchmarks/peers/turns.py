"""What every turn has: a contestant that is started and surely ended, and a look at all that it wrote."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.comparison import OutputsDiffer
from benchmarks.peers.common.work import VARIANT
from benchmarks.peers.contestants import Contestant, Running
from benchmarks.peers.course import Course
from benchmarks.peers.outputs import Events, Outputs, differences

ANSWER_S: Final = 90.0


class ContestantFailed(Exception):
    """A contestant did not start, or ended by itself; the message says who, and has the end of its log."""


@dataclass(frozen=True)
class Turn:
    """One contestant's turn on a course. `name` is the turn's own: a consumer group and a folder are called so."""

    name: str
    contestant: Contestant
    course: Course
    folder: Path
    cpus: frozenset[int]

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Start the contestant; ask it to end after the block, and end it whatever happens.

        Raises ContestantFailed when it fails, ends by itself or takes too long to answer.
        """
        folder = self.folder / self.name
        folder.mkdir()
        try:
            running = self.contestant.start(self.course, self.name, folder, self.cpus)
            try:
                yield running
                running.check()
                if exit_code := running.end():
                    raise RuntimeError(f"ended with {exit_code} when told to")
            finally:
                running.kill()
        except (RuntimeError, TimeoutError) as problem:
            raise ContestantFailed(f"{self.contestant.name}: {problem}") from problem

    def finished(self, events: int) -> bool:
        """Return whether there is a prediction of each of so many events."""
        return self.contestant.finished(self.course, self.name, events)

    def check(self, events: Events, *, partial: bool) -> Outputs:
        """Return the predictions. Raises OutputsDiffer unless they and the histograms are as they must be.

        `partial`: the contestant was stopped before its end. Takes about 10 s for a million events.
        """
        cluster, topics = self.course.cluster, self.course.topics
        try:
            outputs = Outputs.read(cluster.read(topics.predictions), events)
            found = differences(events, outputs, partial=partial)
            if outputs.makers != {(self.course.model_id, VARIANT)}:
                found.append(f"the predictions are of {sorted(outputs.makers)}")
            if dead := sum(1 for _ in cluster.read(topics.features_dead)):
                found.append(f"{dead} dead letters")
            rows = cluster.read(topics.histograms)
            found += self.contestant.histogram_differences(self.course, events, outputs, rows, partial=partial)
        except (msgspec.MsgspecError, ValueError) as problem:
            found = [str(problem)]
        if found:
            raise OutputsDiffer(f"{self.contestant.name}: {'; '.join(found)}")
        return outputs


def wait(running: Running, holds: Callable[[], bool], timeout_s: float, every_s: float = 0.5) -> bool:
    """Wait until `holds()`; return whether it came true within `timeout_s`. Raises RuntimeError when it has ended."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        running.check()
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def wait_for_answer(running: Running, answered: Callable[[], bool]) -> None:
    """Wait for the first prediction. Raises TimeoutError when there is none for 90 s."""
    if not wait(running, answered, ANSWER_S, 0.1):
        raise TimeoutError(f"no prediction within {ANSWER_S:g} s")
