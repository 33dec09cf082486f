"""How every client reaches Kafka: addresses, TLS, SASL; and whether it can be reached at all."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.protocol.admin import CreateTopicsRequest
from aiokafka.protocol.metadata import MetadataRequest

from schemas.errors import PenstockError, RetryableError, SettingsError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a broker tells of its cluster: where all brokers are, and whether it is the embedded one.

    The embedded broker is known by having no topic admin, so that it is also known where another process runs it.
    """

    addresses: tuple[tuple[str, int], ...]
    embedded: bool

    @property
    def brokers(self) -> int:
        """How many brokers are up."""
        return len(self.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConnection:
    """One way to reach one cluster. Files are PEM; an empty string means "not set".

    `bootstrap` is "host:port,host:port". An empty `ssl_ca_file` trusts the system's authorities. Secrets are
    left out of `repr`.
    """

    bootstrap: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_ca_file: str = ""
    ssl_cert_file: str = ""
    ssl_key_file: str = ""
    ssl_key_password: str = field(default="", repr=False)
    client_id: str = "penstock"
    request_timeout_ms: int = 30_000

    @property
    def uses_tls(self) -> bool:
        """Whether the bytes are encrypted."""
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether the client logs in with a name and password."""
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments that aiokafka's consumer, producer, admin and plain client all take.

        Reads the certificate files; raises SettingsError when one of them cannot be used.
        """
        return {
            "bootstrap_servers": self.bootstrap,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            **self._security_options(),
        }

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context that checks the broker's certificate and host name; SettingsError names a bad file."""
        try:
            context = ssl.create_default_context(cafile=self.ssl_ca_file or None)
        except OSError as error:
            raise SettingsError(f"kafka_ssl_ca_file {self.ssl_ca_file!r} cannot be used: {_cause(error)}") from error
        if self.ssl_cert_file:
            try:
                # A function, because without a password OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.ssl_cert_file, self.ssl_key_file or None, lambda: self.ssl_key_password)
            except OSError as error:
                raise SettingsError(
                    f"kafka_ssl_cert_file {self.ssl_cert_file!r} with kafka_ssl_key_file {self.ssl_key_file!r} "
                    f"cannot be used (are they a pair, and is kafka_ssl_key_password right?): {_cause(error)}"
                ) from error
        return context

    async def reachable(self, timeout_s: float = 10.0) -> Cluster:
        """Return what the first broker that answers tells of its cluster.

        Each address is tried for at most `timeout_s`. When none answers, the error is one readable sentence, and no
        log: RetryableError if nobody listens there (yet), SettingsError if somebody refuses this TLS or this login.
        A broker that answers but sends its clients on to an address where nobody does is such an error, too.
        """
        ask = partial(self._ask, security=self._security_options(), timeout_s=timeout_s)
        given = [(host, port) for host, port, _ in collect_hosts(self.bootstrap, randomize=False)]
        cluster = await _first_answer(ask, given)
        if not set(given) & set(cluster.addresses):
            try:
                await _first_answer(ask, cluster.addresses)
            except PenstockError as error:
                sentence = (
                    f"Kafka at {self.bootstrap} sends clients on to where it is not (advertised.listeners): {error}"
                )
                raise type(error)(sentence) from error
        return cluster

    def _security_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.uses_tls:
            options["ssl_context"] = self.ssl_context()
        if self.uses_sasl:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password
        return options

    async def _ask(self, host: str, port: int, *, security: Mapping[str, Any], timeout_s: float) -> Cluster:
        timeout_ms = int(timeout_s * 1000)
        link = AIOKafkaConnection(host, port, client_id=self.client_id, request_timeout_ms=timeout_ms, **security)
        try:
            async with asyncio.timeout(timeout_s):
                await link.connect()
                answer = await link.send(MetadataRequest([]))
        except (OSError, errors.KafkaError, UnicodeError, OverflowError) as error:
            raise self.explain(f"Kafka at {host}:{port}", error, timeout_s) from error
        else:
            return Cluster(
                addresses=tuple((broker_host, broker_port) for _, broker_host, broker_port, *_ in answer.brokers),
                embedded=CreateTopicsRequest.API_KEY not in link._versions,  # it has no public name
            )
        finally:
            link.close()

    def explain(self, where: str, error: Exception, timeout_s: float) -> PenstockError:
        """Say what `error` means for a person, most specific first (most of these are kinds of OSError)."""
        protocol = f"kafka_security_protocol is {self.security_protocol}"
        match error:
            case ssl.SSLCertVerificationError():
                return SettingsError(
                    f"{where} shows a certificate that is not trusted ({error.verify_message}): set kafka_ssl_ca_file"
                )
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():  # as from a broker that is being stopped
                return RetryableError(f"{where} closed the connection in the TLS handshake ({protocol})")
            case ssl.SSLError():
                return SettingsError(f"{where} refused the TLS handshake ({protocol}): {_cause(error)}")
            case (
                errors.UnsupportedSaslMechanismError()
                | errors.IllegalSaslStateError()
                | errors.IncompatibleBrokerVersion()
            ):
                return SettingsError(
                    f"{where} does not take this login ({protocol}, kafka_sasl_mechanism is {self.sasl_mechanism})"
                )
            case errors.AuthenticationFailedError() | errors.SaslAuthenticationFailed():
                return SettingsError(f"{where} refused the user name or password (kafka_sasl_username, …_password)")
            case TimeoutError() | errors.RequestTimedOutError():
                return RetryableError(f"{where} did not answer within {timeout_s:g} s ({protocol})")
            case ConnectionRefusedError():
                return RetryableError(f"{where} cannot be reached: nothing listens there (see kafka_bootstrap)")
            case errors.KafkaConnectionError() if self.uses_tls:  # with TLS 1.3, a certificate is refused afterwards
                return RetryableError(
                    f"{where} closed the connection after the TLS handshake: does it want a client certificate "
                    f"(kafka_ssl_cert_file) or a login? ({protocol})"
                )
            case ConnectionError() if self.uses_tls:
                return RetryableError(f"{where} closed the connection: does it speak TLS at all? ({protocol})")
            case errors.KafkaConnectionError() | ConnectionError():
                return RetryableError(f"{where} closed the connection: does it want TLS or a login? ({protocol})")
            case _:
                return RetryableError(f"{where} cannot be reached: {_cause(error)} (see kafka_bootstrap)")


async def _first_answer(ask: Callable[[str, int], Awaitable[Cluster]], addresses: Iterable[tuple[str, int]]) -> Cluster:
    failures: list[PenstockError] = []
    for host, port in addresses:
        try:
            return await ask(host, port)
        except PenstockError as failure:
            failures.append(failure)
    sentence = "; ".join(str(failure) for failure in failures)
    refused = any(isinstance(failure, SettingsError) for failure in failures)
    raise SettingsError(sentence) if refused else RetryableError(sentence)


def _cause(error: Exception) -> str:
    """Return the plain words of an error from the operating system or OpenSSL."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
