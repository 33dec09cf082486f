"""What the demo found out about drift: what moved by itself, and whether the planted fault was caught."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.demo.drift import Moved, SeenAlert, SeenReport, moved
from app.demo.fault import CARRIER, FEATURE
from app.demo.flights import DRIFT_WINDOW_EVENTS, FEATURES, LOCAL_TIME


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftOutcome:
    """What was said of drift. `counted` events are in the partial histograms; `reports` are in order.

    `faulty` events were sent in kilometres, the first ones at `fault_time_ms` of event time.
    """

    counted: int
    reports: Sequence[SeenReport]
    alerts: Sequence[SeenAlert]
    faulty: int
    fault_time_ms: int

    @property
    def before(self) -> list[SeenReport]:
        """The windows without the fault."""
        return [report for report in self.reports if report.to_time_ms < self.fault_time_ms]

    @property
    def since(self) -> list[SeenReport]:
        """The windows that end after the fault has begun; the first may hold little of it."""
        return [report for report in self.reports if report.to_time_ms >= self.fault_time_ms]

    @property
    def fault_alert(self) -> SeenAlert | None:
        """The first alert that names the feature with the fault."""
        return next((alert for alert in self.alerts if FEATURE in alert.message), None)

    def document(self) -> dict[str, Any]:
        """Return what `--json` writes of this."""
        found = moved(self.reports)
        alert = self.fault_alert
        return {
            "drift_alerts": len(self.alerts),
            "drifted_features": [one.worst.name for one in found if one.worst.name in FEATURES],
            "drift_windows": len(self.reports),
            "drift_counted": self.counted,
            "drift": {one.worst.name: _described(one) for one in found},
            "fault": {
                "feature": FEATURE,
                "carrier": CARRIER,
                "events": self.faulty,
                "from_time_ms": self.fault_time_ms,
                "windows_before": len(self.before),
                "named_before": len(_naming(self.before)),
                "largest_before": _largest(self.before),
                "windows_since": len(self.since),
                "named_since": len(_naming(self.since)),
                "largest_since": _largest(self.since),
                "alert": None if alert is None else alert.message,
            },
        }

    def problems(self, predictions: int) -> list[str]:
        """Return one sentence for each promise that was not kept, when there were so many predictions."""
        found = []
        if self.counted != predictions:
            found.append(f"{predictions} events were scored, but {self.counted} were counted for drift")
        whole = [report for report in self.since if report.from_time_ms >= self.fault_time_ms]
        if whole and not _naming(whole):
            found.append(f"{len(whole)} windows were full of {CARRIER}'s kilometres, but none names {FEATURE}")
        return found

    def summary(self) -> str:
        """Return what moved, when, and what was recommended, in a few lines for a person."""
        if not self.reports:
            return (
                f"Drift: {self.counted:,} events were counted, and a window is {DRIFT_WINDOW_EVENTS:,}: none was "
                f"complete, so nothing was judged, neither the year nor the fault planted at the end ({CARRIER}'s "
                "distances in kilometres)."
            )
        found = moved(self.reports)
        head = f"Drift, against January: {len(self.reports):,} windows, {len(self.alerts):,} alerts."
        return "\n".join([head, *(self._line(one) for one in found), self._fault_line()])

    def _line(self, one: Moved) -> str:
        worst, report = one.worst, one.report
        return (
            f"  {worst.name} in {one.windows} of {len(self.reports)} windows, first {_span(one.first)}; worst "
            f"{_span(report)}, {worst.severity} ({worst.reason}): {report.recommendation}."
        )

    def _fault_line(self) -> str:
        start = f"The fault: from {day(self.fault_time_ms)} {CARRIER}'s distances were kilometres"
        if not self.since:
            return f"{start}, but no window after that was complete."
        named, earlier = (
            f"{len(_naming(windows))} of {len(windows)} windows ({_figures(_largest(windows))})"
            for windows in (self.since, self.before)
        )
        alert = self.fault_alert
        told = f"Alert: {alert.message}; {alert.recommendation}." if alert else "No alert names it."
        return f"{start} ({self.faulty:,} events). {FEATURE} is named in {named} since, in {earlier} before.\n  {told}"


def day(time_ms: int) -> str:
    """Return the date in New York."""
    return f"{datetime.fromtimestamp(time_ms / 1000, LOCAL_TIME):%d %b}"


def _span(report: SeenReport) -> str:
    return f"{day(report.from_time_ms)} to {day(report.to_time_ms)}"


def _naming(reports: Sequence[SeenReport]) -> list[SeenReport]:
    return [report for report in reports if report.column(FEATURE).drifted]


def _largest(reports: Sequence[SeenReport]) -> dict[str, float | None]:
    """Return the largest effects on the feature with the fault; None without a figure."""
    columns = [report.column(FEATURE) for report in reports]
    psi = [column.psi for column in columns if column.psi is not None]
    distance = [column.wasserstein_scaled for column in columns if column.wasserstein_scaled is not None]
    return {"psi": _rounded(max(psi, default=None)), "deviations": _rounded(max(distance, default=None))}


def _figures(largest: dict[str, float | None]) -> str:
    psi, deviations = ("-" if value is None else f"{value:.2f}" for value in largest.values())
    return f"PSI up to {psi}, {deviations} deviations"


def _described(one: Moved) -> dict[str, Any]:
    return {
        "since_time_ms": one.first.from_time_ms,
        "windows": one.windows,
        "worst_time_ms": one.report.from_time_ms,
        "severity": one.worst.severity,
        "reason": one.worst.reason,
        "psi": _rounded(one.worst.psi),
        "deviations": _rounded(one.worst.wasserstein_scaled),
        "recommendation": one.report.recommendation,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
