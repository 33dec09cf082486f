"""Slack: an alert as a short message, without links. Slack does not know a message that comes twice."""

from typing import Final

import msgspec

from schemas.event import Severity
from schemas.events import Alert
from schemas.sinks import SlackSpec
from stores.sinks.posting import TOTAL_S, Poster

_SIGNS: Final[dict[Severity, str]] = {
    "low": "\N{WHITE CIRCLE}",
    "medium": "\N{LARGE YELLOW CIRCLE}",
    "high": "\N{LARGE ORANGE CIRCLE}",
    "critical": "\N{LARGE RED CIRCLE}",
}
_MOST_CHARACTERS: Final = 2_900  # Slack takes 3,000 in a block


class SlackSender:
    """Posts alerts to an incoming webhook of Slack, whose URL is the `secret`."""

    def __init__(self, spec: SlackSpec, secret: str, total_s: float = TOTAL_S) -> None:
        self._url = secret
        self._poster = Poster(spec.name, allow_private=spec.allow_private, total_s=total_s)

    async def send(self, alert: Alert) -> None:
        """Post the alert. Raises LaterError and Undeliverable, as `Poster.post` does."""
        await self._poster.post(self._url, msgspec.json.encode(slack_message(alert)), {})


def slack_message(alert: Alert) -> dict[str, object]:
    """Return the message; what strangers wrote in the alert is text there, and neither a link nor a mention."""
    head = f"{_SIGNS[alert.severity]} *{alert.severity}* · {_escaped(alert.stream)} · {_escaped(alert.subject)}"
    lines = [head, _escaped(alert.message), f"_What to do:_ {_escaped(alert.recommendation)}"]
    text = "\n".join(lines if alert.recommendation else lines[:2])
    if len(text) > _MOST_CHARACTERS:
        text = text[: _MOST_CHARACTERS - 1] + "…"
    plain = _escaped(f"{alert.severity}: {alert.stream}: {alert.subject}")[:_MOST_CHARACTERS]
    section = {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}
    return {"text": plain, "blocks": [section], "unfurl_links": False, "unfurl_media": False}


def _escaped(text: str) -> str:
    """Return `text` with the three characters escaped that mean something to Slack."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
