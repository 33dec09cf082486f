"""The page's server: static files, the document of a stream, and that document again once a second.

There is no login, so it listens on loopback unless told otherwise, and answers only requests for the host it is at:
a foreign page whose name leads here (DNS rebinding) gets nothing, nor does one that asks for data from elsewhere.
Nothing here changes anything.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final

from aiohttp import web

from app.listener import listen
from app.page.audience import Audience

STATIC: Final = Path(__file__).with_name("static")
HEARTBEAT_S: Final = 15.0
FIRST_DOCUMENT_S: Final = 30.0
MOST_VIEWERS: Final = 50
SLOWEST_S: Final = 60.0  # a viewer that takes nothing for so long has gone
_SHUTDOWN_S: Final = 2.0
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FOREIGN: Final = ("cross-site", "same-site")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageServer:
    """Serves `/`, the files beside it, `/board.json` and `/live` (server-sent events) for one audience.

    `?stream=NAME` of the latter two must be one of `streams`.
    """

    def __init__(self, audience: Audience, streams: Collection[str]) -> None:
        self._audience = audience
        self._streams = streams
        self._runner: web.AppRunner | None = None
        self._host = ""
        self._live = 0

    async def start(self, host: str, port: int) -> str:
        """Listen, and return the address. Raises SettingsError when the port is taken."""
        self._host = host
        application = web.Application(middlewares=[self._guard])
        application.on_response_prepare.append(_harden)
        application.router.add_get("/", self._on_index)
        application.router.add_get("/board.json", self._on_board, allow_head=False)
        application.router.add_get("/live", self._on_live, allow_head=False)
        application.router.add_static("/", STATIC)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        return await listen(self._runner, host, port, "page_port")

    async def stop(self) -> None:
        """Let the viewers go and stop listening."""
        await self._audience.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_own(request.host, self._host):
            raise web.HTTPForbidden(text="this page answers at its own address only (page_host)\n")
        return await handler(request)

    async def _on_index(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(STATIC / "index.html")

    async def _on_board(self, request: web.Request) -> web.StreamResponse:
        async with self._audience.watching(self._asked(request)) as viewer:
            try:
                async with asyncio.timeout(FIRST_DOCUMENT_S):
                    document = await viewer.next()
            except TimeoutError:
                document = None
        if document is None:
            raise web.HTTPServiceUnavailable(text="the topics have not been read yet\n")
        return web.Response(body=document, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _on_live(self, request: web.Request) -> web.StreamResponse:
        stream = self._asked(request)
        if self._live >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} viewers are here already\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        self._live += 1
        try:
            async with self._audience.watching(stream) as viewer:
                while (message := await _message(viewer.next)) is not None:
                    async with asyncio.timeout(SLOWEST_S):
                        await response.write(message)
        except ConnectionResetError:
            pass  # the viewer has gone
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # what waits to be written would keep the connection open
        finally:
            self._live -= 1
        return response

    def _asked(self, request: web.Request) -> str | None:
        """Return the stream that is asked for. Raises what is answered when it is none, or another site asks."""
        if request.headers.get("Sec-Fetch-Site") in _FOREIGN:
            raise web.HTTPForbidden(text="this page answers no other site\n")
        name = request.query.get("stream")
        if name is not None and name not in self._streams:
            raise web.HTTPNotFound(text=f"no stream has this name: there is {', '.join(self._streams)}\n")
        return name


async def _message(next_document: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
    """Return the next event for a viewer: a document, or a comment when there is none for long; None at the end."""
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            document = await next_document()
    except TimeoutError:
        return b": nothing new\n\n"
    return None if document is None else b"data: " + document + b"\n\n"


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-cache")


def _is_own(asked: str, host: str) -> bool:
    """Whether a Host header names where this page listens: `host`, or loopback; any address where that is a wildcard.

    A name that leads to this machine is not enough: anybody's can.
    """
    name = asked.rpartition(":")[0] if asked.rpartition(":")[2].isdigit() and not asked.endswith("]") else asked
    name = name.strip("[]").lower()
    if name == host.lower() or name in _LOOPBACK:
        return True
    try:
        wildcard, named = ipaddress.ip_address(host).is_unspecified, ipaddress.ip_address(name)
    except ValueError:
        return False
    return wildcard or named.is_loopback
