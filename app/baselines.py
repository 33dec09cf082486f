"""Making baselines: what a registered model's drift is measured against, from its training data or from what it scored.

A baseline is an artifact; the model's record, written again, names it. So a worker takes it up without a deployment.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.models import log_reader, read_registry, record
from app.partitions import partition_count
from ml.models.protocol import Matrix
from schemas.errors import PenstockError
from schemas.events import ModelVersion, Prediction
from schemas.streams import StreamSpec
from schemas.wire import decode
from stores.artifacts import ArtifactStore
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from stream.tail import newest
from topics import StreamTopics


def with_baseline(version: ModelVersion, store: ArtifactStore, baseline: bytes) -> ModelVersion:
    """Store a baseline and return `version` with it. The signature stays: it is of the model's bytes. Blocks."""
    return msgspec.structs.replace(version, baseline=store.put(baseline), baseline_bytes=len(baseline))


async def record_baseline(
    connection: KafkaConnection, store: ArtifactStore, spec: StreamSpec, model_id: str, baseline: bytes
) -> ModelVersion:
    """Store a baseline and write the model's newest record again with it; return that.

    The record is read last: a store may take long, and what the model has become meanwhile must stay.
    """
    sha256 = await asyncio.to_thread(store.put, baseline)
    version = (await read_registry(connection, spec)).find(model_id)
    version = msgspec.structs.replace(version, baseline=sha256, baseline_bytes=len(baseline))
    await record(connection, version)
    return version


async def newest_rows(connection: KafkaConnection, spec: StreamSpec, count: int) -> Matrix:
    """Return the features of the newest `count` committed predictions, by when they were scored; fewer if there are.

    Float32 of shape (n, features). Reads about `count` records of each partition. Raises PenstockError when one was
    made of other features than the stream declares.
    """
    topic = StreamTopics(spec.name).predictions
    partitions = [TopicPartition(topic, number) for number in range(await partition_count(connection, topic))]
    tails = [await _newest(connection, partition, count) for partition in partitions]
    last = sorted((row for tail in tails for row in tail), key=lambda row: row.scored_time_ms)[-count:]
    if wrong := {len(row.features) for row in last} - {len(spec.features)}:
        raise PenstockError(
            f"some of these predictions were made of {wrong.pop()} features, but stream {spec.name} declares "
            f"{len(spec.features)}: take fewer, newer ones, or a file"
        )
    rows = [row.features for row in last]
    matrix: NDArray[np.float32] = np.array(rows, dtype=np.float32).reshape(len(rows), len(spec.features))
    return matrix


class _Row(NamedTuple):
    scored_time_ms: int
    features: Sequence[float | None]


async def _newest(connection: KafkaConnection, partition: TopicPartition, count: int) -> list[_Row]:
    """Return what was scored last in a partition: `count` rows, or as many as there are."""
    records = await newest(lambda: log_reader(connection), partition, count)
    predictions = [decode(Prediction, record.value) for record in records]
    return [_Row(prediction.scored_time_ms, prediction.features) for prediction in predictions]
