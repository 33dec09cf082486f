"""How many partitions a topic has, asked in a way that neither makes the topic nor waits for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient

from stream.connection import KafkaConnection


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
