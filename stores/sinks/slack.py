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
_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_FEW, _SOME, _MANY = 200, 700, 1_700  # characters of a part; Slack takes 3,000 in a block


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
    about = f"{_escaped(alert.stream, _FEW)} · {_escaped(alert.subject, _FEW)}"
    lines = [f"{_SIGNS[alert.severity]} *{alert.severity}* · {about}", _escaped(alert.message, _MANY)]
    if alert.recommendation:
        lines.append(f"_What to do:_ {_escaped(alert.recommendation, _SOME)}")
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines), "verbatim": True}}
    plain = f"{alert.severity}: {about}"
    return {"text": plain, "blocks": [section], "unfurl_links": False, "unfurl_media": False}


def _escaped(text: str, most: int) -> str:
    """Return `text` with the three characters escaped that mean something to Slack, cut to `most` characters."""
    whole = text[:most].translate(_ESCAPES)
    if len(text) <= most and len(whole) <= most:
        return whole
    pieces, room = [], most - 1
    for character in text:
        piece = character.translate(_ESCAPES)
        room -= len(piece)
        if room < 0:
            break
        pieces.append(piece)
    return "".join(pieces) + "…"
