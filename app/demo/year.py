"""What retraining was worth: the scores that were served, beside those that January's model would have given.

Both are of the same events, those that became samples. Flights of one day share their weather, so a day is what is
drawn, not a flight: the interval of the difference has the days as clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import xgboost
from numpy.typing import NDArray

from app.demo.champion import roc_auc
from app.demo.fault import FEATURE, KILOMETRES, Fault
from app.demo.feedback import Served
from app.demo.flights import FEATURES, LOCAL_TIME, Flights
from ml.evaluation.tally import Scoring
from ml.training.comparison import compare
from ml.training.table import Table

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """The ROC AUC of one month of the replay; None where only one class came back."""

    month: str
    samples: int
    static: float | None
    served: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Year:
    """ROC AUC over all samples: what January's model would have had, what was served, and the difference.

    `low` and `high` are the ends of the 95% interval of the difference. None while there is too little to tell.
    """

    static: float | None = None
    served: float | None = None
    low: float | None = None
    high: float | None = None
    months: tuple[Month, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return what `--json` writes into `auc`."""
        pairs = {"static": self.static, "served": self.served, "difference": self.difference}
        return {
            name: None if value is None else round(value, 4)
            for name, value in {**pairs, "low": self.low, "high": self.high}.items()
        }

    @property
    def difference(self) -> float | None:
        """How much higher the served AUC is."""
        return None if self.served is None or self.static is None else self.served - self.static

    def summary(self) -> str:
        """Return the result in a sentence."""
        if self.difference is None or self.low is None:
            return "Too few days have passed to compare what was served with January's model."
        verdict = "excludes 0" if self.low > 0 or (self.high or 0) < 0 else "includes 0"
        return (
            f"ROC AUC {self.served:.4f} as served, {self.static:.4f} with January's model alone: the difference "
            f"{self.difference:+.4f} has the 95% interval {self.low:+.4f} to {self.high:+.4f}, which {verdict}."
        )


def judge_year(flights: Flights, champion: xgboost.Booster, fault: Fault, served: Served) -> Year:
    """Return what retraining was worth; about 0.3 s for the whole year."""
    if np.unique(served.labels).size < 2:
        return Year()
    rows = _rows_of(flights, served.event_ids)
    static = static_scores(champion, flights, fault)[rows]
    times_ms = flights.event_time_ms[rows]
    table = Table(
        matrix=np.zeros((len(rows), 0), dtype=np.float32),
        labels=served.labels.astype(np.int64),
        weights=np.ones(len(rows)),
        event_time_ms=times_ms,
        entities=times_ms // _DAY_MS,
        served=served.scores,
    )
    found = compare("roc_auc", served.scores, static, table, Scoring("binary", 2, 0.5))
    return Year(
        static=found.champion,
        served=found.candidate,
        low=found.low,
        high=found.high,
        months=_months(times_ms, served.labels, static, served.scores),
    )


def static_scores(champion: xgboost.Booster, flights: Flights, fault: Fault) -> NDArray[np.float64]:
    """Return the champion's score of every flight, float64 (n,), of the features as they were sent."""
    features = flights.features.astype(np.float64)
    hit = [row for row in range(fault.first_row or len(flights), len(flights)) if fault.hits(flights, row)]
    column = FEATURES.index(FEATURE)
    features[hit, column] = np.round(features[hit, column] * KILOMETRES, 1)
    scores: NDArray[np.float64] = champion.inplace_predict(features.astype(np.float32)).astype(np.float64)
    return scores


def _rows_of(flights: Flights, event_ids: Sequence[str]) -> NDArray[np.int64]:
    places: Mapping[str, int] = {event_id: row for row, event_id in enumerate(flights.event_ids)}
    return np.array([places[event_id] for event_id in event_ids], dtype=np.int64)


def _months(
    times_ms: NDArray[np.int64],
    labels: NDArray[np.int8],
    static: NDArray[np.float64],
    served: NDArray[np.float64],
) -> tuple[Month, ...]:
    numbers = np.array([datetime.fromtimestamp(ms / 1000, LOCAL_TIME).month for ms in times_ms.tolist()])
    found = []
    for number in np.unique(numbers).tolist():
        of = numbers == number
        month = datetime(2013, number, 1, tzinfo=LOCAL_TIME).strftime("%b")
        month_auc = (_auc(labels[of], static[of]), _auc(labels[of], served[of]))
        found.append(Month(month=month, samples=int(of.sum()), static=month_auc[0], served=month_auc[1]))
    return tuple(found)


def _auc(labels: NDArray[np.int8], scores: NDArray[np.float64]) -> float | None:
    return roc_auc(labels, scores) if np.unique(labels).size == 2 else None
