"""The stage that keeps the views of a stream: it folds their logs, and shows in Redis what is new.

Kafka is the truth and Redis only shows it. So what is shown is kept here, too, a task in the background does the
writing, and nothing of the stream ever waits for Redis, or reads it. The task looks every two seconds whether Redis
still has what was written last; one that was flushed, restarted or restored gets everything again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from agents.views.fold import Fold
from agents.views.reading import ReadBack
from schemas.errors import RetryableError
from schemas.streams import StreamSpec
from stores.views import Changes, View
from stream import metrics as m
from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from stream.stage import Stage

log = logging.getLogger("penstock.views")

STAGE: Final = "views"
CHECK_S: Final = 2.0
PAUSE_S: Final = 0.2  # between two writings: what comes in the meantime is written together


class ViewStore(Protocol):
    """Where views are written: see `stores.views.RedisViews`."""

    async def show(self, stream: str, written: View | None, view: View, now_ms: int) -> Changes:
        """Write what is new, or everything. Raises RetryableError."""


class Views(Stage):
    """The stage on what `Fold` folds. It has no outputs, and does nothing where there is no Redis."""

    aligned = False

    def __init__(
        self,
        spec: StreamSpec,
        read_back: ReadBack,
        views: ViewStore | None,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        check_s: float = CHECK_S,
    ) -> None:
        self._stream = spec.name
        self._read_back = read_back
        self._views = views
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._check_s = check_s
        self._writer: asyncio.Task[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._fold = Fold(self._stream)
        self._written: View | None = None  # the last success; not known yet, so that everything is written first
        self._news = asyncio.Event()
        self._news.set()

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Read back what is to be shown of the records before `committed`, and begin to write it."""
        await self.close()
        self._reset()
        if self._views is None:
            return
        await self._fold.recall(self._read_back, committed, self._clock_ms())
        self._writer = asyncio.create_task(self._keep(self._views), name=f"views of {self._stream}")

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Take note of what is to be shown. Waits for nothing."""
        if self._views is None:
            return
        self._fold.take(batch.source, batch.records, batch.next_offset)
        self._news.set()

    async def close(self) -> None:
        """End the writing. What Redis has stays there."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
            await asyncio.wait({writer})

    async def _keep(self, views: ViewStore) -> None:
        """Write news, look after what was written, and do not give up before `close`.

        A client of Redis that is cancelled while it writes may raise what its broken connection does instead: so it is
        also asked whether this was cancelled.
        """
        failing = False
        me = asyncio.current_task()
        assert me is not None
        while not me.cancelling():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._check_s):
                    await self._news.wait()
            try:
                await self._bring_up(views)
            except RetryableError as error:
                if me.cancelling():
                    return
                self._metrics.count(m.VIEW_FAILURES, 1, self._stream)
                if not failing:
                    log.warning("the views of %s wait: %s", self._stream, error)
                failing, self._written = True, None
                await asyncio.sleep(self._check_s)
            else:
                if failing:
                    log.info("the views of %s are in Redis again", self._stream)
                failing = False
                await asyncio.sleep(PAUSE_S)

    async def _bring_up(self, views: ViewStore) -> None:
        """Show what is new since the last success; after a failure it is not known what that was, so everything."""
        self._news.clear()
        same = self._written is not None and self._written.mark == self._fold.mark
        view = self._written if self._written is not None and same else self._fold.view()
        await views.show(self._stream, self._written, view, self._clock_ms())
        self._written = view
