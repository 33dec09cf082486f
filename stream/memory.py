"""What a stage with a state remembers: its newest checkpoint, and the records between that and what was committed.

A stage is a fold over its input. Its state is whatever folding the committed records gives; a checkpoint only
shortens the way there. So a stage that opens restores its checkpoint, reads again from there up to the committed
offsets, and throws away what it makes of those records: that is out already.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Protocol

from aiokafka import AIOKafkaConsumer

from schemas.errors import InvalidEvent
from schemas.events import Checkpoint
from schemas.wire import decode, encode
from stream.batches import Batch, Outbox, TopicPartition
from stream.consumers import opened

log = logging.getLogger("penstock.memory")

READ_RECORDS = 4_096


class Memory(Protocol):
    """What a stage opens with, and what it saves to."""

    async def newest(self, committed: Mapping[TopicPartition, int]) -> Checkpoint | None:
        """Return the newest checkpoint of this stage and partition that is not ahead of `committed`, or None."""

    def read(self, source: TopicPartition, start: int, stop: int) -> AsyncGenerator[Batch, None]:
        """Yield the committed records of `source` from offset `start` up to, but not including, `stop`.

        To be closed by the reader, who may be cancelled in the middle.
        """

    def save(self, checkpoint: Checkpoint, outbox: Outbox) -> None:
        """Put the checkpoint into what the stage commits next."""


class KafkaMemory:
    """The memory of one stage on one partition, in the stream's compacted topic of checkpoints.

    `open_consumer` makes a consumer without a group that reads what is committed.
    """

    def __init__(self, topic: str, stage: str, partition: int, open_consumer: Callable[[], AIOKafkaConsumer]) -> None:
        self._source = TopicPartition(topic, 0)
        self._stage = stage
        self._partition = partition
        self._key = f"{stage}.{partition}".encode()
        self._open_consumer = open_consumer

    async def newest(self, committed: Mapping[TopicPartition, int]) -> Checkpoint | None:
        """Return the newest checkpoint of this stage and partition that is not ahead of `committed`, or None.

        One that is ahead was written without a transaction, just before a crash. Reads the whole topic: compaction
        keeps that to some tens of megabytes. Where another stage's transaction is open, that is waited for, because
        our newest checkpoint may lie behind its beginning.
        """
        found: list[bytes | None] = []
        async with aclosing(self._records(self._source, 0, None)) as batches:
            async for batch in batches:
                found += [record.value for record in batch.records if record.key == self._key]
        reached = {source.topic: offset for source, offset in committed.items()}
        for value in reversed(found):
            try:
                checkpoint = decode(Checkpoint, value)
            except InvalidEvent as error:
                log.warning("a checkpoint of %s/%d is ignored: %s", self._stage, self._partition, error)
                continue
            if all(offset <= reached.get(topic, -1) for topic, offset in checkpoint.offsets.items()):
                return checkpoint
        return None

    async def read(self, source: TopicPartition, start: int, stop: int) -> AsyncGenerator[Batch, None]:
        """Yield the records of `source` in [start, stop); those that retention removed are missing, and logged."""
        if start < stop:
            async with aclosing(self._records(source, start, stop)) as batches:
                async for batch in batches:
                    yield batch

    def save(self, checkpoint: Checkpoint, outbox: Outbox) -> None:
        """Put the checkpoint into what the stage commits next."""
        outbox.add(self._source.topic, self._source.partition, self._key, encode(checkpoint))

    async def _records(self, source: TopicPartition, start: int, stop: int | None) -> AsyncGenerator[Batch, None]:
        """Yield what is committed of `source` from `start` up to `stop`, or to what is written by now.

        Behind the last record there may be commit markers, so it is the position that tells the end.
        """
        async with opened(self._open_consumer()) as consumer:
            consumer.assign([source])
            oldest = (await consumer.beginning_offsets([source]))[source]
            if oldest > start and stop is not None:
                lost = min(oldest, stop) - start
                log.warning(
                    "%s/%d does without %d records of %s: retention removed them",
                    self._stage,
                    self._partition,
                    lost,
                    source.topic,
                )
            position = max(start, oldest)
            consumer.seek(source, position)
            while stop is None or position < stop:
                fetched = await consumer.getmany(source, timeout_ms=200, max_records=READ_RECORDS)
                records = fetched.get(source, [])
                position = await consumer.position(source)
                if stop is None:
                    stop = consumer.highwater(source)  # None until the broker has answered once
                if stop is not None and records and records[-1].offset >= stop:
                    records = [record for record in records if record.offset < stop]
                if records:
                    yield Batch(source, records)
                await asyncio.sleep(0)
