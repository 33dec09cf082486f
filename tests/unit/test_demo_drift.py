"""What the demo says of drift: what has moved, when, what was recommended, and whether the fault was caught."""

from dataclasses import dataclass, replace

import msgspec
import pytest

from app.demo.drift import Drift, SeenAlert, SeenColumn, SeenReport, lasting, moved
from app.demo.drift_outcome import DriftOutcome
from app.demo.feedback import Feedback
from app.demo.follow import Tally
from app.demo.view import DriftNow, Meter
from topics import StreamTopics

TOPICS = StreamTopics("flights")
DAY_MS = 86_400_000
START_MS = 1_359_738_000_000  # 1 February 2013, noon in New York


@dataclass
class Record:
    value: bytes
    key: bytes | None = None
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


def column(name: str, severity: str = "none", psi: float | None = 0.01, *, judged: bool = True) -> SeenColumn:
    reason = f"PSI {psi}" if severity != "none" else ""
    return SeenColumn(name=name, judged=judged, severity=severity, reason=reason, psi=psi, wasserstein_scaled=psi)


def report(number: int, *features: SeenColumn, n: int = 2_000, predictions: tuple[SeenColumn, ...] = ()) -> SeenReport:
    """Return the report of window `number`, which lasts for the day of that number; distances are still."""
    names = {feature.name for feature in features}
    still = () if "distance_miles" in names else (column("distance_miles"),)
    return SeenReport(
        number=number,
        baseline="january",
        from_time_ms=START_MS + number * DAY_MS,
        to_time_ms=START_MS + (number + 1) * DAY_MS - 1,
        n=n,
        severity="medium",
        features=(*features, *still),
        predictions=predictions,
        recommendation="consider retraining",
    )


def alert(name: str, kind: str = "drift", subject: str = "carrier") -> SeenAlert:
    return SeenAlert(id=name, kind=kind, severity="medium", message=f"now {subject}", recommendation="act now")


def outcome(*reports: SeenReport, fault_day: int = 3, alerts: tuple[SeenAlert, ...] = ()) -> DriftOutcome:
    return DriftOutcome(
        counted=9_000, reports=reports, alerts=alerts, faulty=700, fault_time_ms=START_MS + fault_day * DAY_MS
    )


QUIET = (report(0), report(1, column("carrier", "low", 0.2)), report(2, column("carrier", "medium", 0.3)))
CAUGHT = report(3, column("carrier"), column("distance_miles", "high", 0.7))


@pytest.fixture
def drift() -> Drift:
    return Drift(TOPICS)


def read(drift: Drift, topic: str, *events: msgspec.Struct) -> None:
    for event in events:
        drift.takers[topic](Record(msgspec.json.encode(event)))


def test_windows_and_alerts_that_come_again_count_once(drift: Drift) -> None:
    read(drift, TOPICS.drift, report(1), report(0), replace_n(report(1), 2_001))
    read(drift, TOPICS.alerts, alert("a"), alert("b", "accuracy"), alert("a"))
    assert [(seen.number, seen.n) for seen in drift.reports] == [(0, 2_000), (1, 2_001)]
    assert drift.alerts == {"drift": 1, "accuracy": 1}
    assert drift.drift_alerts == (alert("a"),)


def replace_n(seen: SeenReport, n: int) -> SeenReport:
    return msgspec.structs.replace(seen, n=n)


def test_a_feature_that_is_only_counted_has_not_drifted() -> None:
    assert report(0, column("month", "high", 18.0, judged=False)).drifted == ()


def test_what_has_moved_is_told_with_its_first_and_its_worst_window() -> None:
    reports = (*QUIET, report(3, column("carrier", "medium", 0.25)), CAUGHT)
    carrier, distance = moved(reports)
    assert (carrier.worst.name, carrier.windows, carrier.first.number) == ("carrier", 3, 1)
    assert (carrier.worst.psi, carrier.report.number) == (0.3, 2)
    assert (distance.worst.name, distance.windows, distance.report.number) == ("distance_miles", 1, 3)


def test_since_when_is_without_a_pause_and_the_worst_comes_first() -> None:
    drifted = column("carrier", "low", 0.2)
    reports = (report(0, drifted), report(1), report(2, drifted), report(3, column("score", "high"), drifted))
    assert [(found.name, since_ms) for found, since_ms in lasting(reports)] == [
        ("score", START_MS + 3 * DAY_MS),
        ("carrier", START_MS + 2 * DAY_MS),
    ]
    assert lasting(reports[:2]) == lasting(()) == []


def test_the_json_names_what_drifted_and_tells_the_fault_from_what_was_before() -> None:
    score = (column("score", "low", 0.12),)
    found = outcome(*QUIET, report(3, CAUGHT.features[1], predictions=score), alerts=(alert("a"), alert("b")))
    document = found.document()
    assert (document["drift_alerts"], document["drift_windows"], document["drift_counted"]) == (2, 4, 9_000)
    assert document["drifted_features"] == ["carrier", "distance_miles"]
    assert document["drift"].keys() == {"carrier", "distance_miles", "score"}
    assert document["drift"]["carrier"] == {
        "since_time_ms": START_MS + DAY_MS,
        "windows": 2,
        "worst_time_ms": START_MS + 2 * DAY_MS,
        "severity": "medium",
        "reason": "PSI 0.3",
        "psi": 0.3,
        "deviations": 0.3,
        "recommendation": "consider retraining",
    }
    fault = document["fault"]
    assert (fault["feature"], fault["carrier"], fault["events"]) == ("distance_miles", "UA", 700)
    assert (fault["windows_before"], fault["named_before"], fault["windows_since"], fault["named_since"]) == (
        3,
        0,
        1,
        1,
    )
    assert fault["largest_before"] == {"psi": 0.01, "deviations": 0.01}
    assert fault["largest_since"] == {"psi": 0.7, "deviations": 0.7}
    assert fault["alert"] is None


def test_the_alert_of_the_fault_is_the_first_that_names_the_feature() -> None:
    alerts = (alert("a"), alert("b", subject="distance_miles (high)"), alert("c", subject="distance_miles"))
    found = outcome(*QUIET, CAUGHT, alerts=alerts)
    assert found.document()["fault"]["alert"] == "now distance_miles (high)"
    assert "Alert: now distance_miles (high); act now." in found.summary()
    assert "No alert names it." in outcome(*QUIET, CAUGHT).summary()


def test_a_fault_that_no_whole_window_names_is_a_problem() -> None:
    missed = outcome(*QUIET, report(3), report(4))
    assert missed.problems(9_000) == ["2 windows were full of UA's kilometres, but none names distance_miles"]
    assert outcome(*QUIET, CAUGHT).problems(9_000) == []
    partly = replace(missed, fault_time_ms=START_MS + 4 * DAY_MS + 1)
    assert partly.problems(9_000) == [], "a window that begins before the fault may hold too little of it"


def test_the_summary_tells_what_moved_when_and_what_was_recommended() -> None:
    assert outcome(*QUIET, CAUGHT).summary().splitlines() == [
        "Drift, against January: 4 windows, 0 alerts.",
        "  carrier in 2 of 4 windows, first 02 Feb to 03 Feb; worst 03 Feb to 04 Feb, medium (PSI 0.3): consider "
        "retraining.",
        "  distance_miles in 1 of 4 windows, first 04 Feb to 05 Feb; worst 04 Feb to 05 Feb, high (PSI 0.7): consider "
        "retraining.",
        "The fault: from 04 Feb UA's distances were kilometres (700 events). distance_miles is named in 1 of 1 windows "
        "(PSI up to 0.70, 0.70 deviations) since, in 0 of 3 windows (PSI up to 0.01, 0.01 deviations) before.",
        "  No alert names it.",
    ]


def test_the_summary_says_so_when_no_window_was_complete_or_none_after_the_fault() -> None:
    assert outcome().summary() == (
        "Drift: 9,000 events were counted, and a window is 2,000: none was complete, so nothing was judged, neither "
        "the year nor the fault planted at the end (UA's distances in kilometres)."
    )
    assert outcome().document()["fault"]["largest_since"] == {"psi": None, "deviations": None}
    assert outcome(*QUIET).summary().endswith("kilometres, but no window after that was complete.")


def test_a_snapshot_shows_the_newest_window() -> None:
    tally = Tally(TOPICS, {}, Feedback(TOPICS, {}))
    meter = Meter(tally, 10, lambda: 0.0)
    assert meter.snapshot(0).drift is None
    tally.take(TOPICS.drift, [Record(msgspec.json.encode(seen)) for seen in (*QUIET, CAUGHT)], 0)
    tally.take(TOPICS.alerts, [Record(msgspec.json.encode(alert("a")))], 0)
    snapshot = meter.snapshot(0)
    assert snapshot.drift == DriftNow(CAUGHT, ((CAUGHT.features[1], START_MS + 3 * DAY_MS),))
    assert snapshot.alerts == 1
