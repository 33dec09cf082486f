"""Liveness: how late the event loop is, whether it turns at all, and whether there is progress where there is lag."""

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable

from schemas.errors import FatalError, PenstockError
from stream import metrics as m
from stream.metric_values import Metrics
from stream.tasks import PartitionTask

log = logging.getLogger("penstock.watchdog")

LAG_INTERVAL_S = 0.02
STUCK_EXIT_CODE = 70


async def measure_loop_lag(metrics: Metrics) -> None:
    """Observe for ever how late a timer of LAG_INTERVAL_S fires."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        metrics.observe(m.LOOP_LAG, max(0.0, loop.time() - due))


class ProgressWatch:
    """Looks for tasks that have lag and commit nothing although the broker answers.

    It counts its own looks, not the clock: each look at which a task has lag, has made no progress since the look
    before, and the broker answers, counts `interval_s` against it. So nobody is blamed for time in which the task was
    idle, the broker was away, or the whole process was stopped. `stalled_s` is the worst task's count.
    """

    def __init__(
        self,
        tasks: Callable[[], Iterable[PartitionTask]],
        ask_broker: Callable[[], Awaitable[object]],
        stall_timeout_s: float,
        interval_s: float = 1.0,
    ) -> None:
        self.stalled_s = 0.0
        self._tasks = tasks
        self._ask_broker = ask_broker
        self._stall_timeout_s = stall_timeout_s
        self._interval_s = interval_s
        self._looks: dict[PartitionTask, tuple[float, int]] = {}  # progress_at, and looks without any since

    async def run(self) -> None:
        """Watch for ever; raises FatalError, which names the task, when it has stalled for `stall_timeout_s`."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self._look()
            for task, (_, looks) in self._looks.items():
                if looks * self._interval_s > self._stall_timeout_s:
                    raise FatalError(
                        f"{task.name} has {sum(task.lag_events.values())} events waiting and committed nothing for "
                        f"{self.stalled_s:.0f} s although the broker answers: the worker is stuck and ends",
                        exit_code=STUCK_EXIT_CODE,
                    )

    async def _look(self) -> None:
        behind = [task for task in self._tasks() if task.running and sum(task.lag_events.values()) > 0]
        looks = {}
        for task in behind:
            progress_at, count = self._looks.get(task, (task.progress_at, -1))
            looks[task] = (task.progress_at, count + 1 if progress_at == task.progress_at else 0)
        if any(count for _, count in looks.values()) and not await self._broker_answers():
            looks = {}
        self._looks = looks
        self.stalled_s = max((count for _, count in looks.values()), default=0) * self._interval_s

    async def _broker_answers(self) -> bool:
        try:
            await self._ask_broker()
        except PenstockError as error:
            log.warning("the broker does not answer: %s", error)
            return False
        return True


class LoopGuard:
    """A thread that ends the process when the event loop does not turn for `timeout_s`: nothing else could.

    It counts its own wake-ups, not the clock, so that a process that was stopped and continued is not blamed.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout_s: float, end: Callable[[], None] | None = None
    ) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._end = end or _end_process
        self._turned = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-guard", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()

    def _watch(self) -> None:
        misses = 0
        interval_s = min(1.0, self._timeout_s / 5)
        while not self._stopped.is_set():
            self._turned.clear()
            try:
                self._loop.call_soon_threadsafe(self._turned.set)
            except RuntimeError:
                return  # the loop is closed: the worker has ended
            self._stopped.wait(interval_s)
            misses = 0 if self._turned.is_set() else misses + 1
            if misses * interval_s >= self._timeout_s:
                self._end()
                return


def _end_process() -> None:
    sys.stderr.write("penstock: the event loop is stuck and the worker ends; this is what every thread does:\n")
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.flush()
    os._exit(STUCK_EXIT_CODE)
