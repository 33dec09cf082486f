"""Receivers of alerts: an HTTP server that answers as it is told, and a real SMTP server. On loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import SMTP
from pathlib import Path
from typing import Any

from aiohttp import web
from aiosmtpd import smtp

TLS = Path(__file__).parent / "tls"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Got:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """An HTTP server; `answer` says what each request gets, by default 200."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answer: Answer | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.got.append(Got(request.path_qs, dict(request.headers), await request.read()))
        return await self.answer(request) if self.answer is not None else web.Response(text="ok")


@asynccontextmanager
async def receiver(answer: Answer | None = None) -> AsyncIterator[Receiver]:
    """An HTTP server on a free port."""
    receiving = Receiver(answer=answer)
    runner = web.ServerRunner(web.Server(receiving.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiving.url = f"http://{host}:{port}/alerts"
    try:
        yield receiving
    finally:
        await runner.cleanup()


@dataclass
class Mailbox:
    """What an SMTP server took, and what it answers: to a recipient, or to a whole message."""

    port: int = 0
    mails: list[tuple[list[str], Message]] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    delay_s: float = 0.0
    goodbye_s: float = 0.0

    async def handle_RCPT(self, server: Any, session: Any, envelope: smtp.Envelope, address: str, options: Any) -> str:  # noqa: N802
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: smtp.Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self.delay_s)
        if self.answers:
            return self.answers.pop(0)
        assert isinstance(envelope.content, bytes)
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        self.mails.append((list(envelope.rcpt_tos), message_from_bytes(envelope.content, policy=SMTP)))
        return "250 taken"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.goodbye_s)
        return "221 Bye"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> smtp.AuthResult:
        self.logins.append((data.login, data.password))
        return smtp.AuthResult(success=data.password == b"right", handled=data.password == b"right")


@asynccontextmanager
async def mailbox(*, starttls: bool = False, tls: bool = False, login: bool = False) -> AsyncIterator[Mailbox]:
    """A real SMTP server on a free port."""
    box = Mailbox()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")

    def connected() -> smtp.SMTP:
        return smtp.SMTP(
            box,
            hostname="localhost",
            tls_context=context if starttls else None,
            authenticator=box.authenticate if login else None,
            auth_require_tls=starttls,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connected, "127.0.0.1", 0, ssl=context if tls else None)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()
