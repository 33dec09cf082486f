"""One HTTP POST to a stranger's service: to checked addresses only, without redirects, in ten seconds at most."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from stores.sinks.addresses import Checked, addresses_of
from stores.sinks.sending import LaterError, Undeliverable

TOTAL_S: Final = 10.0
_PORTS: Final = {"https": 443, "http": 80}
_TRY_AGAIN: Final = frozenset({408, 425, 429})


class Poster:
    """Posts for one sink. Names are resolved in threads: a resolver that hangs holds up nobody."""

    def __init__(self, name: str, *, allow_private: bool, total_s: float = TOTAL_S) -> None:
        self._allow_private = allow_private
        self._total_s = total_s
        self._thread = f"sink {name}"

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post JSON and return once the answer is 2xx; its body is not read.

        Raises Undeliverable for a redirect, a refusal (4xx but for 408, 425 and 429) and an address that is not
        allowed; LaterError for everything else, with what `Retry-After` says.
        """
        host = urlsplit(url).hostname or ""
        try:
            async with asyncio.timeout(self._total_s):
                status, after = await self._status_of(url, host, body, headers)
        except TimeoutError as error:
            raise LaterError(f"{host} did not answer within {self._total_s:g} s") from error
        except aiohttp.InvalidURL as error:
            raise Undeliverable(f"the URL at {host} cannot be used") from error
        except (aiohttp.ClientError, OSError) as error:  # their messages may have the URL in them
            raise LaterError(f"{host} could not be reached, or broke off ({type(error).__name__})") from error
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise Undeliverable(f"{host} answered {status}, a redirect, and redirects are not followed")
        if 400 <= status < 500 and status not in _TRY_AGAIN:
            raise Undeliverable(f"{host} refused it with {status}")
        raise LaterError(f"{host} answered {status}", retry_after_s(after, datetime.now(UTC)))

    async def _status_of(self, url: str, host: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Return the status of the answer, and its `Retry-After`."""
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
        addresses = await addresses_of(self._thread, host, port, allow_private=self._allow_private)
        connector = aiohttp.TCPConnector(resolver=Checked(addresses), use_dns_cache=False, force_close=True)
        content = {"Content-Type": "application/json", "User-Agent": "penstock"}
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(url, data=body, headers=content | dict(headers), allow_redirects=False) as answer,
        ):
            return answer.status, answer.headers.get("Retry-After", "")


def retry_after_s(text: str, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` asks to wait, or None; it may give a date (RFC 9110, 10.2.3)."""
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, OverflowError):
        return None
