"""What tests of drift share: reports, columns and alerts as the judge would write them."""

from typing import Any

from schemas.drift import ColumnDrift, DriftReport
from schemas.events import Alert


def column_of(name: str, **changes: Any) -> ColumnDrift:
    """Return what is said of a column that has not moved."""
    fields: dict[str, Any] = {
        "name": name,
        "judged": True,
        "severity": "none",
        "reason": "",
        "n": 1_000,
        "missing_share": 0.0,
        "unseen_share": 0.0,
        "mean": 1.5,
        "deviation": 1.0,
        "skewness": 0.0,
        "kurtosis": 0.0,
        "psi": 0.01,
        "kl_reference_current": 0.005,
        "kl_current_reference": 0.005,
        "jensen_shannon": 0.001,
        "ks": 0.02,
        "p_value": 1.0,
        "wasserstein": 0.03,
        "wasserstein_scaled": 0.03,
        "bins": ("a", "b"),
        "reference": (0.5, 0.5),
        "current": (0.5, 0.5),
    }
    return ColumnDrift(**(fields | changes))


def report_of(number: int, *features: ColumnDrift, **changes: Any) -> DriftReport:
    """Return the report of window `number`, of a second per event from the epoch on."""
    fields: dict[str, Any] = {
        "stream": "flights",
        "number": number,
        "model_id": "m1",
        "baseline": "b" * 64,
        "from_time_ms": 1_000_000 * number,
        "to_time_ms": 1_000_000 * (number + 1) - 1,
        "n": 1_000,
        "severity": "none",
        "drifted_share": 0.0,
        "features": features or (column_of("distance"),),
        "predictions": (column_of("score"),),
        "recommendation": "",
    }
    return DriftReport(**(fields | changes))


def alert_of(alert_id: str, **changes: Any) -> Alert:
    """Return an alert of drift."""
    fields: dict[str, Any] = {
        "id": alert_id,
        "stream": "flights",
        "kind": "drift",
        "severity": "high",
        "subject": "distance",
        "message": "distance has moved",
        "recommendation": "retrain within 24 h",
        "raised_time_ms": 0,
    }
    return Alert(**(fields | changes))
