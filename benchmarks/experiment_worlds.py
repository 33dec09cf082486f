"""Simulated experiments: samples in the order in which their labels come, through buckets as entities have them.

The outcome of an event is whether its prediction is right, so the metric is accuracy. Half of the labels are 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.tally import Scoring
from ml.experiments.assignment import bucket_counts, buckets_of, expanded, initial_table, reshared
from ml.experiments.monitor import Outcomes, Rules

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BASE: Final = 0.30  # share of right predictions
LIFT: Final = 0.05
EVENT_MS: Final = 10  # between two events, so that a cohort without waiting has 100
RIPENS_MS: Final = 60_000
LATE_RIPENS_MS: Final = 180_000  # in the world of late positives, as long as 18,000 events take
_PER_ENTITY: Final = 20
_PRECISION: Final = 1.0  # of the Beta distribution of entities: their events correlate by 1 / (1 + it)
_VARIANTS: Final = ("champion", "challenger")


@dataclass(frozen=True, slots=True)
class World:
    """What a simulation draws: `draw` gives the samples of a number of mature labels, and the bucket tables."""

    name: str
    rules: Rules
    draw: Callable[[np.random.Generator, int], tuple[Outcomes, list[NDArray[np.int16]]]]


def worlds() -> dict[str, World]:
    """Return the worlds by name."""
    at_once = _rules(0)
    found = [
        World("same", at_once, lambda random, labels: _independent(random, labels, 0.0)),
        World("same_early", _rules(0, min_samples=100), lambda random, labels: _independent(random, labels, 0.0)),
        World("lift", at_once, lambda random, labels: _independent(random, labels, LIFT)),
        World("clustered", _rules(RIPENS_MS), _clustered),
        World("late_positives", _rules(LATE_RIPENS_MS), _late_positives),
        World("late_positives_at_once", at_once, lambda random, labels: _at_once(*_late_positives(random, labels))),
    ]
    return {world.name: world for world in found}


def _rules(ripens_ms: int, min_samples: int = 1000) -> Rules:
    """Return the defaults of a plan, whose target is accuracy."""
    scoring = Scoring("binary", 2, 0.5)
    return Rules(
        "experiment", _VARIANTS, scoring=scoring, metric="accuracy", ripens_ms=ripens_ms, min_samples=min_samples
    )


@lru_cache(maxsize=2)
def _keys(n: int) -> tuple[bytes, ...]:
    return tuple(f"entity-{number}".encode() for number in range(n))


def _buckets(random: np.random.Generator, entities: int) -> Ints:
    """Return the bucket of each entity of an experiment with a salt of its own."""
    return buckets_of(_keys(entities), f"simulated/{random.integers(2**62)}")


def _independent(random: np.random.Generator, labels: int, lift: float) -> tuple[Outcomes, list[NDArray[np.int16]]]:
    """Every event is another entity's, its label is there at once, and half of the buckets are the challenger's."""
    n = labels + 100
    table = expanded(initial_table(bucket_counts([0.5, 0.5])))
    buckets = _buckets(random, n)
    variants = table[buckets].astype(np.int64)
    right = random.random(n) < BASE + lift * variants
    times_ms = EVENT_MS * np.arange(n)
    truth = (random.random(n) < 0.5).astype(np.int64)
    return _outcomes(np.zeros(n, dtype=np.int64), variants, buckets, truth, right, times_ms, times_ms), [table]


def _clustered(random: np.random.Generator, labels: int) -> tuple[Outcomes, list[NDArray[np.int16]]]:
    """Both variants are the same; 20 events of an entity, at any time, are alike, and wrong ones are known later.

    How often an entity's events are right is Beta-distributed, their correlation is ½. All entities become better with
    time, and the challenger's share goes from 10 to 50 % after a third of it.
    """
    n = labels + _behind(RIPENS_MS)
    entities = -(-n // _PER_ENTITY)
    entity = random.permutation(np.repeat(np.arange(entities), _PER_ENTITY))[:n]
    often = random.beta(BASE * _PRECISION, (1 - BASE) * _PRECISION, entities)[entity]
    right = random.random(n) < often * (0.75 + 0.25 * np.arange(n) / n)
    tables, epochs = _growing(n)
    buckets = _buckets(random, entities)[entity]
    variants = np.stack(tables)[epochs, buckets].astype(np.int64)
    times_ms = EVENT_MS * np.arange(n)
    truth = (random.random(n) < 0.5).astype(np.int64)
    label_times_ms = times_ms + _delays_ms(random, ~right, RIPENS_MS)
    return _outcomes(epochs, variants, buckets, truth, right, times_ms, label_times_ms), tables


def _late_positives(random: np.random.Generator, labels: int) -> tuple[Outcomes, list[NDArray[np.int16]]]:
    """Both variants are right equally often, but the challenger more often with positives, which are known later."""
    n = labels + _behind(LATE_RIPENS_MS)
    tables, epochs = _growing(n)
    buckets = _buckets(random, n)
    variants = np.stack(tables)[epochs, buckets].astype(np.int64)
    truth = (random.random(n) < 0.3).astype(np.int64)
    # 0.7 · 0.8 + 0.3 · 0.4 = 0.68 = 0.7 · 0.7 + 0.3 · 0.19 / 0.3
    often = np.array([[0.8, 0.4], [0.7, 0.19 / 0.3]])[variants, truth]
    right = random.random(n) < often
    times_ms = EVENT_MS * np.arange(n)
    label_times_ms = times_ms + _delays_ms(random, truth == 1, LATE_RIPENS_MS)
    return _outcomes(epochs, variants, buckets, truth, right, times_ms, label_times_ms), tables


def _at_once(outcomes: Outcomes, tables: list[NDArray[np.int16]]) -> tuple[Outcomes, list[NDArray[np.int16]]]:
    """Return the same samples as if each event were as late as its label: so it counts as soon as it is labelled."""
    columns = {name: getattr(outcomes, name) for name in Outcomes.__slots__}
    return Outcomes(**columns | {"event_times_ms": outcomes.label_times_ms}), tables


def _growing(n: int) -> tuple[list[NDArray[np.int16]], Ints]:
    """Return the tables of a challenger at 10 and then 50 %, and the epoch of each event, shape (n,)."""
    small = initial_table(bucket_counts([0.9, 0.1]))
    tables = [expanded(small), expanded(reshared(small, bucket_counts([0.5, 0.5])))]
    return tables, (np.arange(n) >= n // 3).astype(np.int64)


def _delays_ms(random: np.random.Generator, slow: NDArray[np.bool_], most_ms: int) -> Ints:
    """Return how long labels take: a third of the longest on average where `slow`, else a thirtieth."""
    delays_ms = random.exponential(np.where(slow, most_ms / 3, most_ms / 30))
    return np.minimum(delays_ms, most_ms).astype(np.int64)


def _behind(ripens_ms: int) -> int:
    """Return how many events must come behind the last that counts, so that its cohort becomes mature."""
    return ripens_ms * 5 // 4 // EVENT_MS


def _outcomes(
    epochs: Ints,
    variants: Ints,
    buckets: Ints,
    truth: Ints,
    right: NDArray[np.bool_],
    times_ms: Ints,
    label_times_ms: Ints,
) -> Outcomes:
    order = np.argsort(label_times_ms, kind="stable")
    scores = np.where(right == (truth == 1), 0.8, 0.2)
    n = len(order)
    return Outcomes(
        epochs=epochs[order],
        variants=variants[order],
        buckets=buckets[order],
        revisions=np.zeros(n, dtype=np.int64),
        labels=truth[order],
        replaced=np.full(n, -1, dtype=np.int64),
        event_times_ms=times_ms[order],
        label_times_ms=label_times_ms[order],
        scores=scores[order],
        assumed=np.zeros(n, dtype=np.bool_),
    )
