"""What is shown of alerts, and which of them are over.

An alert is over as soon as one of these holds: a later one of its kind and subject has come; a day has passed since it
was told; what it tells of has ended. That is, for drift: the column is well in a later window; for a figure that passed
a limit: a later mature window of the same model is within it; for a model: it scores no more; for an experiment or a
rollout: it runs no more; for training: a later run has made a model. All but drift go by Kafka's timestamps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.page.document import ShownAlert
from app.page.drifting import DriftFold
from app.page.modelling import ModelFold
from schemas.events import Alert, VariantPerformance

MOST_ALERTS: Final = 50
OVER_MS: Final = 24 * 3_600_000
_EXPERIMENTAL: Final = frozenset({"experiment", "rollout", "guardrail", "unequal_shares"})
_WITHIN: Final[Mapping[str, Callable[[VariantPerformance, float], bool]]] = {
    "accuracy": lambda figures, limit: figures.accuracy is not None and figures.accuracy >= limit,
    "false_positive_rate": lambda figures, limit: (
        figures.false_positive_rate is not None and figures.false_positive_rate <= limit
    ),
    "latency": lambda figures, limit: figures.latency_p50_ms is not None and figures.latency_p50_ms <= limit,
}


@dataclass(frozen=True, slots=True)
class Told:
    """An alert and Kafka's timestamp of it."""

    alert: Alert
    time_ms: int


class AlertFold:
    """The fold of `<s>.alerts`: the newest fifty, each id once. What ends them is in the other folds."""

    def __init__(self, drift: DriftFold, models: ModelFold) -> None:
        self._drift = drift
        self._models = models
        self._told: dict[str, Told] = {}  # the oldest first

    def take(self, alert: Alert, time_ms: int) -> None:
        """Go on with a later alert; one that is told again is the newest."""
        self._told.pop(alert.id, None)
        self._told[alert.id] = Told(alert, time_ms)
        if len(self._told) > MOST_ALERTS:
            del self._told[next(iter(self._told))]

    def alerts(self, now_ms: int, trained_ms: int) -> tuple[ShownAlert, ...]:
        """Return the alerts, the newest first; `trained_ms` is when a training run last made a model."""
        newer: set[tuple[str, str]] = set()
        shown = []
        for told in reversed(self._told.values()):
            alert = told.alert
            about = (alert.kind, alert.subject)
            over = about in newer or now_ms - told.time_ms > OVER_MS or self._has_ended(told, trained_ms)
            newer.add(about)
            shown.append(_shown(told, current=not over))
        return tuple(shown)

    def _has_ended(self, told: Told, trained_ms: int) -> bool:
        alert = told.alert
        if alert.kind == "drift":
            return self._is_well(alert)
        if alert.kind in _EXPERIMENTAL:
            running = self._models.deployment.experiment if self._models.deployment else None
            return running is None or running.experiment_id != alert.subject
        if alert.kind == "candidate":
            return alert.subject in self._models.routed
        if alert.kind == "training":
            return trained_ms > told.time_ms
        if alert.kind in _WITHIN or alert.kind in ("error_drift", "baseline_unusable") or "unusable" in alert.kind:
            return alert.subject not in self._models.routed or self._is_within(told)
        return False

    def _is_well(self, alert: Alert) -> bool:
        report = self._drift.newest
        if report is None or report.to_time_ms <= alert.raised_time_ms:
            return False
        column = self._drift.columns.get(alert.subject)
        return column is None or not column.judged or column.severity == "none"

    def _is_within(self, told: Told) -> bool:
        alert = told.alert
        within = _WITHIN.get(alert.kind)
        if within is None or alert.threshold is None:
            return False
        figures = self._models.matured_since(told.time_ms, alert.subject)
        return figures is not None and within(figures, alert.threshold)


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
