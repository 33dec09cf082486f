"""Who is blamed for standing still, and who is not."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field

import pytest

from schemas.errors import FatalError, RetryableError
from stream.batches import TopicPartition
from stream.metric_values import Metrics
from stream.watchdog import LAG_INTERVAL_S, STUCK_EXIT_CODE, LoopGuard, ProgressWatch, measure_loop_lag
from tests.support import leap_through, now

STALL_S = 60.0
INPUT = TopicPartition("in", 0)


@dataclass(eq=False)
class Task:
    """What the watchdog sees of a partition task."""

    name: str = "score/0"
    running: bool = True
    lag_events: dict[TopicPartition, int] = field(default_factory=lambda: {INPUT: 0})
    progress_at: float = 0.0

    def gets(self, events: int) -> None:
        self.lag_events[INPUT] += events

    def commits(self) -> None:
        self.lag_events[INPUT] = 0
        self.progress_at = now()


class Watch:
    """A watchdog over some tasks."""

    def __init__(self, *tasks: Task) -> None:
        self.tasks = tasks
        self.broker_away = False
        self.verdict: FatalError | None = None

    async def ask_broker(self) -> None:
        if self.broker_away:
            raise RetryableError("nobody answers")

    async def run(self) -> None:
        try:
            await ProgressWatch(
                lambda: self.tasks,  # type: ignore[arg-type, return-value]
                self.ask_broker,
                STALL_S,
            ).run()
        except FatalError as error:
            self.verdict = error


def watching(*tasks: Task) -> Callable[[Callable[[Watch], Coroutine[None, None, None]]], Callable[[], None]]:
    """Run a scenario in leaping time while a watchdog looks at `tasks`."""

    def decorate(scenario: Callable[[Watch], Coroutine[None, None, None]]) -> Callable[[], None]:
        async def run() -> None:
            watch = Watch(*tasks)
            running = asyncio.create_task(watch.run())
            await scenario(watch)
            running.cancel()

        return lambda: leap_through(run())

    return decorate


@watching(Task())
async def test_a_task_that_commits_nothing_while_it_has_lag_is_named_and_ends_the_worker(watch: Watch) -> None:
    await asyncio.sleep(1000.0)
    watch.tasks[0].gets(5)
    await asyncio.sleep(STALL_S)
    assert watch.verdict is None
    await asyncio.sleep(3.0)
    assert watch.verdict is not None
    assert watch.verdict.exit_code == STUCK_EXIT_CODE
    assert str(watch.verdict).startswith("score/0 has 5 events waiting and committed nothing for 6")


@watching(Task())
async def test_an_idle_task_is_never_blamed(watch: Watch) -> None:
    await asyncio.sleep(10_000.0)
    assert watch.verdict is None


@watching(Task())
async def test_a_slow_task_that_commits_now_and_then_is_not_blamed(watch: Watch) -> None:
    for _ in range(100):
        watch.tasks[0].gets(5)
        await asyncio.sleep(STALL_S - 2.0)
        watch.tasks[0].commits()
        watch.tasks[0].gets(5)
    assert watch.verdict is None


@watching(Task(running=False))
async def test_a_task_that_is_still_opening_is_not_blamed(watch: Watch) -> None:
    watch.tasks[0].gets(5)
    await asyncio.sleep(10_000.0)
    assert watch.verdict is None


@watching(Task())
async def test_nobody_is_blamed_while_the_broker_is_away_or_for_a_while_after(watch: Watch) -> None:
    watch.tasks[0].gets(5)
    watch.broker_away = True
    await asyncio.sleep(10_000.0)
    watch.broker_away = False
    await asyncio.sleep(STALL_S - 1.0)
    assert watch.verdict is None
    await asyncio.sleep(4.0)
    assert watch.verdict is not None


@watching(Task("busy/0"), Task("busy/1"), Task("idle/0"))
async def test_a_task_that_was_idle_is_not_blamed_for_the_first_event_after_it(watch: Watch) -> None:
    *busy, idle = watch.tasks
    for turn in range(100):
        busy[turn % 2].commits()  # each of them is always somewhat behind
        busy[turn % 2].gets(5)
        await asyncio.sleep(4.0)
    idle.gets(1)
    await asyncio.sleep(2.0)
    assert watch.verdict is None


@contextlib.asynccontextmanager
async def guarded(timeout_s: float) -> AsyncIterator[threading.Event]:
    """Watch the running loop; the event tells that the guard would have ended the process."""
    ended = threading.Event()
    guard = LoopGuard(asyncio.get_running_loop(), timeout_s, ended.set)
    guard.start()
    yield ended
    guard.stop()


async def test_the_guard_ends_a_process_whose_loop_is_stuck() -> None:
    async with guarded(0.3) as ended:
        await asyncio.sleep(0.2)
        time.sleep(1.0)  # noqa: ASYNC251  # that is what is tested
        assert ended.is_set()


async def test_the_guard_lets_a_loop_be_slow_now_and_then() -> None:
    async with guarded(0.6) as ended:
        for _ in range(4):
            time.sleep(0.2)  # noqa: ASYNC251
            await asyncio.sleep(0.15)
        assert not ended.is_set()


def test_the_guard_goes_when_its_loop_is_closed() -> None:
    loop = asyncio.new_event_loop()
    guard = LoopGuard(loop, 0.1, end=lambda: pytest.fail("there is nothing to end"))
    guard.start()
    loop.close()
    deadline = time.monotonic() + 5.0
    while any(thread.name == "loop-guard" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the guard's thread still runs"
        time.sleep(0.02)


_PROCESS = """
import asyncio, time
from stream.watchdog import LoopGuard
async def main():
    LoopGuard(asyncio.get_running_loop(), 0.5).start()
    print("ready", flush=True)
    {body}
asyncio.run(main())
"""


def _process(body: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _PROCESS.format(body=body)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_stuck_process_ends_with_its_own_exit_code_and_shows_where_it_was() -> None:
    process = _process("time.sleep(30)")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == STUCK_EXIT_CODE
    assert "the event loop is stuck" in errors
    assert "in main" in errors


def test_a_process_that_was_stopped_and_continued_goes_on() -> None:
    process = _process("await asyncio.sleep(1.6)")
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.2)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


async def test_a_late_timer_shows_as_loop_lag() -> None:
    metrics = Metrics()
    measuring = asyncio.create_task(measure_loop_lag(metrics))
    await asyncio.sleep(5 * LAG_INTERVAL_S)
    time.sleep(0.3)  # noqa: ASYNC251
    await asyncio.sleep(5 * LAG_INTERVAL_S)
    measuring.cancel()
    value = metrics.registry.get_sample_value
    count, short = (value("ml_event_loop_lag_seconds_bucket", {"le": le}) or 0.0 for le in ("+Inf", "0.1"))
    assert count >= 3
    assert count - short == 1
