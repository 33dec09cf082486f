"""What is shown of drift: the newest report with the figures of each column, and the alerts of the last 30 days."""

from collections.abc import Mapping, Sequence
from typing import Final

from agents.views.reading import KEPT_MS, Pieces, decoded, newest
from schemas.drift import ColumnDrift, DriftReport
from schemas.events import Alert
from schemas.wire import encode
from stores.view_keys import alert_key, report_key
from stores.views import Entry
from stream.batches import Record
from topics.specs import StreamTopics

MOST_ALERTS: Final = 1_000
FIGURES: Final = (
    "severity",
    "psi",
    "ks",
    "p_value",
    "wasserstein_scaled",
    "n",
    "missing_share",
    "unseen_share",
    "mean",
)


class Reports:
    """The fold of `<s>.drift`: its newest report."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._topic = StreamTopics(stream).drift
        self._entries: dict[str, Entry] = {}

    async def recall(self, pieces: Pieces, oldest_ms: int) -> None:
        """Read back to the newest report, however old it is."""
        async for records in pieces:
            self.take(records)
            if self._entries:
                return

    def take(self, records: Sequence[Record]) -> None:
        """Go on with later records."""
        if (report := newest(DriftReport, records, self._topic)) is None:
            return
        key = report_key(self._stream)
        self._entries = {key: Entry(encode(report))}
        for kind, columns in (("feature", report.features), ("prediction", report.predictions)):
            self._entries |= {f"{key}:{kind}:{column.name}": Entry(_figures(report, column)) for column in columns}

    def entries(self) -> Mapping[str, Entry]:
        """Return what is to be shown."""
        return self._entries


def _figures(report: DriftReport, column: ColumnDrift) -> dict[str, str | int | float]:
    found = {name: getattr(column, name) for name in FIGURES}
    known = {name: value for name, value in found.items() if value is not None}
    return {"number": report.number, "to_time_ms": report.to_time_ms, "judged": int(column.judged)} | known


class Alerts:
    """The fold of `<s>.alerts`: alerts of drift, at most the newest thousand.

    They go 30 days after their record, by the time that Kafka has for it: what they tell of may be long past.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._topic = StreamTopics(stream).alerts
        self._entries: dict[str, Entry] = {}  # the oldest first

    async def recall(self, pieces: Pieces, oldest_ms: int) -> None:
        """Read back 30 days, or a thousand alerts of drift."""
        found: list[dict[str, Entry]] = []
        kept: set[str] = set()
        async for records in pieces:
            found.append(self._drift_alerts(records))
            kept.update(found[-1])
            if records[0].timestamp < oldest_ms or len(kept) >= MOST_ALERTS:
                break
        for alerts in reversed(found):
            self._add(alerts)

    def take(self, records: Sequence[Record]) -> None:
        """Go on with later records."""
        self._add(self._drift_alerts(records))

    def entries(self) -> Mapping[str, Entry]:
        """Return what is to be shown."""
        return self._entries

    def _drift_alerts(self, records: Sequence[Record]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for record in records:
            alert = decoded(Alert, record, self._topic)
            if alert is not None and alert.kind == "drift":
                key = alert_key(self._stream, alert.id)
                found.pop(key, None)  # one that is told again is the newest
                found[key] = Entry(encode(alert), record.timestamp + KEPT_MS)
        return found

    def _add(self, alerts: Mapping[str, Entry]) -> None:
        for key, entry in alerts.items():
            self._entries.pop(key, None)
            self._entries[key] = entry
        while len(self._entries) > MOST_ALERTS:
            del self._entries[next(iter(self._entries))]
