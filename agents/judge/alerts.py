"""What people are told of drift: the reports, and of those that name something new an alert, or a request to train."""

import hashlib
from datetime import UTC, datetime
from typing import Final

import msgspec

from agents.judge.windows import Window
from ml.drift.judgement import Judgement
from schemas.drift import ColumnDrift, DriftReport, DriftSeverity
from schemas.event import SEVERITY_RANKS
from schemas.events import Alert, RetrainRequest
from schemas.streams import MINUTE_MS, DriftSpec

MOST_NAMED: Final = 5
_ALL: Final = ""  # is told of as a whole when it is critical; no column has this name

Told = dict[str, dict[DriftSeverity, int]]
"""When a column was last named in an alert, by its severity then: event times in milliseconds."""


def report_of(stream: str, number: int, window: Window, judgement: Judgement) -> DriftReport:
    """Return the record of one judged window."""
    assert window.counts is not None
    return DriftReport(
        stream=stream,
        number=number,
        model_id=window.model_id,
        baseline=window.reference.sha256,
        from_time_ms=window.from_ms,
        to_time_ms=window.to_ms,
        n=window.counts.n,
        severity=judgement.severity,
        drifted_share=judgement.drifted_share,
        features=tuple(ColumnDrift(**msgspec.structs.asdict(found)) for found in judgement.features),
        predictions=tuple(ColumnDrift(**msgspec.structs.asdict(found)) for found in judgement.predictions),
        recommendation=judgement.recommendation,
    )


class Alerts:
    """Knows what was told, so that nothing is told twice within the cool-down unless it got worse."""

    def __init__(self, drift: DriftSpec) -> None:
        self._drift = drift
        self._cooldown_ms = drift.cooldown_minutes * MINUTE_MS
        self.told: Told = {}

    def of(self, report: DriftReport, head_ms: int) -> tuple[Alert | None, RetrainRequest | None]:
        """Return what is to be told of a report, whose newest event time is believed to be `head_ms`.

        An alert names what drifted and was not named within the cool-down at that severity or a higher one. Columns
        that were named one by one may be too many together: of a critical report without news all are named,
        unless one was told of within the cool-down. The severity is the report's.
        """
        drifted = drifted_columns(report)
        fresh = {name: column for name, column in drifted.items() if self._is_news(name, column.severity, head_ms)}
        if report.severity == "critical" and not fresh and self._is_news(_ALL, "critical", head_ms):
            fresh = drifted
        if not fresh:
            return None, None
        if report.severity == "critical":
            self._note(_ALL, "critical", head_ms)
        for name, column in fresh.items():
            self._note(name, column.severity, head_ms)
        alert = self._alert(report, drifted, fresh)
        asks = report.severity == "critical" or report.drifted_share >= self._drift.drifted_share
        return alert, request_of(report, drifted, alert) if asks else None

    def _is_news(self, name: str, severity: DriftSeverity, head_ms: int) -> bool:
        """Whether it was not told in the cool-down before `head_ms`; nor after, where time went back."""
        return not any(
            SEVERITY_RANKS[told] >= SEVERITY_RANKS[severity] and abs(head_ms - told_ms) < self._cooldown_ms
            for told, told_ms in self.told.get(name, {}).items()
        )

    def _note(self, name: str, severity: DriftSeverity, head_ms: int) -> None:
        self.told.setdefault(name, {})[severity] = head_ms

    def _alert(self, report: DriftReport, drifted: dict[str, ColumnDrift], fresh: dict[str, ColumnDrift]) -> Alert:
        assert report.severity != "none"
        subject = next(iter(fresh))
        window = window_of(report)
        listed = ", ".join(
            f"{name} ({column.severity}: {column.reason})" for name, column in list(fresh.items())[:MOST_NAMED]
        )
        more = len(fresh) - MOST_NAMED
        return Alert(
            id=_id_of("alert", report.stream, subject, window),
            stream=report.stream,
            kind="drift",
            severity=report.severity,
            subject=subject,
            message=f"model {report.model_id}, window {window}: {len(drifted)} of {_judged(report)} columns have "
            f"drifted; now {listed}{f' and {more} more' if more > 0 else ''}",
            recommendation=report.recommendation,
            raised_time_ms=report.to_time_ms,
            value=fresh[subject].psi,
            threshold=self._drift.min_psi,
            window=window,
        )


def drifted_columns(report: DriftReport) -> dict[str, ColumnDrift]:
    """Return what has drifted by its name, the worst first; names of predictions say that they are such."""
    predictions = {id(column) for column in report.predictions}
    return {
        f"prediction {column.name}" if id(column) in predictions else column.name: column
        for column in _worst_first((*report.features, *report.predictions))
    }


def _worst_first(columns: tuple[ColumnDrift, ...]) -> list[ColumnDrift]:
    """Return the columns that have drifted."""
    drifted = [column for column in columns if column.judged and column.severity != "none"]
    return sorted(drifted, key=lambda column: (-SEVERITY_RANKS[column.severity], -(column.psi or 0.0)))


def _judged(report: DriftReport) -> int:
    return sum(column.judged for column in (*report.features, *report.predictions))


def window_of(report: DriftReport) -> str:
    """Return the window in words, the same in every replay."""
    return f"{report.number} ({report.n} events, {_utc(report.from_time_ms)} to {_utc(report.to_time_ms)})"


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def request_of(report: DriftReport, drifted: dict[str, ColumnDrift], alert: Alert) -> RetrainRequest:
    """Return what a trainer is asked, with the evidence."""
    return RetrainRequest(
        id=_id_of("retrain", report.stream, alert.subject, alert.window),
        stream=report.stream,
        reason="drift",
        evidence={
            "model_id": report.model_id,
            "baseline": report.baseline,
            "window": alert.window,
            "severity": report.severity,
            "drifted_share": report.drifted_share,
            "drifted_features": ",".join(column.name for column in _worst_first(report.features)),
            "drifted_predictions": ",".join(column.name for column in _worst_first(report.predictions)),
            "worst_psi": max((column.psi for column in drifted.values() if column.psi is not None), default=None),
            "n": report.n,
            "from_time_ms": report.from_time_ms,
            "to_time_ms": report.to_time_ms,
        },
        requested_time_ms=report.to_time_ms,
        requested_by="judge",
    )


def _id_of(what: str, stream: str, subject: str, window: str) -> str:
    """Return an id that a replay repeats: of what, stream, kind, subject and window."""
    return hashlib.sha256("\n".join((what, stream, "drift", subject, window)).encode()).hexdigest()[:32]
