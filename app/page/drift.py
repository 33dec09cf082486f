"""What is shown of drift: the newest judged window, and the PSI of its columns over the windows before it."""

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Final

import msgspec

from app.page.document import Column, Drift
from schemas.drift import ColumnDrift, DriftReport
from schemas.event import SEVERITY_RANKS

WINDOWS: Final = 60
MOST_COLUMNS: Final = 40
_DECIMALS: Final = 4


class DriftFold:
    """The fold of `<s>.drift`: its newest report, and one PSI for each column of each of the newest windows."""

    def __init__(self) -> None:
        self.newest: DriftReport | None = None
        self.told_ms = 0
        """Kafka's timestamp of the newest report."""
        self.columns: Mapping[str, ColumnDrift] = {}
        """The columns of the newest report by the names that alerts give them: those of predictions say so."""
        self._history: deque[dict[str, float | None]] = deque(maxlen=WINDOWS)
        self._judged: OrderedDict[int, str] = OrderedDict()
        self._shown: Drift | None = None

    def take(self, report: DriftReport, told_ms: int) -> None:
        """Go on with a later report; `told_ms` is Kafka's timestamp."""
        self.told_ms = told_ms
        predictions = {f"prediction {column.name}": column for column in report.predictions}
        self.newest, self.columns = report, {column.name: column for column in report.features} | predictions
        self._judged[report.to_time_ms] = report.model_id
        if len(self._judged) > WINDOWS:
            self._judged.popitem(last=False)
        self._history.append({name: _rounded(column.psi) for name, column in self.columns.items()})
        self._shown = None

    def model_at(self, to_time_ms: int) -> str | None:
        """Return whose window ended at this event time, as far as is known; else the model of the newest window."""
        return self._judged.get(to_time_ms, self.newest.model_id if self.newest else None)

    def drift(self, *, over: bool) -> Drift | None:
        """Return the newest window, its columns from the worst on, 40 at most; None before the first.

        It is `over` when its model scores no more.
        """
        if self._shown is None and self.newest is not None:
            self._shown = self._drift(self.newest)
        return msgspec.structs.replace(self._shown, over=over) if self._shown else None

    def _drift(self, report: DriftReport) -> Drift:
        worst = sorted(self.columns.items(), key=_badness, reverse=True)[:MOST_COLUMNS]
        return Drift(
            severity=report.severity,
            drifted_share=report.drifted_share,
            number=report.number,
            n=report.n,
            to_time_ms=report.to_time_ms,
            recommendation=report.recommendation,
            columns=tuple(self._column(name, column) for name, column in worst),
            model_id=report.model_id,
        )

    def _column(self, name: str, column: ColumnDrift) -> Column:
        return Column(
            name=name,
            severity=column.severity if column.judged else "none",
            reason=column.reason,
            bins=column.bins,
            reference=tuple(round(share, _DECIMALS) for share in column.reference),
            current=tuple(round(share, _DECIMALS) for share in column.current),
            history=tuple(window.get(name) for window in self._history),
        )


def _badness(named: tuple[str, ColumnDrift]) -> tuple[int, bool, float]:
    column = named[1]
    return (
        SEVERITY_RANKS[column.severity] if column.judged else 0,
        column.judged,
        -1.0 if column.psi is None else column.psi,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)
