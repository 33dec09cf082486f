"""Views: keeps in Redis what the logs of drift say, so that services can look it up (the keys: see `stores.views`).

Kafka is the truth and Redis only shows it. So what is shown is kept here, too, a task in the background does the
writing, and nothing of the stream ever waits for Redis. The task looks every two seconds whether Redis still has what
was written last; one that was flushed, restarted or restored gets everything again.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol, TypeVar

import msgspec

from schemas.drift import DriftReport
from schemas.errors import InvalidEvent, RetryableError
from schemas.events import Alert
from schemas.streams import StreamSpec
from schemas.wire import decode
from stores.views import DriftView
from stream import metrics as m
from stream.batches import Batch, Outbox, Record, TopicPartition
from stream.metrics import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

log = logging.getLogger("penstock.views")

STAGE: Final = "views"
KEPT_MS: Final = 30 * 24 * 3_600_000
MOST_ALERTS: Final = 1_000
CHECK_S: Final = 2.0
PAUSE_S: Final = 0.2  # between two writings: what comes in the meantime is written together

E = TypeVar("E", bound=msgspec.Struct)
ReadBack = Callable[[TopicPartition, int], AsyncGenerator[Sequence[Record], None]]
"""Yields the committed records before an offset, the newest piece first: see `stream.tail`."""


class DriftViews(Protocol):
    """Where views are written: see `stores.views.RedisViews`."""

    async def bring_up(self, stream: str, before: str, after: str, view: Callable[[bool], DriftView]) -> None:
        """Write what is new, or everything. Raises RetryableError."""


class Views(Stage):
    """The stage on `<s>.drift` and `<s>.alerts`. It has no outputs, and does nothing where there is no Redis.

    Shown are the newest report and the alerts of drift whose records are less than 30 days old, by the time that
    Kafka has for them: what they tell of may be long past. Of these at most the newest thousand.
    """

    def __init__(
        self,
        spec: StreamSpec,
        read_back: ReadBack,
        views: DriftViews | None,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        check_s: float = CHECK_S,
    ) -> None:
        topics = StreamTopics(spec.name)
        self._stream = spec.name
        self._drift = TopicPartition(topics.drift, 0)
        self._alerts_log = TopicPartition(topics.alerts, 0)
        self._read_back = read_back
        self._views = views
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._check_s = check_s
        self._writer: asyncio.Task[None] | None = None
        self._reset({})

    def _reset(self, committed: Mapping[TopicPartition, int]) -> None:
        self._next = {source: committed.get(source, 0) for source in (self._drift, self._alerts_log)}
        self._report: DriftReport | None = None
        self._alerts: dict[str, tuple[Alert, int]] = {}  # by id, with the time of the record; the oldest first
        self._new_report = False
        self._new_alerts: set[str] = set()
        self._written = ""  # the mark of the last success; not known yet, so that everything is written first
        self._news = asyncio.Event()
        self._news.set()

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Read back what is to be shown of the records before `committed`, and begin to write it."""
        await self.close()
        self._reset(committed)
        if self._views is None:
            return
        async with aclosing(self._read_back(self._drift, self._next[self._drift])) as pieces:
            async for records in pieces:
                if (report := _newest(DriftReport, records, self._drift)) is not None:
                    self._report = report
                    break
        await self._recall_alerts()
        self._writer = asyncio.create_task(self._keep(self._views), name=f"views of {self._stream}")

    async def _recall_alerts(self) -> None:
        oldest_ms = self._clock_ms() - KEPT_MS
        pieces: list[list[tuple[Alert, int]]] = []
        kept: set[str] = set()
        async with aclosing(self._read_back(self._alerts_log, self._next[self._alerts_log])) as back:
            async for records in back:
                pieces.append(self._drift_alerts(records))
                kept.update(alert.id for alert, _ in pieces[-1])
                if records[0].timestamp < oldest_ms or len(kept) >= MOST_ALERTS:
                    break
        for alerts in reversed(pieces):
            self._take_alerts(alerts)

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Take note of reports and alerts; what is neither is logged and passed over. Waits for nothing."""
        if self._views is None:
            return
        if batch.source == self._alerts_log:
            self._take_alerts(self._drift_alerts(batch.records))
        elif (report := _newest(DriftReport, batch.records, batch.source)) is not None:
            self._report, self._new_report = report, True
        self._next[batch.source] = batch.next_offset
        self._news.set()

    def _drift_alerts(self, records: Sequence[Record]) -> list[tuple[Alert, int]]:
        """Return the alerts of drift, each with the time of its record."""
        found = [(_decoded(Alert, record, self._alerts_log), record.timestamp) for record in records]
        return [(alert, time_ms) for alert, time_ms in found if alert is not None and alert.kind == "drift"]

    def _take_alerts(self, alerts: Sequence[tuple[Alert, int]]) -> None:
        for alert, time_ms in alerts:
            self._alerts.pop(alert.id, None)  # one that is told again is the newest
            self._alerts[alert.id] = (alert, time_ms)
            self._new_alerts.add(alert.id)
        while len(self._alerts) > MOST_ALERTS:
            self._new_alerts.discard(self._forget_oldest())

    def _forget_oldest(self) -> str:
        oldest = next(iter(self._alerts))
        del self._alerts[oldest]
        return oldest

    async def close(self) -> None:
        """End the writing. What Redis has stays there."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
            await asyncio.wait({writer})

    async def _keep(self, views: DriftViews) -> None:
        """Write news, look after what was written, and never give up."""
        failing = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._check_s):
                    await self._news.wait()
            try:
                await self._bring_up(views)
            except RetryableError as error:
                self._metrics.count(m.VIEW_FAILURES, 1, self._stream)
                if not failing:
                    log.warning("the views of %s wait: %s", self._stream, error)
                failing, self._written = True, ""
                await asyncio.sleep(self._check_s)
            else:
                if failing:
                    log.info("the views of %s are in Redis again", self._stream)
                failing = False
                await asyncio.sleep(PAUSE_S)

    async def _bring_up(self, views: DriftViews) -> None:
        """Write what is new since the last success. After a failure, `_written` is no mark: then it is everything."""
        self._news.clear()
        mark = ":".join(str(offset) for offset in self._next.values())
        news = (self._report if self._new_report else None, self._living(self._new_alerts))
        self._new_report, self._new_alerts = False, set()

        def view(whole: bool) -> DriftView:
            return DriftView(self._report, self._living(self._alerts)) if whole else DriftView(*news)

        await views.bring_up(self._stream, self._written, mark, view)
        self._written = mark

    def _living(self, ids: Sequence[str] | set[str] | Mapping[str, object]) -> list[tuple[Alert, int]]:
        """Return those of the alerts that have not expired, each with the milliseconds that it has left."""
        now_ms = self._clock_ms()
        found = [(alert, written_ms + KEPT_MS - now_ms) for alert, written_ms in map(self._alerts.__getitem__, ids)]
        return [(alert, left_ms) for alert, left_ms in found if left_ms > 0]


def _newest(kind: type[E], records: Sequence[Record], source: TopicPartition) -> E | None:
    return next((event for record in reversed(records) if (event := _decoded(kind, record, source)) is not None), None)


def _decoded(kind: type[E], record: Record, source: TopicPartition) -> E | None:
    try:
        return decode(kind, record.value)
    except InvalidEvent as error:
        log.warning("the record at offset %d of %s is passed over: %s", record.offset, source.topic, error)
        return None
