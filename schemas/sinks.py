"""Sinks: where a stream's alerts are delivered to people, as `penstock.toml` declares them.

Each sink is a table `[sinks.<name>]`; its `kind` says which of the specs below it is. What must stay secret is never in
the table: it comes from the environment or a file, and no text that is made of a sink shows it.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from schemas.event import SEVERITY_RANKS, Severity
from schemas.quantities import Count, SomeMinutes

Security = Literal["starttls", "tls", "none"]
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MAILBOX: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")
_Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_Rate = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Word = Annotated[str, msgspec.Meta(min_length=1)]


class SinkSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every sink has: which alerts it gets, how many at once, and when one is given up."""

    name: str
    min_severity: Annotated[Severity, "Alerts that are less severe are not for this sink."] = "medium"
    streams: Annotated[tuple[str, ...], "The streams whose alerts it gets; empty: all."] = ()
    per_minute: Annotated[_Rate, "It gets at most so many alerts of one stream in a minute; more of them wait."] = 30
    attempts: Annotated[Count, "After so many failed attempts an alert is undeliverable."] = 10
    max_age_minutes: Annotated[
        SomeMinutes, "An alert that was written longer ago, by Kafka's clock, is passed over, or given up if it waits."
    ] = 60

    def wants(self, stream: str, severity: Severity) -> bool:
        """Whether an alert of this stream and severity is for this sink."""
        return self.has_stream(stream) and SEVERITY_RANKS[severity] >= SEVERITY_RANKS[self.min_severity]

    def has_stream(self, stream: str) -> bool:
        """Whether it gets alerts of this stream at all."""
        return not self.streams or stream in self.streams

    def problems(self) -> list[str]:
        """Return one sentence for each thing that is wrong with the declaration."""
        if _NAME.fullmatch(self.name):
            return []
        return [f"sink name {self.name!r} must be 1 to 40 of a-z, 0-9 and '_', and start with a letter"]

    def secret_problems(self, secret: str) -> list[str]:
        """Return one sentence for each thing that is wrong with its secret, which is shown in none."""
        return []

    def posts_to(self, secret: str) -> str | None:
        """Return the host that it posts to over HTTP, in lower case; None for a sink that does not."""
        return None


class SlackSpec(SinkSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An incoming webhook of Slack, or of what speaks its language. The secret is its URL."""

    allow_private: Annotated[bool, "Whether its URL may be `http://`, and its address a private one."] = False

    def secret_problems(self, secret: str) -> list[str]:
        """Return one sentence for each thing that is wrong with its secret, which is shown in none."""
        if not secret:
            return [_missing(self.name, "the URL of Slack's incoming webhook")]
        return _url_problems(self.name, "secret", secret, self.allow_private)

    def posts_to(self, secret: str) -> str | None:
        """Return the host of the URL that is its secret."""
        return _host_of(secret)


class WebhookSpec(SinkSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service that takes alerts as JSON. The secret is the key that they are signed with."""

    url: Annotated[_Word, "Where alerts are posted to: `https://`, without a user name or password."]
    allow_private: Annotated[bool, "Whether it may be `http://`, and its address a private one."] = False

    def problems(self) -> list[str]:
        """Return one sentence for each thing that is wrong with the declaration."""
        return SinkSpec.problems(self) + _url_problems(self.name, "url", self.url, self.allow_private)

    def secret_problems(self, secret: str) -> list[str]:
        """Return one sentence for each thing that is wrong with its secret, which is shown in none."""
        return [] if secret else [_missing(self.name, "the key that signs what is posted")]

    def posts_to(self, secret: str) -> str | None:
        """Return the host of its URL."""
        return _host_of(self.url)


class EmailSpec(SinkSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """People who get alerts by e-mail, through an SMTP server. The secret is the password, if there is a `username`."""

    host: Annotated[_Word, "The SMTP server."]
    port: Annotated[_Port, "Its port: 587 is usual for `starttls`, 465 for `tls`."] = 587
    security: Annotated[Security, "TLS after a greeting, from the first byte on, or not at all."] = "starttls"
    username: Annotated[str, "The user name of the login; empty: there is none."] = ""
    sender: Annotated[_Word, "The address that alerts come from."]
    recipients: Annotated[tuple[str, ...], "The addresses that they go to."]

    def problems(self) -> list[str]:
        """Return one sentence for each thing that is wrong with the declaration."""
        where, found = f"sink {self.name!r}", SinkSpec.problems(self)
        found += [
            f"{where}: {address!r} is not an e-mail address, such as ops@example.com"
            for address in (self.sender, *self.recipients)
            if not _MAILBOX.fullmatch(address)
        ]
        if not _is_host(self.host):
            found.append(f"{where}: {self.host!r} is not the name of a host, such as smtp.example.com")
        if not self.recipients:
            found.append(f"{where} names no recipients")
        if self.username and self.security == "none":
            found.append(f"{where} would send its password in the clear: set security to starttls or tls")
        return found

    def secret_problems(self, secret: str) -> list[str]:
        """Return one sentence for each thing that is wrong with its secret, which is shown in none."""
        if self.username and not secret:
            return [_missing(self.name, "the password of its username")]
        if not (self.username + secret).isascii():
            return [f"sink {self.name!r} has a username or a password that is not plain ASCII, which SMTP cannot send"]
        return [f"sink {self.name!r} has a password, but no username"] if secret and not self.username else []


SINK_KINDS: Final[Mapping[str, type[SinkSpec]]] = {"slack": SlackSpec, "email": EmailSpec, "webhook": WebhookSpec}


@dataclass(frozen=True, slots=True)
class Sink:
    """A sink as it is declared, and its secret, which `repr` leaves out; `unread` says why it could not be read.

    Only who delivers needs the secret: a command that does not is not refused where there is none.
    """

    spec: SinkSpec
    secret: str = field(default="", repr=False)
    unread: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    def problems(self, hosts: frozenset[str]) -> list[str]:
        """Return one sentence for each thing that keeps it from delivering; without any `hosts` all are allowed."""
        if found := [*self.unread] or self.spec.secret_problems(self.secret):
            return found
        host = self.spec.posts_to(self.secret)
        if hosts and host is not None and host not in hosts:
            return [f"sink {self.name!r} posts to a host that is not among sink_hosts"]
        return []


def sinks_of(sinks: Collection[Sink], stream: str) -> tuple[Sink, ...]:
    """Return the sinks that get alerts of the stream."""
    return tuple(sink for sink in sinks if sink.spec.has_stream(stream))


def _missing(name: str, what: str) -> str:
    return f"sink {name!r} needs {what}: set ML_SINK_{name.upper()}_SECRET, or name its file in secret_file"


def _url_problems(name: str, field_name: str, url: str, allow_private: bool) -> list[str]:
    """Return what is wrong with a URL, which may be a secret and is not shown."""
    where = f"sink {name!r}: its {field_name}"
    try:
        parts = urlsplit(url)
        usable = _is_host(parts.hostname or "") and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or any(c.isspace() for c in url):
        return [f"{where} is not a URL, such as https://hooks.example.com/alerts"]
    if parts.scheme not in (("https", "http") if allow_private else ("https",)):
        return [f"{where} must begin with https://" + ("" if allow_private else ", or set allow_private")]
    if "@" in parts.netloc:
        return [f"{where} must not have a user name or a password in it"]
    return []


def _host_of(url: str) -> str:
    return (urlsplit(url).hostname or "").removesuffix(".")


def _is_host(text: str) -> bool:
    """Whether a name can be asked for: no empty part, and none that is too long."""
    try:
        return bool(text.encode("idna"))
    except UnicodeError:
        return False
