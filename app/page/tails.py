"""Follows the small topics of all streams: from near their ends, then on as they grow."""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer

from app.page.board import READ_BACK, StreamFold
from schemas.errors import RetryableError
from schemas.event import Event
from stream.batches import TopicPartition

_MOST_RECORDS: Final = 100  # so that a step stays short; a drift report takes 0.5 ms
_STALLED_S: Final = 30.0


class Source(NamedTuple):
    """Of which stream a topic's partition is, and what is in it."""

    stream: str
    kind: type[Event]


class Tails:
    """Feeds folds, by the name of their stream. `consumer` has no group; it is started and has no assignment yet."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        sources: Mapping[TopicPartition, Source],
        folds: Mapping[str, StreamFold],
    ) -> None:
        self._consumer = consumer
        self._sources = sources
        self._folds = folds
        self._ends: Mapping[TopicPartition, int] = {}

    async def open(self) -> None:
        """Find out where the newest records begin. To be called once, before `catch_up`."""
        places = list(self._sources)
        self._consumer.assign(places)
        begins = await self._consumer.beginning_offsets(places)
        self._ends = await self._consumer.end_offsets(places)
        for place, (stream, kind) in self._sources.items():
            start = max(begins[place], self._ends[place] - READ_BACK[kind])
            self._consumer.seek(place, start)
            if start > begins[place]:
                self._folds[stream].pass_over(kind)

    async def catch_up(self) -> None:
        """Read what is to be shown of what is there. Raises RetryableError when it does not come."""
        try:
            async with asyncio.timeout(_STALLED_S):
                while await self._is_behind():
                    await self._take(timeout_ms=200)
        except TimeoutError:
            raise RetryableError(f"the streams' logs have not come within {_STALLED_S:g} s") from None

    async def _is_behind(self) -> bool:
        for place, end in self._ends.items():
            if await self._consumer.position(place) < end:
                return True
        return False

    async def follow(self, until_s: float) -> None:
        """Take what comes until a moment of the loop's clock."""
        while (left_s := until_s - asyncio.get_running_loop().time()) > 0:
            await self._take(timeout_ms=max(int(1000 * left_s), 1))

    async def _take(self, timeout_ms: int) -> None:
        batches = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=_MOST_RECORDS)
        for place, records in batches.items():
            stream, kind = self._sources[place]
            self._folds[stream].take(kind, records)
            await asyncio.sleep(0)  # what is read at first may be much
