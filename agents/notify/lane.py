"""A lane: delivers to one sink what waits for it, one alert at a time. So a sink that is slow delays no other."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from agents.notify.queue import NotifyState, Waiting, done, excused, next_of, postponed, tried
from schemas.errors import InvalidEvent
from schemas.events import Alert
from schemas.sinks import SinkSpec
from schemas.wire import decode
from stores.sinks import LaterError, Sender, Undeliverable

MINUTE_S: Final = 60.0
LONGEST_WAIT_S: Final = 3_600.0  # that a receiver can ask for
ATTEMPT_S: Final = 60.0  # senders end sooner by themselves


class Outlet(NamedTuple):
    """A sink and what delivers to it."""

    spec: SinkSpec
    sender: Sender


class Desk(Protocol):
    """What the lanes of a stream share: the state, which each changes for its own sink only."""

    @property
    def state(self) -> NotifyState:
        """The newest state."""

    def change(self, state: NotifyState) -> None:
        """Move to another state, which is written soon."""

    async def news(self) -> None:
        """Wait until the state changes, or becomes durable."""

    async def is_durable(self) -> None:
        """Wait until the state as it is now is durable."""

    def delivered(self, sink: str, waiting: Waiting) -> None:
        """Count a delivery."""

    def retried(self, sink: str, waiting: Waiting, why: str) -> None:
        """Tell of an attempt that failed."""

    def given_up(self, sink: str, waiting: Waiting, error: InvalidEvent) -> None:
        """Write down that the alert does not reach the sink."""


class Lane:
    """Delivers to one outlet. An attempt begins only when a checkpoint that counts it is durable.

    So whoever has lost the partition delivers nothing new, and a worker that ends in the middle of every attempt comes
    to an end, too.
    """

    def __init__(self, outlet: Outlet, desk: Desk, clock_ms: Callable[[], int], clock: Callable[[], float]) -> None:
        self._outlet = outlet
        self._name = outlet.spec.name
        self._desk = desk
        self._clock_ms = clock_ms
        self._clock = clock
        self._begun: deque[float] = deque(maxlen=outlet.spec.per_minute)
        self._closed_until = 0.0
        self._sending = self._stopping = False

    def stop(self, task: asyncio.Task[None]) -> None:
        """End `task`, which runs `work`: at once, or after the attempt under way."""
        self._stopping = True
        if not self._sending:
            task.cancel()

    async def work(self) -> None:
        """Deliver what comes, until stopped."""
        while not self._stopping:
            waiting = next_of(self._desk.state.lanes.get(self._name, ()), self._clock_ms())
            if waiting is None:
                await self._desk.news()
            elif (pause_s := self._pause_s(waiting)) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._desk.news()
            elif waiting.attempts >= self._outlet.spec.attempts:
                self._give_up(waiting, "exhausted", "the worker ended in the middle of the last attempt")
            else:
                await self._deliver(waiting)

    def _pause_s(self, waiting: Waiting) -> float:
        """Return how long to wait: for the alert's next attempt, as the receiver asks, and for the rate."""
        now = self._clock()
        full = len(self._begun) == self._begun.maxlen
        rate_s = self._begun[0] + MINUTE_S - now if full else 0.0
        return max((waiting.not_before_ms - self._clock_ms()) / 1000, self._closed_until - now, rate_s)

    async def _deliver(self, waiting: Waiting) -> None:
        self._desk.change(tried(self._desk.state, self._name, waiting.id))
        try:
            await self._desk.is_durable()
        except asyncio.CancelledError:
            self._desk.change(excused(self._desk.state, self._name, waiting.id))
            raise
        alert = decode(Alert, bytes(self._desk.state.held[waiting.id].value))
        self._begun.append(self._clock())
        self._sending = True
        try:
            async with asyncio.timeout(ATTEMPT_S):
                await self._outlet.sender.send(alert)
        except Undeliverable as error:
            self._give_up(waiting, "refused", str(error))
        except LaterError as error:
            if error.after_s is not None:
                self._closed_until = self._clock() + min(error.after_s, LONGEST_WAIT_S)
            self._failed(waiting, str(error))
        except Exception as error:  # noqa: BLE001  # the others and the stream go on; its text may hold a secret
            self._failed(waiting, f"the attempt ended with {type(error).__name__}")
        else:
            self._desk.delivered(self._name, waiting)
            self._desk.change(done(self._desk.state, self._name, waiting.id))
        finally:
            self._sending = False

    def _failed(self, waiting: Waiting, why: str) -> None:
        if waiting.attempts + 1 >= self._outlet.spec.attempts:
            self._give_up(waiting, "exhausted", f"{why}; that was attempt {waiting.attempts + 1}, the last")
            return
        self._desk.retried(self._name, waiting, why)
        self._desk.change(postponed(self._desk.state, self._name, waiting.id, self._clock_ms()))

    def _give_up(self, waiting: Waiting, reason: str, why: str) -> None:
        self._desk.given_up(self._name, waiting, InvalidEvent(reason, f"sink {self._name}: {why}"))
        self._desk.change(done(self._desk.state, self._name, waiting.id))
