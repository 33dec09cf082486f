"""E-mail: an alert as a plain text message, through an SMTP server, in a thread.

The `Message-ID` follows from the alert's id, so that mail systems that drop duplicates drop a second delivery.
"""

import asyncio
import contextlib
import hashlib
import smtplib
import socket
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial
from typing import Final

from schemas.events import Alert
from schemas.sinks import EmailSpec
from stores.sinks.headers import header_text
from stores.sinks.sending import LaterError, Undeliverable
from stores.sinks.threads import in_thread

STEP_S: Final = 10.0
TOTAL_S: Final = 30.0
GOODBYE_S: Final = 1.0
_SHOWN_CHARACTERS: Final = 200


class MailSender:
    """Sends alerts by e-mail; `secret` is the password of the spec's user name, if there is one."""

    def __init__(self, spec: EmailSpec, secret: str, step_s: float = STEP_S, total_s: float = TOTAL_S) -> None:
        """`step_s` is how long the server may take for one answer, `total_s` for all of them."""
        self._spec = spec
        self._secret = secret
        self._step_s = step_s
        self._total_s = total_s

    async def send(self, alert: Alert) -> None:
        """Send the alert to all recipients. Raises LaterError, and Undeliverable also where only some are refused."""
        message = mail_of(self._spec, alert)
        talk = _Conversation(self._spec, self._secret, self._step_s)
        try:
            async with asyncio.timeout(self._total_s):
                await in_thread(f"sink {self._spec.name}", partial(talk.deliver, message))
        except TimeoutError as error:
            raise LaterError(f"{self._spec.host} took longer than {self._total_s:g} s") from error
        finally:
            talk.hang_up()


class _Conversation:
    """One connection to the server. `deliver` is for a thread, and `hang_up` ends it from another."""

    def __init__(self, spec: EmailSpec, secret: str, step_s: float) -> None:
        self._spec = spec
        self._secret = secret
        self._step_s = step_s
        self._server: smtplib.SMTP | None = None
        self._over = False

    def deliver(self, message: EmailMessage) -> None:
        """Send the message to every recipient. Raises LaterError and Undeliverable."""
        host = self._spec.host
        try:
            server = self._connected()
            try:
                self._go_on()
                refused = server.send_message(message)
            finally:
                _leave(server)
        except smtplib.SMTPRecipientsRefused as error:
            raise _refusal(host, max(code for code, _ in error.recipients.values()), "every recipient") from error
        except smtplib.SMTPAuthenticationError as error:  # what the server says of a login is shown to nobody
            raise _refusal(host, error.smtp_code, "the login") from error
        except smtplib.SMTPResponseException as error:
            raise _refusal(host, error.smtp_code, f"it: {_shown(error.smtp_error)}") from error
        except smtplib.SMTPNotSupportedError as error:
            raise Undeliverable(f"{host} does not offer what the sink asks for: {error}") from error
        except (smtplib.SMTPException, OSError) as error:
            raise LaterError(f"{host} could not be reached, or broke off ({type(error).__name__})") from error
        except ValueError:  # UnicodeError among them, which holds the text: it may be the password
            raise Undeliverable(f"a text of the sink cannot be sent to {host}; look at its settings") from None
        if refused:
            some = ", ".join(f"{address} ({code})" for address, (code, _) in sorted(refused.items()))
            raise Undeliverable(f"{host} refused {some}; all other recipients have it")

    def hang_up(self) -> None:
        """End the conversation, so that the thread does not wait any longer."""
        self._over = True
        sock = self._server.sock if self._server is not None else None  # read once: the thread may be closing it
        if sock is not None:
            with contextlib.suppress(OSError):
                # the socket's own: that of TLS would first let what is still sent go out in the clear
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _go_on(self) -> None:
        """Raise OSError if nobody waits any more."""
        if self._over:
            raise OSError("nobody waits any more")

    def _connected(self) -> smtplib.SMTP:
        """Return a connection, encrypted and logged in as the spec says."""
        spec, context = self._spec, ssl.create_default_context()
        if spec.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(spec.host, spec.port, timeout=self._step_s, context=context)
        else:
            server = smtplib.SMTP(spec.host, spec.port, timeout=self._step_s)
        self._server = server
        try:
            self._go_on()
            if spec.security == "starttls":
                server.starttls(context=context)
            if spec.username:
                self._go_on()
                server.login(spec.username, self._secret)
        except BaseException:
            server.close()
            raise
        return server


def _leave(server: smtplib.SMTP) -> None:
    """Say goodbye. What comes of it does not matter: by now the server has taken the message, or has not."""
    with contextlib.suppress(smtplib.SMTPException, OSError):
        if server.sock is not None:
            server.sock.settimeout(GOODBYE_S)
        server.quit()
    server.close()


def mail_of(spec: EmailSpec, alert: Alert) -> EmailMessage:
    """Return the message. No text of the alert can become a header of its own."""
    message = EmailMessage(policy=SMTP)
    message["Subject"] = _one_line(f"[{alert.severity}] {alert.stream}: {alert.subject}")
    message["From"] = spec.sender
    message["To"] = ", ".join(spec.recipients)
    message["Date"] = format_datetime(datetime.fromtimestamp(alert.raised_time_ms / 1000, UTC))
    digest = hashlib.sha256(f"{alert.stream}\n{alert.id}".encode()).hexdigest()[:32]
    message["Message-ID"] = f"<{digest}@penstock.invalid>"
    message["Idempotency-Key"] = header_text(alert.id)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence is to be answered
    parts = [alert.message, f"What to do: {alert.recommendation}" if alert.recommendation else ""]
    facts = [f"stream {alert.stream}", f"kind {alert.kind}", f"subject {alert.subject}", f"alert {alert.id}"]
    message.set_content("\n\n".join([part for part in parts if part] + ["\n".join(facts)]) + "\n")
    return message


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def _refusal(host: str, code: int, what: str) -> LaterError | Undeliverable:
    """Return the error of an answer: 4xx may pass, 5xx does not (RFC 5321, 4.2.1)."""
    said = f"{host} refused {what} ({code})"
    return LaterError(said) if code < 500 else Undeliverable(said)


def _shown(answer: bytes | str) -> str:
    return _one_line(answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer)
