"""Writes the few records that belong to no batch, such as alerts: acknowledged, at least once, with derived ids."""

from aiokafka import AIOKafkaProducer

from stream.connection import KafkaConnection


class Announcer:
    """An idempotent producer for small, rare records."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(enable_idempotence=True, acks="all", **self._connection.client_options())
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is waiting and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def say(self, topic: str, key: str, value: bytes) -> None:
        """Write one record to partition 0 and wait until the broker has it. Raises KafkaError."""
        if self._producer is None:
            raise RuntimeError("the announcer has not been started")
        await self._producer.send_and_wait(topic, value, key=key.encode(), partition=0)
