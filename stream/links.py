"""The way to the brokers for all writers of a role: who leads a partition, who coordinates, and connections to them."""

import asyncio
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    CoordinatorNotAvailableError,
    KafkaError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
)

from stream.batches import TopicPartition
from stream.connection import KafkaConnection

IDLE_MS: Final = 540_000  # a broker closes connections that were idle for ten minutes: we do so before
LOOK_S: Final = 0.1  # between two looks at metadata that lack something
LOOKS: Final = 50
LEADER_S: Final = 5.0


class Links:
    """Metadata of the cluster, kept up to date by one connection for everybody, and new connections for each writer."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._options = connection.client_options()
        self._client = AIOKafkaClient(**self._options)

    async def start(self) -> None:
        """Learn who the brokers are."""
        await self._client.bootstrap()

    async def stop(self) -> None:
        """Close the connection that asks for metadata; the writers close theirs."""
        await self._client.close()

    def outdated(self) -> None:
        """Ask the brokers anew, in the background: something was not where it should be."""
        self._client.force_metadata_update()

    async def leader(self, target: TopicPartition) -> int:
        """Return the broker that leads `target`. Raises a retryable error when there is none for five seconds."""
        try:
            async with asyncio.timeout(LEADER_S):
                while (node := self._client.cluster.leader_for_partition(target)) in (None, -1):
                    if target.topic in self._client.cluster.unauthorized_topics:
                        raise TopicAuthorizationFailedError(target.topic)
                    await self._client.add_topic(target.topic)
                    await self._client.force_metadata_update()
                    await asyncio.sleep(0 if self._leads(target) else LOOK_S)
        except TimeoutError as error:
            raise LeaderNotAvailableError(f"nobody leads {target.topic}/{target.partition}") from error
        return int(node)

    def _leads(self, target: TopicPartition) -> bool:
        return self._client.cluster.leader_for_partition(target) not in (None, -1)

    async def transaction_coordinator(self, transactional_id: str) -> int:
        """Return the broker that coordinates the transactions of this id."""
        return await self._coordinator(CoordinationType.TRANSACTION, transactional_id)

    async def group_coordinator(self, group: str) -> int:
        """Return the broker that keeps the offsets of a consumer group."""
        return await self._coordinator(CoordinationType.GROUP, group)

    def any_node(self) -> int:
        """Return some broker."""
        node: int | None = self._client.get_random_node()
        if node is None:
            raise NodeNotReadyError("no broker is known")
        return node

    async def connect(self, node: int, client_id: str) -> AIOKafkaConnection:
        """Open a connection of the caller's own.

        Raises a retryable error when the broker cannot be reached, and SettingsError when it refuses us.
        """
        broker = self._client.cluster.broker_metadata(node)
        if broker is None:
            self.outdated()
            raise NodeNotReadyError(f"broker {node} is not known")
        options: dict[str, Any] = {name: value for name, value in self._options.items() if name != "bootstrap_servers"}
        try:
            return await create_conn(
                broker.host, broker.port, **options | {"client_id": client_id}, max_idle_ms=IDLE_MS
            )
        except (OSError, KafkaError) as error:
            self.outdated()
            where = f"broker {broker.host}:{broker.port}"
            raise self._connection.explain(where, error, self._connection.request_timeout_ms / 1000) from error

    async def _coordinator(self, kind: int, key: str) -> int:
        for _ in range(LOOKS):
            try:
                node: int = await self._client.coordinator_lookup(kind, key)
            except (CoordinatorNotAvailableError, NodeNotReadyError):
                self.outdated()
                await asyncio.sleep(LOOK_S)  # a cluster's first transaction ever makes the topic that it needs
            else:
                return node
        raise CoordinatorNotAvailableError(f"nobody coordinates {key}")
