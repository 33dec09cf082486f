"""E-mail, against a real SMTP server that takes alerts, refuses them, is slow, and wants TLS and a login."""

import asyncio
import smtplib
import socket
import ssl
import threading
import time
import traceback
from typing import Any

import pytest

from schemas.sinks import EmailSpec
from stores.sinks import LaterError, MailSender, Undeliverable, mail
from tests.notifying import alert_of
from tests.receiving import TLS, Mailbox, mailbox

ADDRESSES: dict[str, Any] = {"sender": "penstock@example.com", "recipients": ("ops@example.com",)}
KEY = "canary-b71e-a-secret-key"
ALERT = alert_of(1, message="a <b> & c", subject="line\r\nBcc: everybody@example.com")


def email(box: Mailbox, host: str = "localhost", secret: str = "", **fields: Any) -> MailSender:
    declared: dict[str, Any] = {
        "sender": "penstock@example.com",
        "recipients": ("ops@example.com", "night@example.com"),
        "security": "none",
    }
    spec = EmailSpec(name="mail", host=host, port=box.port, **(declared | fields))
    return MailSender(spec, secret, step_s=1.0, total_s=1.5)


async def test_all_recipients_get_one_mail_that_duplicates_are_known_by() -> None:
    async with mailbox() as box:
        sender = email(box)
        await sender.send(ALERT)
        await sender.send(ALERT)
    (recipients, letter), (_, again) = box.mails
    assert recipients == ["ops@example.com", "night@example.com"]
    assert letter["Subject"] == "[high] flights: line Bcc: everybody@example.com"
    assert (letter["Bcc"], letter["Idempotency-Key"], letter["Auto-Submitted"]) == (None, "a1", "auto-generated")
    assert letter["Message-ID"] == again["Message-ID"]
    text = str(letter.get_payload())
    assert "a <b> & c" in text
    assert "What to do: Look." in text


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_login_goes_over_tls_whose_certificate_is_checked(
    security: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: dict[str, bool] = {security: True}
    async with mailbox(**ways, login=security == "starttls") as box:
        login = {"username": "penstock", "secret": "right"} if security == "starttls" else {}
        with pytest.raises(LaterError, match="SSLCertVerificationError"):
            await email(box, security=security, **login).send(ALERT)
        assert box.logins == []
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
        await email(box, security=security, **login).send(ALERT)
    assert box.encrypted == [True]
    assert box.logins == ([(b"penstock", b"right")] if login else [])


async def test_a_server_without_tls_and_a_wrong_password_are_refused_and_the_password_stays_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with mailbox() as plain:
        with pytest.raises(Undeliverable, match="does not offer"):
            await email(plain, security="starttls").send(ALERT)
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
    async with mailbox(starttls=True, login=True) as box:
        with pytest.raises(Undeliverable, match="refused the login") as caught:
            await email(box, security="starttls", username="penstock", secret=KEY).send(ALERT)
    assert KEY not in f"{caught.value!r} {caught.value.__context__!r}"
    assert (plain.mails, box.mails) == ([], [])


async def test_a_mail_server_s_4xx_is_for_later_and_its_5xx_is_final() -> None:
    async with mailbox() as box:
        box.answers = ["451 try again", "554 spam"]
        with pytest.raises(LaterError, match="451"):
            await email(box).send(ALERT)
        with pytest.raises(Undeliverable, match="554"):
            await email(box).send(ALERT)
        box.refused = dict.fromkeys(("ops@example.com", "night@example.com"), "450 busy")
        with pytest.raises(LaterError, match="every recipient"):
            await email(box).send(ALERT)
    assert box.mails == []


async def test_a_recipient_who_is_refused_is_reported_and_the_others_get_it() -> None:
    async with mailbox() as box:
        box.refused = {"night@example.com": "550 nobody"}
        with pytest.raises(Undeliverable, match=r"refused night@example.com \(550\); all other recipients have it"):
            await email(box).send(ALERT)
    assert [recipients for recipients, _ in box.mails] == [["ops@example.com"]]


async def test_a_mail_server_that_hangs_is_left_and_the_next_attempt_finds_a_free_thread() -> None:
    async with mailbox() as box:
        box.delay_s = 5.0
        sender = email(box)
        started = time.monotonic()
        with pytest.raises(LaterError):
            await sender.send(ALERT)
        assert time.monotonic() - started < 2.0
        box.delay_s = 0.0
        await sender.send(ALERT)
    assert len(box.mails) == 1


async def test_a_thread_that_nobody_waits_for_ends_at_once_and_a_slow_goodbye_is_not_waited_for() -> None:
    async with mailbox() as box:
        box.delay_s = box.goodbye_s = 20.0
        spec = EmailSpec(name="slow", host="localhost", port=box.port, security="none", **ADDRESSES)
        with pytest.raises(LaterError, match=r"took longer than 0\.5 s"):
            await MailSender(spec, "", step_s=30.0, total_s=0.5).send(ALERT)
        for _ in range(50):
            if "sink slow" not in {thread.name for thread in threading.enumerate()}:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the thread goes on")
        box.delay_s, started = 0.0, time.monotonic()
        await MailSender(spec, "", step_s=30.0, total_s=30.0).send(ALERT)
        assert time.monotonic() - started < 5.0


async def test_who_is_connected_too_late_says_nothing() -> None:
    said: list[bytes] = []

    async def greet_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6)
        writer.write(b"220 here\r\n")
        said.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(greet_late, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        spec = EmailSpec(name="late", host="127.0.0.1", port=port, security="none", **ADDRESSES)
        with pytest.raises(LaterError, match="took longer"):
            await MailSender(spec, "", total_s=0.2).send(ALERT)
        await asyncio.sleep(1.0)
    assert said == [b""]


async def test_a_conversation_that_is_hung_up_sends_nothing_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
    async with mailbox(tls=True) as box:
        spec = EmailSpec(name="mail", host="localhost", port=box.port, security="tls", **ADDRESSES)
        talk = mail._Conversation(spec, "", 5.0)
        server = await asyncio.to_thread(talk._connected)
        talk.hang_up()
        assert isinstance(server.sock, ssl.SSLSocket)
        assert server.sock.version(), "it is not the plain socket now"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.sock.sendall(KEY.encode())
        server.close()


def test_hanging_up_on_a_connection_that_its_thread_closes_meanwhile_raises_nothing() -> None:
    class Closing(smtplib.SMTP):
        """Its socket is there when it is looked at first, and then no more."""

        def __init__(self, sock: socket.socket) -> None:
            self._socks = iter([sock])

        @property
        def sock(self) -> socket.socket | None:  # type: ignore[override]
            return next(self._socks, None)

    here, there = socket.socketpair()
    with here, there:
        talk = mail._Conversation(EmailSpec(name="mail", host="localhost", **ADDRESSES), "", 5.0)
        talk._server = Closing(here)
        talk.hang_up()
        assert there.recv(1) == b""


async def test_a_text_that_smtp_cannot_send_is_final_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
    async with mailbox(starttls=True, login=True) as box:
        with pytest.raises(Undeliverable, match="look at its settings") as caught:
            await email(box, security="starttls", username="penstock", secret=f"{KEY}-é").send(ALERT)
        with pytest.raises(Undeliverable, match="look at its settings"):
            await email(box, host="a..b").send(ALERT)
    assert KEY not in "".join(traceback.format_exception(caught.value))
