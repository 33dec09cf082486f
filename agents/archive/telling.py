"""What a person is told of an archive that cannot be written."""

import hashlib
from datetime import UTC, datetime

from schemas.events import Alert


def away_alert(stream: str, offset: int, reason: str, now_ms: int) -> Alert:
    """Return the alert that samples from `offset` on wait to be archived, because of `reason`, a sentence."""
    return Alert(
        id=_id_of(stream, "away", offset),
        stream=stream,
        kind="archive",
        severity="high",
        subject="archive",
        message=f"samples cannot be archived: {reason}",
        recommendation="Mend the store. The stream goes on meanwhile; what is not archived by the time that Kafka "
        "forgets it (retention_hours) is lost for training.",
        raised_time_ms=now_ms,
        window=f"offset {offset}",
    )


def back_alert(stream: str, offset: int, now_ms: int) -> Alert:
    """Return the alert that the archive, which could not take the samples from `offset` on, has them now."""
    return Alert(
        id=_id_of(stream, "back", offset),
        stream=stream,
        kind="archive",
        severity="low",
        subject="archive",
        message="samples are archived again; those that waited follow",
        recommendation="Nothing is to be done.",
        raised_time_ms=now_ms,
        window=f"offset {offset}",
    )


def waiting_alert(stream: str, offset: int, forgotten_ms: int, now_ms: int) -> Alert:
    """Return the alert that the samples from `offset` on wait for a later one, and Kafka forgets them by a time."""
    forgotten = datetime.fromtimestamp(forgotten_ms / 1000, UTC)
    return Alert(
        id=_id_of(stream, "waiting", offset),
        stream=stream,
        kind="archive",
        severity="medium",
        subject="archive",
        message="no sample has come for long, and the newest ones are not archived before another one comes; Kafka "
        f"forgets them from {forgotten:%Y-%m-%d %H:%M} UTC on",
        recommendation="If the stream stays silent until then, raise its retention_hours, or set archive.samples to "
        "fewer than wait and start the workers anew.",
        raised_time_ms=now_ms,
        window=f"offset {offset}",
    )


def _id_of(stream: str, what: str, offset: int) -> str:
    """Return an id that a restart repeats."""
    return hashlib.sha256("\n".join(("alert", stream, "archive", what, str(offset))).encode()).hexdigest()[:32]
