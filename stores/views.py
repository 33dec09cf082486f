"""Views: what people and services like to look up, in Redis. The logs are the truth; a view may be gone at any time.

| key | type | value |
|---|---|---|
| `drift:stats:<stream>` | string | the newest drift report, JSON as in `<s>.drift` |
| `drift:stats:<stream>:feature:<name>` | hash | one feature's figures in it (see FIGURES), except for nulls |
| `drift:stats:<stream>:prediction:<name>` | hash | the same of the `score`, and of the `class` if there are some |
| `drift:alert:<stream>:<id>` | string | an alert of drift, JSON as in `<s>.alerts`; it goes after 30 days |
| `drift:views:<stream>` | string | the mark: how far in the logs these views are |

All keys of a stream and its mark change in one transaction, so the mark tells whether the rest is there, and right.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schemas.drift import ColumnDrift, DriftReport
from schemas.errors import InvalidEvent, RetryableError, SettingsError
from schemas.events import Alert
from schemas.wire import decode, encode

TIMEOUT_S: Final = 2.0
FIGURES: Final = (
    "severity",
    "psi",
    "ks",
    "p_value",
    "wasserstein_scaled",
    "n",
    "missing_share",
    "unseen_share",
    "mean",
)


class ViewsUnavailable(RetryableError):
    """Redis did not answer, or refused."""


@dataclass(frozen=True, slots=True)
class DriftView:
    """What is to be written of one stream: the newest report, and alerts with the milliseconds they have left."""

    report: DriftReport | None
    alerts: Sequence[tuple[Alert, int]]


class RedisViews:
    """The views in the Redis at `url`. Every call ends within the time-out, and raises ViewsUnavailable if it fails.

    Nothing is connected before the first call, and nothing that is said here has the password in it.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        """Raise SettingsError when `url` is none of Redis."""
        self.address = _address(url)
        self._timeout_s = timeout_s
        try:
            self._client: Redis = Redis.from_url(
                url,
                protocol=2,  # which every version speaks
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),  # whoever calls tries again, with news
            )
        except ValueError:  # not shown: it may quote a piece of the password
            raise _malformed() from None
        options = self._client.connection_pool.connection_kwargs
        self._secrets = [str(options[name]) for name in ("password", "ssl_password") if options.get(name)]

    async def bring_up(self, stream: str, before: str, after: str, view: Callable[[bool], DriftView]) -> None:
        """Write `view(whole)` and the mark `after`, in one transaction.

        `before` is the mark that was written last. `whole` tells that Redis has another one: it was flushed, restarted
        or restored, and everything is to be written. When nothing has changed on either side, nothing is written.
        """
        key = f"drift:views:{stream}"
        async with self._working(), self._client.pipeline(transaction=True) as pipe:
            await pipe.watch(key)  # a flush between the look and the writing fails the transaction
            whole = await pipe.get(key) != before.encode()
            if not whole and before == after:
                return
            found = view(whole)
            before_it = await pipe.get(f"drift:stats:{stream}") if found.report is not None else None
            pipe.multi()  # type: ignore[no-untyped-call]
            _remove_columns(pipe, stream, before_it)
            _write(pipe, stream, found)
            pipe.set(key, after)
            await pipe.execute()

    async def probe(self) -> str:
        """Write, read and remove a key; return the server's version."""
        key = "drift:probe"
        async with self._working():
            await self._client.set(key, "1", px=60_000)
            if await self._client.get(key) != b"1":
                raise ViewsUnavailable(f"Redis at {self.address} does not keep what is written to it")
            await self._client.delete(key)
            found: dict[str, Any] = await self._client.info("server")
        return str(found["redis_version"])

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except ViewsUnavailable:
            raise
        except TimeoutError:
            raise ViewsUnavailable(
                f"Redis at {self.address} did not answer within {self._timeout_s:g} s; check that it runs"
            ) from None
        except Exception as error:  # noqa: BLE001  # besides RedisError and OSError, a broken reply raises anything
            raise ViewsUnavailable(f"Redis at {self.address} failed: {self._scrubbed(error)}") from None

    def _scrubbed(self, error: Exception) -> str:
        """Return what went wrong in one line; a server that does not know AUTH repeats what came with it."""
        words = " ".join(f"{type(error).__name__}: {error}".split())
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words


def _remove_columns(pipe: Any, stream: str, report: Any) -> None:
    """Remove the hashes of the report that was shown until now: the next one may be of other features."""
    try:
        shown = decode(DriftReport, report)
    except InvalidEvent:  # there was none, or somebody else wrote there
        return
    pipe.delete(*_column_keys(stream, shown))


def _column_keys(stream: str, report: DriftReport) -> list[str]:
    """Return the key of each of the report's columns, features first."""
    kinds = (("feature", report.features), ("prediction", report.predictions))
    return [f"drift:stats:{stream}:{kind}:{column.name}" for kind, columns in kinds for column in columns]


def _write(pipe: Any, stream: str, view: DriftView) -> None:
    if view.report is not None:
        pipe.set(f"drift:stats:{stream}", encode(view.report))
        columns = [*view.report.features, *view.report.predictions]
        for key, column in zip(_column_keys(stream, view.report), columns, strict=True):
            pipe.delete(key)
            pipe.hset(key, mapping=_figures(view.report, column))
    for alert, left_ms in view.alerts:
        pipe.set(f"drift:alert:{stream}:{alert.id}", encode(alert), px=left_ms)


def _figures(report: DriftReport, column: ColumnDrift) -> dict[str, str | int | float]:
    found = {name: getattr(column, name) for name in FIGURES}
    known = {name: value for name, value in found.items() if value is not None}
    return {"number": report.number, "to_time_ms": report.to_time_ms, "judged": int(column.judged)} | known


def _address(url: str) -> str:
    """Return where `url` points, without a login."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _malformed() from None
    login_ends_late = "@" in parts.path + parts.query + parts.fragment  # a piece of it would be taken for the host
    if parts.scheme not in ("redis", "rediss", "unix") or login_ends_late:
        raise _malformed()
    if parts.scheme == "unix":
        return parts.path
    return f"{parts.hostname or 'localhost'}:{port or 6379}"


def _malformed() -> SettingsError:
    return SettingsError(
        "redis_url is no address of Redis: write redis://host:port/0 (rediss:// for TLS, unix:///path for a socket), "
        "with user:password@ before the host if it wants a login; special characters in a password as %XX"
    )
