"""A lane: delivers to one sink what waits for it, one alert at a time. So a sink that is slow delays no other."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from agents.notify.desk import Desk
from agents.notify.originals import Original
from agents.notify.queue import Waiting, due_ms, next_of, postponed, tried
from schemas.errors import InvalidEvent
from schemas.events import Alert
from schemas.quantities import MINUTE_MS
from schemas.sinks import SinkSpec
from schemas.wire import decode
from stores.sinks import LaterError, Sender, Undeliverable

MINUTE_S: Final = 60.0
LONGEST_WAIT_S: Final = 3_600.0  # that a receiver can ask for
ATTEMPT_S: Final = 60.0  # senders end sooner by themselves

log = logging.getLogger("penstock.notify")


class Outlet(NamedTuple):
    """A sink and what delivers to it."""

    spec: SinkSpec
    sender: Sender


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
        """Deliver what comes, until stopped. Raises KafkaError and RetryableError when the log cannot be read."""
        while not self._stopping:
            now_ms = self._clock_ms()
            waiting = next_of(self._desk.lanes.get(self._name, {}).values(), now_ms)
            if waiting is None:
                await self._desk.news()
            elif why := self._too_late(waiting, now_ms):
                await self._give_up(waiting, *why)
            elif (pause_s := self._pause_s(waiting, now_ms)) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._desk.news()
            else:
                await self._deliver(waiting)

    def _too_late(self, waiting: Waiting, now_ms: int) -> tuple[str, str] | None:
        """Return the reason and the words for an alert that is not tried any more; None of others."""
        spec = self._outlet.spec
        if now_ms - waiting.time_ms > spec.max_age_minutes * MINUTE_MS:
            return "too_old", f"it has waited for longer than max_age_minutes, {spec.max_age_minutes}"
        if waiting.attempts >= spec.attempts:
            return "exhausted", "the last attempt was cut off, or `attempts` was lowered"
        return None

    def _pause_s(self, waiting: Waiting, now_ms: int) -> float:
        """Return how long to wait: for the alert's next attempt, as the receiver asks, and for the rate."""
        now = self._clock()
        full = len(self._begun) == self._begun.maxlen
        rate_s = self._begun[0] + MINUTE_S - now if full else 0.0
        return max((due_ms(waiting, now_ms) - now_ms) / 1000, self._closed_until - now, rate_s)

    async def _give_up(self, waiting: Waiting, reason: str, why: str) -> None:
        original = await self._desk.originals.find(waiting)
        self._desk.given_up(self._name, original, reason, why)
        await asyncio.sleep(0)  # there may be a thousand of them

    async def _deliver(self, waiting: Waiting) -> None:
        original = await self._desk.originals.find(waiting)
        try:
            alert = decode(Alert, original.value)
        except InvalidEvent as error:
            gone = "its record is not in the log of alerts any more"
            self._desk.given_up(
                self._name, original, "unreadable", gone if original.value is None else f"it cannot be read: {error}"
            )
            return
        begun = tried(waiting)
        self._desk.put(self._name, begun)
        try:
            await self._desk.is_durable()
        except asyncio.CancelledError:
            self._desk.put(self._name, waiting)  # the attempt never began
            raise
        await self._attempt(begun, alert, original)

    async def _attempt(self, waiting: Waiting, alert: Alert, original: Original) -> None:
        self._begun.append(self._clock())
        self._sending = True
        try:
            async with asyncio.timeout(ATTEMPT_S):
                await self._outlet.sender.send(alert)
        except Undeliverable as error:
            self._desk.given_up(self._name, original, "refused", str(error))
        except LaterError as error:
            if error.after_s is not None:
                self._closed_until = self._clock() + min(error.after_s, LONGEST_WAIT_S)
            self._failed(waiting, alert, original, str(error))
        except Exception as error:  # noqa: BLE001  # the others and the stream go on; its text may hold a secret
            self._failed(waiting, alert, original, f"the attempt ended with {type(error).__name__}")
        else:
            self._desk.delivered(self._name, waiting)
        finally:
            self._sending = False

    def _failed(self, waiting: Waiting, alert: Alert, original: Original, why: str) -> None:
        if waiting.attempts >= self._outlet.spec.attempts:
            said = f"{why}; that was attempt {waiting.attempts}, the last"
            self._desk.given_up(self._name, original, "exhausted", said)
            return
        self._desk.count(self._name, "failed")
        log.warning("stream %s: sink %s: alert %r waits: %s", alert.stream, self._name, alert.id, why)
        self._desk.put(self._name, postponed(waiting, self._clock_ms()))
