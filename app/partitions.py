"""How many partitions a topic has, asked in a way that neither makes the topic nor waits for it, and how far a
consumer group is in it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from stream.connection import KafkaConnection
from stream.consumers import opened


@asynccontextmanager
async def admin_client(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an admin client. Raises KafkaError when the broker does not answer."""
    client = AIOKafkaAdminClient(**connection.client_options())
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def partition_count(connection: KafkaConnection, topic: str) -> int:
    """Return how many partitions `topic` has; 0 when it does not exist. A consumer would wait 30 s for such a one."""
    async with admin_client(connection) as client:
        counts = {found["topic"]: len(found["partitions"]) for found in await client.describe_topics()}
    return counts.get(topic, 0)


async def lag_of(connection: KafkaConnection, group: str, topic: str) -> tuple[int, int]:
    """Return how many records at most are there for the group to read (some may be transactions' ends), and how
    many it will never read because they are gone.
    """
    partitions = await partition_count(connection, topic)
    new = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **connection.client_options())
    async with opened(new) as consumer:
        sources = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(sources)
        starts = await consumer.beginning_offsets(sources)
        ends = await consumer.end_offsets(sources)
        committed = await asyncio.gather(*[consumer.committed(source) for source in sources])
    waiting = expired = 0
    for source, offset in zip(sources, committed, strict=True):
        position = starts[source] if offset is None else offset
        waiting += ends[source] - max(position, starts[source])
        expired += max(0, starts[source] - position)
    return waiting, expired
