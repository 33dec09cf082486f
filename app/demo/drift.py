"""What is said of drift while the flights pass: events counted, windows judged, alerts raised."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from app.demo.feedback import Record
from app.demo.flights import DRIFT_WINDOW_EVENTS
from schemas.drift import DriftSeverity
from schemas.event import SEVERITY_RANKS
from schemas.wire import decoder
from topics import StreamTopics


class SeenPartial(msgspec.Struct, frozen=True, gc=False):
    """The fields of a PartialHistogram that are counted."""

    n: int
    baseline: str


class SeenColumn(msgspec.Struct, frozen=True, gc=False):
    """The fields of a ColumnDrift that are shown."""

    name: str
    judged: bool
    severity: DriftSeverity
    reason: str
    psi: float | None
    wasserstein_scaled: float | None

    @property
    def drifted(self) -> bool:
        """Whether the window says that this column has moved."""
        return self.judged and self.severity != "none"


class SeenReport(msgspec.Struct, frozen=True, gc=False):
    """The fields of a DriftReport that are shown."""

    number: int
    baseline: str
    from_time_ms: int
    to_time_ms: int
    n: int
    severity: DriftSeverity
    features: tuple[SeenColumn, ...]
    predictions: tuple[SeenColumn, ...]
    recommendation: str

    @property
    def drifted(self) -> tuple[SeenColumn, ...]:
        """Everything that has moved, the worst first."""
        moved = (column for column in (*self.features, *self.predictions) if column.drifted)
        return tuple(sorted(moved, key=badness, reverse=True))

    def column(self, name: str) -> SeenColumn:
        """Return the column of a feature. Raises StopIteration when the stream has none of this name."""
        return next(column for column in self.features if column.name == name)


class SeenAlert(msgspec.Struct, frozen=True, gc=False):
    """The fields of an Alert that are counted or shown."""

    id: str
    kind: str
    severity: str
    message: str
    recommendation: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A column that has drifted in `windows` windows: first in `first`, and in `report` the worst, as `worst` says."""

    windows: int
    first: SeenReport
    worst: SeenColumn
    report: SeenReport


class Drift:
    """What a stream says of drift. `alerts` counts those of every kind, `drift_alerts` holds the ones of drift.

    An alert or a window that comes again counts once.
    """

    def __init__(self, topics: StreamTopics) -> None:
        self.takers: dict[str, Callable[[Record], None]] = {
            topics.histograms: self._take_partial,
            topics.drift: self._take_report,
            topics.alerts: self._take_alert,
        }
        self._reports: dict[int, SeenReport] = {}
        self._alerts: dict[str, SeenAlert] = {}
        self._counted: Counter[str] = Counter()  # by baseline

    @property
    def reports(self) -> list[SeenReport]:
        """The newest report of each window, in their order."""
        return [self._reports[number] for number in sorted(self._reports)]

    @property
    def alerts(self) -> Counter[str]:
        """How many alerts there are of each kind."""
        return Counter(alert.kind for alert in self._alerts.values())

    @property
    def drift_alerts(self) -> tuple[SeenAlert, ...]:
        """The alerts of drift, in the order in which they came."""
        return tuple(alert for alert in self._alerts.values() if alert.kind == "drift")

    @property
    def counted(self) -> int:
        """How many events are in the partial histograms."""
        return self._counted.total()

    @property
    def behind(self) -> int:
        """How many counted events should have been judged and are not: what is more than an open window holds.

        Each baseline has a window of its own, which stays open when a model with another one takes over.
        """
        left = self._counted.copy()
        for report in self._reports.values():
            left[report.baseline] -= report.n
        return sum(max(events - DRIFT_WINDOW_EVENTS + 1, 0) for events in left.values())

    def _take_partial(self, record: Record) -> None:
        partial = decoder(SeenPartial).decode(record.value or b"")
        self._counted[partial.baseline] += partial.n

    def _take_report(self, record: Record) -> None:
        report = decoder(SeenReport).decode(record.value or b"")
        self._reports[report.number] = report

    def _take_alert(self, record: Record) -> None:
        alert = decoder(SeenAlert).decode(record.value or b"")
        self._alerts[alert.id] = alert


def moved(reports: Sequence[SeenReport]) -> list[Moved]:
    """Return what has drifted in any of `reports`, which are in order; what moved first comes first."""
    named: dict[str, list[tuple[SeenColumn, SeenReport]]] = {}
    for report in reports:
        for column in report.drifted:
            named.setdefault(column.name, []).append((column, report))
    return [Moved(len(times), times[0][1], *max(times, key=lambda time: badness(time[0]))) for times in named.values()]


def lasting(reports: Sequence[SeenReport]) -> list[tuple[SeenColumn, int]]:
    """Return what the newest of `reports` names, the worst first, and when the windows began that all name it."""
    found = []
    for column in reports[-1].drifted if reports else ():
        since_ms = reports[-1].from_time_ms
        for report in reversed(reports):
            if column.name not in {other.name for other in report.drifted}:
                break
            since_ms = report.from_time_ms
        found.append((column, since_ms))
    return found


def badness(column: SeenColumn) -> tuple[int, float]:
    """Return what orders columns from the least to the most drifted: severity, then PSI."""
    return SEVERITY_RANKS[column.severity], column.psi or 0.0
