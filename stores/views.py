"""Views: what people and services like to look up, in Redis, and nothing else reads (the keys: see `view_keys`).

A few changes are one transaction together with the mark, so the mark tells whether the rest is there, and right. Many
are several transactions, of at most 500 keys or about a megabyte each; meanwhile the mark says that it is not right.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import WatchError

from schemas.errors import RetryableError, SettingsError
from schemas.wire import encode
from stores.view_keys import PROBE_KEY, assignment_key, assignments, mark_key, views_of

TIMEOUT_S: Final = 2.0
ASSIGNMENT_S: Final = 24 * 3_600
_KEYS_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 1_000_000
_SCANNED_AT_ONCE: Final = 1_000

Value = bytes | Mapping[str, str | int | float]


class ViewsUnavailable(RetryableError):
    """Redis did not answer, or refused."""


class ViewsChanged(ViewsUnavailable):
    """Redis was flushed, or somebody else wrote, in the middle of a writing: it must begin again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at a key, a string or a hash, and when it goes, in milliseconds since the epoch; None: it stays."""

    value: Value
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class View:
    """All that is to be shown of one stream, by key, after the records up to `mark`.

    `assigning` names the bucket table in force: assignments that were made by another one are wrong.
    """

    mark: str
    assigning: str
    entries: Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Changes:
    """How many keys were written and how many were removed."""

    written: int
    removed: int


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """Which variant of an experiment an entity is assigned to, under the deployment that says so."""

    stream: str
    experiment_id: str
    entity_id: str
    variant: str
    model_id: str
    bucket: int
    epoch: int
    deployment_revision: int


class RedisViews:
    """The views in the Redis at `url`. Every step ends within the time-out, and raises ViewsUnavailable if it fails.

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

    async def show(self, stream: str, written: View | None, view: View, now_ms: int) -> Changes:
        """Bring Redis from `written`, which was shown last, to `view`; what has expired at `now_ms` is left out.

        Where Redis has another mark than that of `written` (it was flushed, restarted or restored, or `written` is
        None), everything is written, and keys of the stream that are not of the view are removed. When nothing has
        changed on either side, nothing is written. Raises ViewsChanged when somebody else writes at the same time.
        5,000 models take about 0.15 s; looking for keys that do not belong, 1 s per million keys in that Redis.
        """
        async with self._working():
            mark: Any = await self._client.get(mark_key(stream))
        if written is None or mark != written.mark.encode():
            gone = await self._found(stream, views_of(stream)) - {key.encode() for key in view.entries}
            return await self._change(stream, mark, view, view.entries.items(), gone, now_ms)
        if written.mark == view.mark:
            return Changes(0, 0)
        known = written.entries
        news = [(key, entry) for key, entry in view.entries.items() if known.get(key) != entry]
        gone = {key.encode() for key in known.keys() - view.entries.keys()}
        if written.assigning != view.assigning:
            gone |= await self._found(stream, assignments(stream))
        return await self._change(stream, mark, view, news, gone, now_ms)

    async def assign(self, assignment: Assignment) -> str:
        """Show an assignment for a day, or until the shares change; return its key."""
        key = assignment_key(assignment.stream, assignment.experiment_id, assignment.entity_id)
        async with self._working():
            await self._client.set(key, encode(assignment), ex=ASSIGNMENT_S)
        return key

    async def _found(self, stream: str, pattern: re.Pattern[bytes]) -> set[bytes]:
        """Return the keys in Redis that have the stream's name in them and match the pattern."""
        found: set[bytes] = set()
        cursor: Any = 0
        while True:
            async with self._working():
                cursor, keys = await self._client.scan(cursor, match=f"*:{stream}*", count=_SCANNED_AT_ONCE)
                found.update(filter(pattern.match, keys))  # type: ignore[arg-type]
            if not cursor:
                return found

    async def _change(
        self,
        stream: str,
        mark: bytes | None,
        view: View,
        entries: Iterable[tuple[str, Entry]],
        gone: Iterable[bytes],
        now_ms: int,
    ) -> Changes:
        """Write `entries` and remove `gone` in steps, each of which finds the mark that the one before it has left."""
        living = [(key, entry) for key, entry in entries if entry.until_ms is None or entry.until_ms > now_ms]
        pieces = [*_pieces(living), *_pieces((key, None) for key in gone)] or [[]]
        for number, piece in enumerate(pieces, 1):
            after = view.mark.encode() if number == len(pieces) else f"{number}/{len(pieces)} of {view.mark}".encode()
            await self._step(stream, mark, after, piece, now_ms)
            mark = after
        return Changes(len(living), sum(map(len, pieces)) - len(living))

    async def _step(self, stream: str, before: bytes | None, after: bytes, piece: "Piece", now_ms: int) -> None:
        async with self._working(), self._client.pipeline(transaction=True) as pipe:
            await pipe.watch(mark_key(stream))  # a flush between the look and the writing fails the transaction
            if await pipe.get(mark_key(stream)) != before:
                raise self._changed(stream)
            pipe.multi()  # type: ignore[no-untyped-call]
            for key, entry in piece:
                _put(pipe, key, entry, now_ms)
            pipe.set(mark_key(stream), after)
            try:
                await pipe.execute()
            except WatchError:
                raise self._changed(stream) from None

    def _changed(self, stream: str) -> ViewsChanged:
        return ViewsChanged(f"the views of {stream} in Redis at {self.address} were changed while they were written")

    async def probe(self) -> str:
        """Write, read and remove a key; return the server's version."""
        async with self._working():
            await self._client.set(PROBE_KEY, "1", px=60_000)
            if await self._client.get(PROBE_KEY) != b"1":
                raise ViewsUnavailable(f"Redis at {self.address} does not keep what is written to it")
            await self._client.delete(PROBE_KEY)
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


Piece = Sequence[tuple[str | bytes, Entry | None]]
"""Keys with what is to stand there, or None for those that are to go."""


def _pieces(changes: Iterable[tuple[str | bytes, Entry | None]]) -> Iterator[Piece]:
    """Yield the changes in pieces that Redis takes well within the time-out."""
    piece: list[tuple[str | bytes, Entry | None]] = []
    size_bytes = 0
    for key, entry in changes:
        piece.append((key, entry))
        size_bytes += len(entry.value) if entry is not None else 0
        if len(piece) == _KEYS_AT_ONCE or size_bytes >= _BYTES_AT_ONCE:
            yield piece
            piece, size_bytes = [], 0
    if piece:
        yield piece


def _put(pipe: Any, key: str | bytes, entry: Entry | None, now_ms: int) -> None:
    left_ms = entry.until_ms - now_ms if entry is not None and entry.until_ms is not None else None
    if entry is not None and isinstance(entry.value, bytes):
        pipe.set(key, entry.value, px=left_ms)
        return
    pipe.delete(key)  # a hash would keep the fields that it has no more
    if entry is not None:
        pipe.hset(key, mapping=entry.value)
        if left_ms is not None:
            pipe.pexpire(key, left_ms)


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
