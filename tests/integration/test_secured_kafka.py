"""TLS and logins on a real Apache Kafka: what its own server and our clients make of each other."""

import base64
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from schemas.errors import RetryableError, SettingsError
from schemas.streams import StreamSpec
from stream.admin import apply, check
from stream.connection import KafkaConnection, SaslMechanism
from tests.conftest import not_here
from tests.kafka.jars import KafkaUnavailable
from tests.kafka.server import KafkaServer
from topics import StreamTopics, topics_of

TLS = Path(__file__).parents[1] / "tls"
USER, PASSWORD = "flights", "open sesame"

_LISTENER = """
listeners={plain},{controller},SECURE://127.0.0.1:{port}
advertised.listeners={plain},SECURE://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    user_{user}="{password}";
listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={keystore}
"""


@pytest.fixture(scope="module")
def secured() -> Iterator[KafkaConnection]:
    """A Kafka of its own with a listener that takes TLS with a login, and nothing else."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        server = KafkaServer()
    except KafkaUnavailable as reason:
        not_here(str(reason))
    keystore = server.folder / "keystore.pem"
    keystore.write_text((TLS / "key.pem").read_text() + (TLS / "cert.pem").read_text())
    properties = server.folder / "server.properties"
    given = dict(line.split("=", 1) for line in properties.read_text().splitlines())
    plain, controller = given["listeners"].split(",")
    listener = _LISTENER.format(
        plain=plain, controller=controller, port=port, user=USER, password=PASSWORD, keystore=keystore
    )
    properties.write_text(properties.read_text() + listener)
    with server:
        _add_scram_user(server.bootstrap)
        yield KafkaConnection(
            bootstrap=f"127.0.0.1:{port}",
            security_protocol="SASL_SSL",
            sasl_username=USER,
            sasl_password=PASSWORD,
            ssl_ca_file=str(TLS / "cert.pem"),
        )


def _add_scram_user(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        user = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        for done in admin.alter_user_scram_credentials([user]).values():
            done.result(timeout=10)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_topics_records_and_groups_work_over_tls_with_a_login(
    secured: KafkaConnection, mechanism: SaslMechanism, unique: str
) -> None:
    connection = dataclasses.replace(secured, sasl_mechanism=mechanism)
    stream = StreamSpec(name=unique, features=("a",))
    assert {outcome.action for outcome in await apply(connection, topics_of(stream))} == {"created"}
    assert await check(connection, topics_of(stream)) == []
    topic, options = StreamTopics(unique).features, connection.client_options()
    async with AIOKafkaProducer(transactional_id=unique, **options) as producer, producer.transaction():
        await producer.send_and_wait(topic, b"{}")
    async with AIOKafkaConsumer(topic, group_id=unique, auto_offset_reset="earliest", **options) as consumer:
        assert (await consumer.getone()).value == b"{}"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_refused_by_kafka_and_said_in_a_sentence(
    secured: KafkaConnection, mechanism: SaslMechanism
) -> None:
    connection = dataclasses.replace(secured, sasl_mechanism=mechanism, sasl_password="canary")
    with pytest.raises(SettingsError, match="refused the user name or password") as caught:
        await connection.reachable()
    assert "canary" not in str(caught.value)


async def test_a_client_that_forgets_tls_is_told_so(secured: KafkaConnection) -> None:
    with pytest.raises(RetryableError, match="does it want TLS or a login"):
        await KafkaConnection(bootstrap=secured.bootstrap).reachable()


def test_no_password_is_ever_shown_by_a_worker_or_the_doctor_not_even_at_debug(
    secured: KafkaConnection, unique: str, tmp_path: Path
) -> None:
    (tmp_path / "penstock.toml").write_text(f'[streams.{unique}]\nfeatures = ["a"]\n')
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ML_")} | {
        "ML_KAFKA_BOOTSTRAP": secured.bootstrap,
        "ML_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "ML_KAFKA_SASL_USERNAME": USER,
        "ML_KAFKA_SASL_PASSWORD": PASSWORD,
        "ML_KAFKA_SSL_CA_FILE": str(TLS / "cert.pem"),
        "ML_LOG_LEVEL": "DEBUG",
        "ML_METRICS_PORT": "0",
        "ML_PAGE_PORT": "0",
    }
    command = [sys.executable, "-m", "app.cli"]

    def output_of(*arguments: str, signal_after: str = "", **changes: str) -> str:
        """Run a command to its end, which a SIGTERM brings about once it has printed `signal_after`."""
        with subprocess.Popen(
            [*command, *arguments], env=environ | changes, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if signal_after and signal_after in line:
                    process.terminate()
        return "".join(lines)

    assert "created" in output_of("topics", "apply")
    outputs = {
        "worker": output_of("worker", signal_after="the worker runs"),
        "doctor": output_of("doctor"),
        "refused": output_of("worker", ML_KAFKA_SASL_USERNAME="another"),
    }
    assert "DEBUG" in outputs["worker"]
    assert "transactions: work" in outputs["doctor"]
    assert "refused the user name or password" in outputs["refused"]
    login = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
    assert not [name for name, output in outputs.items() for form in (PASSWORD, login) if form in output]
