"""The peer: what a good engineer would write with aiokafka alone to score a topic, at least once.

It imports nothing of Penstock. Same decode, same model call, same output fields, same acknowledgements; no
transactions, dead letters, routing, metrics or rebalances. Batches go out while the next ones are made, and offsets
are committed only after their outputs were acknowledged.

    python -m benchmarks.bare_loop BOOTSTRAP INPUT_TOPIC OUTPUT_TOPIC MODEL_FILE GROUP
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import xgboost
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

_FEATURES: Final = [f"f{i}" for i in range(10)]
_BATCH_BYTES: Final = 768 * 1024
_ROUND_RECORDS: Final = 8_192
_THRESHOLD: Final = 0.5
_MODEL_ID: Final = "bench-20250101T000000-0123abcd"  # as long as Penstock's

_Features = msgspec.defstruct("_Features", [(name, float | None) for name in _FEATURES], frozen=True, gc=False)


class _Event(msgspec.Struct, frozen=True, gc=False):
    event_id: str
    entity_id: str
    event_time_ms: int
    features: _Features  # type: ignore[valid-type]  # made above


class _Prediction(msgspec.Struct, frozen=True, gc=False):
    event_id: str
    entity_id: str
    event_time_ms: int
    scored_time_ms: int
    model_id: str
    variant: str
    deployment_revision: int
    score: float
    scores: list[float] | None
    label: int
    features: tuple[float | None, ...]
    partition: int
    offset: int


class Scorer:
    """Turns consumed records into encoded predictions."""

    def __init__(self, model_file: str) -> None:
        self._booster = xgboost.Booster(model_file=model_file)
        self._booster.set_param({"nthread": 1})
        self._decode = msgspec.json.Decoder(_Event).decode
        self._encode = msgspec.json.Encoder().encode

    def score(self, records: Sequence[Any]) -> list[tuple[bytes, bytes]]:
        """Return key and value of one prediction per record, in order."""
        events = [self._decode(record.value) for record in records]
        rows = [msgspec.structs.astuple(event.features) for event in events]
        scores = self._booster.inplace_predict(np.array(rows, dtype=np.float32), validate_features=False).tolist()
        now_ms = time.time_ns() // 1_000_000
        return [
            (
                record.key,
                self._encode(
                    _Prediction(
                        event.event_id,
                        event.entity_id,
                        event.event_time_ms,
                        now_ms,
                        _MODEL_ID,
                        "champion",
                        1,
                        score,
                        None,
                        int(score >= _THRESHOLD),
                        row,
                        record.partition,
                        record.offset,
                    )
                ),
            )
            for record, event, row, score in zip(records, events, rows, scores, strict=True)
        ]


class Loop:
    """Consume, score, produce, until every partition's end (as of the start) is committed."""

    def __init__(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, scorer: Scorer, target: str) -> None:
        self._consumer = consumer
        self._producer = producer
        self._scorer = scorer
        self._target = target

    async def run(self, partitions: Sequence[TopicPartition]) -> None:
        """One round is in the making while the one before it is being acknowledged."""
        left = {p: end for p, end in (await self._consumer.end_offsets(partitions)).items() if end}
        settling: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(0))
        while left:
            fetched = await self._consumer.getmany(timeout_ms=500, max_records=_ROUND_RECORDS)
            sent = [await self._send(partition, records) for partition, records in fetched.items()]
            await settling
            offsets = {partition: records[-1].offset + 1 for partition, records in fetched.items()}
            settling = asyncio.create_task(self._settle([f for futures in sent for f in futures], offsets))
            left = {p: end for p, end in left.items() if offsets.get(p, 0) < end}
        await settling

    async def _send(self, partition: TopicPartition, records: Sequence[Any]) -> list[asyncio.Future[Any]]:
        batches = self._batches(self._scorer.score(records))
        return [await self._producer.send_batch(b, self._target, partition=partition.partition) for b in batches]

    def _batches(self, outputs: Sequence[tuple[bytes, bytes]]) -> Iterator[Any]:
        batch = self._producer.create_batch()
        for key, value in outputs:
            if batch.append(key=key, value=value, timestamp=None) is None:
                yield batch
                batch = self._producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        yield batch

    async def _settle(self, acks: Sequence[asyncio.Future[Any]], offsets: Mapping[TopicPartition, int]) -> None:
        await asyncio.gather(*acks)
        if offsets:
            await self._consumer.commit(offsets)


async def main(bootstrap: str, source: str, target: str, model_file: str, group: str) -> None:
    """Score all of `source` into `target`."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        max_batch_size=_BATCH_BYTES,
        max_request_size=8 * 1024 * 1024,
    )
    async with consumer, producer:
        partitions = [TopicPartition(source, number) for number in sorted(await producer.partitions_for(source))]
        consumer.assign(partitions)
        await Loop(consumer, producer, Scorer(model_file), target).run(partitions)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
