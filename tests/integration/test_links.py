"""The way to the brokers: what is found, what is not, and how that is told."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import LeaderNotAvailableError, NodeNotReadyError, SaslAuthenticationFailed

from schemas.errors import RetryableError, SettingsError
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from stream.failures import is_retryable
from stream.links import LEADER_S, Links
from tests.kafka.server import KafkaServer, RunningKafka

Kafka = KafkaServer | RunningKafka


@asynccontextmanager
async def _links(kafka: Kafka) -> AsyncIterator[Links]:
    links = Links(KafkaConnection(bootstrap=kafka.bootstrap))
    await links.start()
    try:
        yield links
    finally:
        await links.stop()


async def test_it_finds_who_leads_a_topic_that_is_younger_than_it_and_who_coordinates(
    kafka: Kafka, unique: str
) -> None:
    async with _links(kafka) as links:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(unique, 1, 1)])
        await admin.close()
        nodes = {
            await links.leader(TopicPartition(unique, 0)),
            await links.transaction_coordinator(unique),
            await links.group_coordinator(unique),
        }
        assert nodes == {links.any_node()}
        connection = await links.connect(nodes.pop(), unique)
        assert connection.connected()
        connection.close()


async def test_a_topic_that_does_not_exist_has_no_leader_and_that_takes_seconds_to_say(
    kafka: Kafka, unique: str
) -> None:
    async with _links(kafka) as links:
        began = time.monotonic()
        with pytest.raises(LeaderNotAvailableError, match=f"nobody leads {unique}/0") as raised:
            await links.leader(TopicPartition(unique, 0))
        assert time.monotonic() - began == pytest.approx(LEADER_S, abs=1.0)
        assert is_retryable(raised.value)


async def test_a_broker_that_is_not_known_or_not_there_is_told_of_and_can_be_tried_again(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _links(kafka) as links:
        with pytest.raises(NodeNotReadyError, match="broker 99 is not known") as unknown:
            await links.connect(99, "somebody")
        nowhere = SimpleNamespace(host="127.0.0.1", port=1)
        monkeypatch.setattr(links._client.cluster, "broker_metadata", lambda _: nowhere)
        with pytest.raises(RetryableError, match=r"broker 127\.0\.0\.1:1 cannot be reached") as away:
            await links.connect(1, "somebody")
        assert is_retryable(unknown.value)
        assert is_retryable(away.value)


async def test_a_broker_that_refuses_the_login_is_not_tried_again(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise SaslAuthenticationFailed

    async with _links(kafka) as links:
        monkeypatch.setattr("stream.links.create_conn", refused)
        with pytest.raises(SettingsError, match="refused the user name or password") as raised:
            await links.connect(links.any_node(), "somebody")
        assert not is_retryable(raised.value)
