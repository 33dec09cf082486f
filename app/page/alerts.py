"""What is shown of alerts, and which of them are over.

An alert is over when a later one of its kind and subject has come, when what it tells of has ended (see `kinds`), or
when it is of a kind that fades and a day has passed since it was told.
"""

from collections.abc import Iterator
from typing import Final

from app.page.document import ShownAlert
from app.page.kinds import Facts, Told, kind_of
from schemas.event import SEVERITY_RANKS
from schemas.events import Alert

MOST_SHOWN: Final = 50
MOST_KEPT: Final = 200
DAY_MS: Final = 24 * 3_600_000


class AlertFold:
    """The fold of `<s>.alerts`, each id once. Two hundred are kept; of more, the mild and replaced ones go first."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._told: dict[str, Told] = {}  # the oldest first

    def take(self, alert: Alert, time_ms: int) -> None:
        """Go on with a later alert; one that is told again is the newest."""
        self._told.pop(alert.id, None)
        self._told[alert.id] = Told(alert, time_ms)
        if len(self._told) > MOST_KEPT:
            del self._told[self._least()]

    def _least(self) -> str:
        """Return the oldest that is mild or has a later one of its kind and subject; else the oldest."""
        newest = {(told.alert.kind, told.alert.subject): name for name, told in self._told.items()}
        for name, told in self._told.items():
            if not _is_severe(told) or newest[told.alert.kind, told.alert.subject] != name:
                return name
        return next(iter(self._told))

    def alerts(self, now_ms: int) -> tuple[ShownAlert, ...]:
        """Return fifty alerts, the newest first; severe ones that are not over are always among them."""
        found = list(self._judged(now_ms))
        needed = [told.alert.id for told, current in found if current and _is_severe(told)]
        others = [told.alert.id for told, _ in found if told.alert.id not in set(needed)]
        chosen = {*needed, *others[: max(MOST_SHOWN - len(needed), 0)]}
        return tuple(_shown(told, current=current) for told, current in found if told.alert.id in chosen)

    def telling(self, now_ms: int) -> list[Told]:
        """Return the alerts of medium severity or more that are not over, the newest first."""
        return [told for told, current in self._judged(now_ms, SEVERITY_RANKS["medium"]) if current]

    def _judged(self, now_ms: int, least: int = 0) -> Iterator[tuple[Told, bool]]:
        """Give the alerts, the newest first, and whether each is current; those of a rank below `least` are not."""
        newer: set[tuple[str, str]] = set()
        for told in reversed(self._told.values()):
            about = (told.alert.kind, told.alert.subject)
            kind = kind_of(told.alert.kind)
            faded = kind.fades and now_ms - told.time_ms > DAY_MS
            is_open = about not in newer and not faded and SEVERITY_RANKS[told.alert.severity] >= least
            yield told, is_open and not kind.has_ended(told, self._facts)
            newer.add(about)


def _is_severe(told: Told) -> bool:
    return SEVERITY_RANKS[told.alert.severity] >= SEVERITY_RANKS["high"]


def _shown(told: Told, *, current: bool) -> ShownAlert:
    alert = told.alert
    return ShownAlert(
        id=alert.id,
        severity=alert.severity,
        kind=alert.kind,
        subject=alert.subject,
        message=alert.message,
        recommendation=alert.recommendation,
        raised_time_ms=alert.raised_time_ms,
        told_time_ms=told.time_ms,
        current=current,
    )
