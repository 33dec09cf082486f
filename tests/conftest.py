"""The brokers that tests run on: the embedded one and a real Apache Kafka."""

import os
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

import pytest

from app.embedded import EmbeddedBroker
from tests.kafka.jars import KafkaUnavailable
from tests.kafka.server import KafkaServer, RunningKafka
from tests.kafka.server import kafka as any_kafka
from tests.mlflow_server import MlflowServer


@dataclass(frozen=True)
class Broker:
    """A broker to test on. Only "kafka" has topic admin and transactions that hold."""

    kind: Literal["embedded", "kafka"]
    bootstrap: str


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer | RunningKafka]:
    """One real Apache Kafka for all tests of this run; they keep apart by `unique` names."""
    try:
        with any_kafka(os.environ) as server:
            yield server
    except KafkaUnavailable as reason:
        not_here(str(reason))


@pytest.fixture
def kafka_server(kafka: KafkaServer | RunningKafka) -> KafkaServer:
    """The same Kafka for tests that pause or restart it; it must run again when they end."""
    if isinstance(kafka, RunningKafka):
        not_here("the Kafka of ML_KAFKA_BOOTSTRAP is not ours to restart")
    return kafka


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    """A fresh embedded broker."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(params=["embedded", "kafka"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each of the two brokers in turn, so that one test holds for both."""
    return Broker(request.param, request.getfixturevalue(request.param).bootstrap)


@pytest.fixture
def session_ms(request: pytest.FixtureRequest, broker: Broker) -> str:
    """How long a worker that was killed keeps its partitions: as short as the broker allows.

    A Kafka that is not ours may refuse what ours allows; the embedded broker lets members wait for seconds to join.
    """
    is_ours = broker.kind == "kafka" and isinstance(request.getfixturevalue("kafka"), KafkaServer)
    return "2500" if is_ours else "6000"


@pytest.fixture(scope="session")
def run_name() -> str:
    """A word that no other run of the tests has, because a running Kafka keeps the topics of earlier runs."""
    return secrets.token_hex(3)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One real MLflow for all tests of this run; they keep apart by the names of their experiments."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def unique(request: pytest.FixtureRequest, run_name: str) -> str:
    """A short name for this test's stream, group or topic: a letter, then a-z, 0-9 and '-'."""
    return f"t{run_name}-{zlib.crc32(request.node.nodeid.encode()):08x}"


def not_here(reason: str) -> NoReturn:
    """Skip with the reason; in CI that would hide a hole, so it is a failure there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
