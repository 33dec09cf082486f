"""What an experiment is judged by, and what it is fed with."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.histogram import Floats, Ints
from ml.evaluation.tally import Scoring

Metric = Literal["accuracy", "brier", "log_loss", "cost"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the plan of an experiment says, and the stream's declaration. Plans are explained in schemas/experiments.py.

    `variants` begin with the champion. `guard_metrics` are others than `metric`. A sample is mature when the newest
    label time is `ripens_ms` past the end of its cohort.
    """

    kind: Literal["experiment", "rollout"]
    variants: tuple[str, ...]
    scoring: Scoring
    metric: Metric
    guard_metrics: tuple[Metric, ...] = ()
    false_positive_cost: float = 1.0
    false_negative_cost: float = 1.0
    alpha: float = 0.05
    margin: float = 0.01
    min_samples: int = 1000
    max_error_share: float | None = 0.01
    max_call_ms: float | None = 50.0
    max_score_psi: float | None = 1.0
    steps: tuple[float, ...] = ()
    automatic: bool = True
    ripens_ms: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The target and the guard metrics, each once."""
        return tuple(dict.fromkeys((self.metric, *self.guard_metrics)))

    @property
    def challengers(self) -> range:
        """The places of all variants but the champion."""
        return range(1, len(self.variants))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """n labelled samples in the order of their log: columns of shape (n,), int64 unless said otherwise.

    `epochs` and `buckets` are those of the event, `variants` the places in Rules.variants of the one that its entity
    was assigned to. `labels` and `replaced` are class indices; `replaced` is -1 where there is nothing to replace.
    `scores` are float64 of shape (n,), or (n, classes) when multiclass: what was served. `assumed` are bool.
    """

    epochs: Ints
    variants: Ints
    buckets: Ints
    revisions: Ints
    labels: Ints
    replaced: Ints
    event_times_ms: Ints
    label_times_ms: Ints
    scores: Floats
    assumed: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.epochs)

    def take(self, rows: Ints) -> "Outcomes":
        """Return the samples at `rows`; about 5 µs."""
        return Outcomes(*(column[rows] for column in _columns(self)))

    @classmethod
    def joined(cls, parts: "Sequence[Outcomes]") -> "Outcomes":
        """Return the samples of all parts, of which there is at least one."""
        return (
            parts[0]
            if len(parts) == 1
            else cls(*(np.concatenate(each) for each in zip(*map(_columns, parts), strict=True)))
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of scored events of one variant (its place in Rules.variants) in one epoch, without any label.

    As ServedCount in schemas/experiments.py. `scores` counts 20 equal cells, or is empty.
    """

    epoch: int
    variant: int
    n: int
    errors: int = 0
    calls: int = 0
    call_us: int = 0
    slow_calls: int = 0
    scores: Sequence[int] = ()


_COLUMNS = tuple(column.name for column in fields(Outcomes))


def _columns(outcomes: Outcomes) -> list[NDArray[Any]]:
    return [getattr(outcomes, name) for name in _COLUMNS]
