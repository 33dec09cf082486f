"""What a whole replay comes to: the figures of both worlds on all labelled events, and how sure their difference is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from agents.evaluate import rules_of
from agents.replay.labelled import Pairs
from ml.evaluation.tally import Scoring
from ml.training.comparison import Difference, Metric, NotComparable, compare
from ml.training.measure import measure
from schemas.streams import StreamSpec, Task

_COMPARED: Final[Mapping[Task, tuple[Metric, ...]]] = {
    "binary": ("roc_auc", "accuracy", "log_loss", "brier"),
    "multiclass": ("accuracy", "log_loss", "brier"),
    "anomaly": ("roc_auc", "accuracy"),
}


@dataclass(frozen=True, slots=True)
class Overall:
    """Figures by name, as served and as replayed, and the differences: the replayed figure minus the served one."""

    events: int
    served: Mapping[str, float]
    replayed: Mapping[str, float]
    differences: tuple[Difference, ...]
    incomparable: Mapping[str, str]


def overall(spec: StreamSpec, changed: StreamSpec, pairs: Pairs) -> Overall:
    """Return the figures of `pairs`: each world decides by the threshold of its own declaration.

    Accuracy is compared by the decisions; what was served was decided by the threshold of its time.
    """
    table = pairs.table
    differences: list[Difference] = []
    incomparable: dict[str, str] = {}
    for metric in _COMPARED[spec.task]:
        scores, scoring = (pairs.replayed, table.served), rules_of(spec)[0]
        if metric == "accuracy" and spec.task != "multiclass":
            scores = pairs.decided.astype(np.float64), pairs.predicted.astype(np.float64)
            scoring = Scoring("binary", 2, 0.5)
        try:
            differences.append(compare(metric, *scores, table, scoring))
        except NotComparable as why:
            incomparable[metric] = str(why)
    return Overall(
        events=len(table),
        served=measure(table.served, table, rules_of(spec)[0]).metrics,
        replayed=measure(pairs.replayed, table, rules_of(changed)[0]).metrics,
        differences=tuple(differences),
        incomparable=incomparable,
    )
