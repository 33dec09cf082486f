"""A bare loop on aiokafka: what asyncio alone can reach, with nothing of a framework on top.

It follows aiokafka's documentation: "Batch producer" (https://aiokafka.readthedocs.io/en/stable/examples/batch_produce.html),
"Manual commit" (https://aiokafka.readthedocs.io/en/stable/examples/manual_commit.html) and
"Difference between aiokafka and kafka-python", on `getmany` and prefetching.

One round is in the making while the one before it is being acknowledged and then committed; `getmany` returns with
whatever has arrived, so that a lone event does not wait for company. There is no rebalance listener: after a
rebalance in the middle of a round, the commit fails, the process ends, and the next owner repeats the round.
"""

import asyncio
import signal
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from work import Job, Work, read_job

_BATCH_BYTES: Final = 768 * 1024
_ROUND_RECORDS: Final = 8_192
_STOP_CHECK_MS: Final = 500  # so long an idle loop may take to see SIGTERM

_value, _offset, _timestamp_ms = attrgetter("value"), attrgetter("offset"), attrgetter("timestamp")


class Loop:
    """Consume, score, produce, commit, until stopped."""

    def __init__(self, job: Job, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        self._job = job
        self._consumer = consumer
        self._producer = producer
        self._work = Work(job)
        self._stopping = False

    def stop(self) -> None:
        """End `run` after the round that is in the making."""
        self._stopping = True

    async def run(self) -> None:
        """Raises what failed: nothing is committed from there on."""
        settling: asyncio.Task[None] | None = None
        while not self._stopping:
            fetched = await self._consumer.getmany(timeout_ms=_STOP_CHECK_MS, max_records=_ROUND_RECORDS)
            if not fetched:
                continue
            acks = await self._send(fetched)
            if settling is not None:
                await settling
            offsets = {partition: records[-1].offset + 1 for partition, records in fetched.items()}
            settling = asyncio.create_task(self._settle(acks, offsets))
        if settling is not None:
            await settling

    async def _send(self, fetched: Mapping[TopicPartition, Sequence[Any]]) -> list[asyncio.Future[Any]]:
        """Score all partitions in one call of the model, and send to each what came from it, in order."""
        records = list(chain.from_iterable(fetched.values()))
        numbers = chain.from_iterable([source.partition] * len(each) for source, each in fetched.items())
        outputs = iter(
            self._work.score(list(map(_value, records)), numbers, map(_offset, records), map(_timestamp_ms, records))
        )
        acks = []
        for source, each in fetched.items():
            # The sources come first: zip then takes no output more than there are records.
            for batch in self._batches((record.key, value) for record, value in zip(each, outputs, strict=False)):
                ack = await self._producer.send_batch(batch, self._job.predictions, partition=source.partition)
                acks.append(ack)
        counted = self._work.histogram()
        if counted is not None:
            acks.append(await self._producer.send(self._job.histograms, counted))
        return acks

    def _batches(self, outputs: Iterator[tuple[bytes, bytes]]) -> Iterator[Any]:
        batch = self._producer.create_batch()
        for key, value in outputs:
            if batch.append(key=key, value=value, timestamp=None) is None:
                yield batch
                batch = self._producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        yield batch

    async def _settle(self, acks: Sequence[asyncio.Future[Any]], offsets: Mapping[TopicPartition, int]) -> None:
        await asyncio.gather(*acks)
        await self._consumer.commit(offsets)


async def main(job: Job) -> None:
    """Run until SIGTERM."""
    consumer = AIOKafkaConsumer(
        job.source,
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        enable_auto_commit=False,  # this loop commits what was acknowledged
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,  # a fetch is at least a round, so that few are asked for
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=job.bootstrap,
        acks="all",
        enable_idempotence=True,
        max_batch_size=_BATCH_BYTES,  # under the broker's 1 MB for one batch
        max_request_size=8 * 1024 * 1024,  # the batches of all partitions go out in one request
    )
    async with consumer, producer:
        loop = Loop(job, consumer, producer)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, loop.stop)
        await loop.run()


if __name__ == "__main__":
    asyncio.run(main(read_job()))
