"""KafkaConnection against brokers on loopback that speak just enough Kafka to shake hands, with TLS and logins."""

import asyncio
import dataclasses
import io
import logging
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import (
    ApiVersionResponse_v0,
    SaslAuthenticateRequest_v0,
    SaslAuthenticateResponse_v0,
    SaslHandShakeRequest_v1,
    SaslHandShakeResponse_v1,
)
from aiokafka.protocol.metadata import MetadataResponse_v0

from app.embedded import EmbeddedBroker
from schemas.errors import PenstockError, RetryableError, SettingsError
from stream.connection import KafkaConnection

TLS = Path(__file__).parents[1] / "tls"
CA = str(TLS / "cert.pem")
KEY = str(TLS / "key.pem")
LOCKED_KEY = str(TLS / "locked-key.pem")


class HandshakeBroker:
    """Answers the first requests of any client; keeps the logins it was offered."""

    def __init__(self, *, passwords: dict[str, str] | None = None, advertised_port: int | None = None) -> None:
        self.passwords = passwords
        self.advertised_port = advertised_port
        self.port = 0
        self.logins: list[str] = []
        self.served: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served.add(asyncio.current_task())
        known = self.passwords is None
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                frame = io.BytesIO(await reader.readexactly(size))
                api_key, _, correlation_id, client_size = struct.unpack(">hhih", frame.read(10))
                frame.read(client_size)
                if not known and api_key not in (17, 18, 36):
                    return  # as Kafka does with a client that did not log in
                answer = self.answer(api_key, frame)
                known = known or (api_key == 36 and answer.error_code == 0)
                payload = struct.pack(">i", correlation_id) + answer.encode()
                writer.write(struct.pack(">i", len(payload)) + payload)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the client is done
        finally:
            writer.close()

    def answer(self, api_key: int, request: io.BytesIO) -> Any:
        if api_key == 18:
            versions = [(0, 0, 3), (1, 0, 4), (3, 0, 0), (18, 0, 0), (19, 0, 0)]
            login = [(17, 1, 1), (36, 0, 0)] if self.passwords is not None else []
            return ApiVersionResponse_v0(0, versions + login)
        if api_key == 3:
            return MetadataResponse_v0([(1, "127.0.0.1", self.advertised_port or self.port)], [])
        if api_key == 17:
            mechanism = SaslHandShakeRequest_v1.decode(request).mechanism
            return SaslHandShakeResponse_v1(0 if mechanism == "PLAIN" else 33, ["PLAIN"])
        assert self.passwords is not None
        _, user, password = SaslAuthenticateRequest_v0.decode(request).sasl_auth_bytes.decode().split("\0")
        self.logins.append(user)
        good = self.passwords.get(user) == password
        return SaslAuthenticateResponse_v0(0, None, b"") if good else SaslAuthenticateResponse_v0(58, "no", b"")


@asynccontextmanager
async def running(
    broker: HandshakeBroker, *, tls: bool = False, client_certificate: bool = False
) -> AsyncIterator[str]:
    """Serve `broker` on a free port of loopback; its address."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CA, KEY)
        if client_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(CA)
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0, ssl=context)
    broker.port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"127.0.0.1:{broker.port}"
    await asyncio.gather(*(task for task in broker.served if task))


async def refusal(connection: KafkaConnection, timeout_s: float = 5.0) -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        await connection.reachable(timeout_s)
    assert "\n" not in str(caught.value)
    return caught.value


def test_without_tls_and_login_the_options_have_neither() -> None:
    options = KafkaConnection(bootstrap="a:1,b:2", client_id="me", request_timeout_ms=7).client_options()
    assert options == {
        "bootstrap_servers": "a:1,b:2",
        "client_id": "me",
        "request_timeout_ms": 7,
        "security_protocol": "PLAINTEXT",
    }


def test_tls_checks_the_certificate_and_the_host_name() -> None:
    options = KafkaConnection(bootstrap="a:1", security_protocol="SSL", ssl_ca_file=CA).client_options()
    context = options["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert [dict(pair[0] for pair in ca["subject"]) for ca in context.get_ca_certs()] == [
        {"commonName": "penstock tests"}
    ]
    assert "sasl_mechanism" not in options


def test_a_login_is_passed_on_with_its_mechanism() -> None:
    options = KafkaConnection(
        bootstrap="a:1",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="u",
        sasl_password="p",
    ).client_options()
    assert options["security_protocol"] == "SASL_PLAINTEXT"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", "p")
    assert "ssl_context" not in options


def test_secrets_are_not_in_the_repr() -> None:
    shown = repr(KafkaConnection(bootstrap="a:1", sasl_password="canary1", ssl_key_password="canary2"))
    assert "canary" not in shown
    assert "a:1" in shown


@pytest.mark.parametrize("client_type", [AIOKafkaClient, AIOKafkaProducer, AIOKafkaConsumer, AIOKafkaAdminClient])
async def test_every_client_speaks_tls_and_logs_in(client_type: Callable[..., Any]) -> None:
    broker = HandshakeBroker(passwords={"flights": "secret"})
    async with running(broker, tls=True) as address:
        connection = KafkaConnection(
            bootstrap=address,
            security_protocol="SASL_SSL",
            ssl_ca_file=CA,
            sasl_username="flights",
            sasl_password="secret",
        )
        client = client_type(**connection.client_options())
        await (client.bootstrap if client_type is AIOKafkaClient else client.start)()
        await asyncio.sleep(0)  # a consumer that is stopped before its tasks ever ran raises CancelledError
        await (getattr(client, "stop", None) or client.close)()
    assert set(broker.logins) == {"flights"}


async def test_a_client_certificate_is_shown_to_a_broker_that_wants_one() -> None:
    async with running(HandshakeBroker(), tls=True, client_certificate=True) as address:
        anonymous = KafkaConnection(bootstrap=address, security_protocol="SSL", ssl_ca_file=CA)
        named = dataclasses.replace(anonymous, ssl_cert_file=CA, ssl_key_file=LOCKED_KEY, ssl_key_password="opensesame")
        assert (await named.reachable()).brokers == 1
        refused = await refusal(anonymous)
    assert "does it want a client certificate" in str(refused)


async def test_an_authority_that_is_not_trusted_is_named_as_the_cause() -> None:
    async with running(HandshakeBroker(), tls=True) as address:
        refused = await refusal(KafkaConnection(bootstrap=address, security_protocol="SSL"))
    assert isinstance(refused, SettingsError)
    assert "certificate that is not trusted" in str(refused)
    assert "kafka_ssl_ca_file" in str(refused)


async def test_a_broker_that_speaks_tls_to_a_client_that_does_not_is_explained() -> None:
    async with running(HandshakeBroker(), tls=True) as address:
        refused = await refusal(KafkaConnection(bootstrap=address))
    assert "does it want TLS or a login? (kafka_security_protocol is PLAINTEXT)" in str(refused)


async def test_a_broker_that_hangs_up_on_a_tls_client_is_explained(embedded: EmbeddedBroker) -> None:
    refused = await refusal(KafkaConnection(bootstrap=embedded.bootstrap, security_protocol="SSL"))
    assert "does it speak TLS at all? (kafka_security_protocol is SSL)" in str(refused)


async def test_a_wrong_password_is_a_settings_error_without_the_password() -> None:
    async with running(HandshakeBroker(passwords={"u": "right"})) as address:
        refused = await refusal(
            KafkaConnection(
                bootstrap=address, security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password="canary"
            )
        )
    assert isinstance(refused, SettingsError)
    assert "refused the user name or password" in str(refused)
    assert "canary" not in str(refused)


async def test_a_mechanism_that_the_broker_lacks_is_a_settings_error() -> None:
    async with running(HandshakeBroker(passwords={})) as address:
        refused = await refusal(
            KafkaConnection(
                bootstrap=address,
                security_protocol="SASL_PLAINTEXT",
                sasl_mechanism="SCRAM-SHA-256",
                sasl_username="u",
                sasl_password="p",
            )
        )
    assert isinstance(refused, SettingsError)
    assert "kafka_sasl_mechanism is SCRAM-SHA-256" in str(refused)


async def test_a_broker_that_wants_a_login_and_gets_none_is_explained() -> None:
    async with running(HandshakeBroker(passwords={})) as address:
        refused = await refusal(KafkaConnection(bootstrap=address))
    assert "does it want TLS or a login?" in str(refused)


async def test_nothing_listening_is_retryable_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with running(HandshakeBroker()) as gone:
        pass
    with caplog.at_level(logging.INFO):
        refused = await refusal(KafkaConnection(bootstrap=gone))
    assert isinstance(refused, RetryableError)
    assert str(refused) == f"Kafka at {gone} cannot be reached: nothing listens there (see kafka_bootstrap)"
    assert [record for record in caplog.records if record.name != "asyncio"] == []


async def test_a_broker_that_never_answers_costs_the_timeout() -> None:
    class Silent(HandshakeBroker):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.served.add(asyncio.current_task())
            await reader.read()
            writer.close()

    async with running(Silent()) as address:
        refused = await refusal(KafkaConnection(bootstrap=address), timeout_s=0.2)
    assert isinstance(refused, RetryableError)
    assert "did not answer within 0.2 s" in str(refused)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "a..b:9092"])
async def test_an_impossible_address_is_an_error_of_ours(address: str) -> None:
    assert "cannot be reached" in str(await refusal(KafkaConnection(bootstrap=address)))


async def test_one_broker_that_answers_is_enough() -> None:
    async with running(HandshakeBroker()) as gone:
        pass
    async with running(HandshakeBroker()) as address:
        cluster = await KafkaConnection(bootstrap=f"{gone},{address}").reachable()
    assert [f"{host}:{port}" for host, port in cluster.addresses] == [address]


async def test_a_broker_that_sends_clients_to_a_dead_address_is_found_out() -> None:
    async with running(HandshakeBroker()) as gone:
        pass
    async with running(HandshakeBroker(advertised_port=int(gone.split(":")[1]))) as address:
        refused = await refusal(KafkaConnection(bootstrap=address))
    assert "advertised.listeners" in str(refused)
    assert address in str(refused)
    assert gone in str(refused)


async def test_the_embedded_broker_is_told_from_kafka(embedded: EmbeddedBroker) -> None:
    assert (await KafkaConnection(bootstrap=embedded.bootstrap).reachable()).embedded
    async with running(HandshakeBroker()) as address:
        assert not (await KafkaConnection(bootstrap=address).reachable()).embedded


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"ssl_ca_file": "absent.pem"}, "kafka_ssl_ca_file 'absent.pem'"),
        ({"ssl_ca_file": KEY}, "kafka_ssl_ca_file"),
        ({"ssl_cert_file": "absent.pem"}, "kafka_ssl_cert_file 'absent.pem'"),
        ({"ssl_cert_file": CA}, "kafka_ssl_cert_file"),
        ({"ssl_cert_file": CA, "ssl_key_file": LOCKED_KEY}, "kafka_ssl_key_password"),
        ({"ssl_cert_file": CA, "ssl_key_file": LOCKED_KEY, "ssl_key_password": "canary"}, "kafka_ssl_key_password"),
    ],
)
def test_a_certificate_file_that_cannot_be_used_is_named(files: dict[str, str], named: str) -> None:
    connection = KafkaConnection(bootstrap="a:1", security_protocol="SSL", **files)  # type: ignore[arg-type]
    with pytest.raises(SettingsError) as caught:
        connection.client_options()
    assert named in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_broker_that_leaves_during_the_tls_handshake_can_be_tried_again() -> None:
    connection = KafkaConnection(bootstrap="k:9093", security_protocol="SSL")
    assert isinstance(connection.explain("k:9093", ssl.SSLEOFError(), 1.0), RetryableError)
