"""Declared sinks: what delivers to each, and a test alert that goes to one of them."""

import secrets
from collections.abc import Callable

from app.clock import now_ms
from app.settings import Settings
from schemas.errors import SettingsError
from schemas.events import Alert
from schemas.sinks import EmailSpec, Sink, SlackSpec, WebhookSpec
from stores.sinks import MailSender, Sender, SlackSender, WebhookSender


def sender_of(sink: Sink, clock_ms: Callable[[], int] = now_ms) -> Sender:
    """Return what delivers to the sink."""
    match sink.spec:
        case SlackSpec() as spec:
            return SlackSender(spec, sink.secret)
        case EmailSpec() as spec:
            return MailSender(spec, sink.secret)
        case WebhookSpec() as spec:
            return WebhookSender(spec, sink.secret, clock_ms)
    raise TypeError(f"nothing delivers to a {type(sink.spec).__name__}")


def find_sink(sinks: tuple[Sink, ...], name: str) -> Sink:
    """Return the sink called `name`. Raises SettingsError when none is."""
    for sink in sinks:
        if sink.name == name:
            return sink
    known = ", ".join(sorted(sink.name for sink in sinks))
    raise SettingsError(
        f"no sink is called {name!r}: " + (f"these are declared: {known}" if known else "write a [sinks.<name>] table")
    )


async def send_test(settings: Settings, name: str, asked_by: str) -> Alert:
    """Send one alert that says that it is a test to the sink called `name`, in one attempt; return it.

    Raises PenstockError when the sink cannot deliver, or it was not taken.
    """
    sink = find_sink(settings.sinks, name)
    if wrong := sink.problems(settings.allowed_sink_hosts):
        raise SettingsError("\n".join(wrong))
    alert = Alert(
        id=f"test-{secrets.token_hex(8)}",
        stream=sink.spec.streams[0] if sink.spec.streams else "test",
        kind="test",
        severity=sink.spec.min_severity,
        subject="a test",
        message=f"This is a test of the sink {name}, sent by {asked_by}.",
        recommendation="Nothing: alerts reach you.",
        raised_time_ms=now_ms(),
    )
    await sender_of(sink).send(alert)
    return alert
