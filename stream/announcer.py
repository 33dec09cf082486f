"""Writes the few records that belong to no batch, such as alerts: acknowledged, at least once, with derived ids."""

from aiokafka import AIOKafkaProducer

from stream.connection import KafkaConnection


class Announcer:
    """Writes small, rare records, each with a producer of its own: nothing is held open, and nothing can go stale."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection

    async def say(self, topic: str, key: str, value: bytes) -> None:
        """Write one record to partition 0 and wait until the broker has it. Raises KafkaError."""
        async with AIOKafkaProducer(
            enable_idempotence=True, acks="all", **self._connection.client_options()
        ) as producer:
            await producer.send_and_wait(topic, value, key=key.encode(), partition=0)
