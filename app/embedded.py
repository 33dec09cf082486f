"""The embedded broker: a Kafka-protocol broker inside this process, for a first look and for fast tests.

It is librdkafka's mock broker. Every client reaches it over TCP on 127.0.0.1. It makes a topic of 4 partitions on
first use, keeps the newest 5 MB of each partition, cannot create topics by request, and forgets everything when closed.
"""

from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Producer

PARTITIONS: Final = 4  # of every topic
_START_TIMEOUT_S: Final = 10.0


class EmbeddedBroker:
    """One running embedded broker. `bootstrap` is its address; it serves until `close` or the end of its block."""

    def __init__(self) -> None:
        # The broker lives in the client that asked for it. Level 0 keeps librdkafka from writing to stderr.
        self._client: Any = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        (broker,) = self._client.list_topics(timeout=_START_TIMEOUT_S).brokers.values()
        self.bootstrap = f"{broker.host}:{broker.port}"

    def close(self) -> None:
        """End the broker; its connections close and its data is gone. Closing twice is no error."""
        self._client = None  # librdkafka frees the broker with the last reference to its client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
