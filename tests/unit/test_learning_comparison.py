"""How a learner compares with the version that serves."""

from typing import Any

import numpy as np
import pytest

from ml.learning.comparison import MAX_BLOCKS, Comparison, Standing
from ml.learning.samples import Samples


def _samples(
    rows: int, *, classes: int = 1, start_ms: int = 0, delay_ms: int = 0, served: Any = None, seed: int = 0
) -> tuple[Samples, np.ndarray]:
    """Return samples, an event each millisecond, and scores of a learner's own."""
    random = np.random.default_rng(seed)
    shape = (rows,) if classes == 1 else (rows, classes)
    times = np.arange(start_ms, start_ms + rows)
    samples = Samples(
        offsets=times,
        event_time_ms=times,
        label_time_ms=times + delay_ms,
        matrix=np.zeros((rows, 1), np.float32),
        labels=random.integers(max(classes, 2), size=rows),
        weights=np.ones(rows),
        served=random.random(shape) if served is None else np.full(shape, served),
    )
    return samples, random.random(shape)


def _brier(scores: np.ndarray, labels: np.ndarray) -> float:
    if scores.ndim == 1:
        return float(((scores - labels) ** 2).mean())
    return float(((scores - np.eye(scores.shape[1])[labels]) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("classes", [1, 3])
def test_it_is_the_brier_score_of_both_over_the_same_samples(classes: int) -> None:
    samples, own = _samples(400, classes=classes)
    comparison = Comparison(wanted=400, maturity_ms=0)
    comparison.add(samples, own)
    standing = comparison.standing()
    assert standing is not None
    assert standing.samples == 400
    assert standing.own == pytest.approx(_brier(own, samples.labels), abs=1e-9)
    assert standing.served == pytest.approx(_brier(samples.served, samples.labels), abs=1e-9)


def test_only_the_newest_samples_count() -> None:
    (old, old_own), (new, new_own) = _samples(500, seed=1), _samples(200, start_ms=500, seed=2)
    comparison = Comparison(wanted=200, maturity_ms=0)
    comparison.add(old, old_own)
    comparison.add(new, new_own)
    assert comparison.standing() == Standing(
        200, pytest.approx(_brier(new_own, new.labels)), pytest.approx(_brier(new.served, new.labels))
    )


def test_samples_whose_events_may_still_get_labels_do_not_count() -> None:
    (old, old_own), (young, young_own) = _samples(200, seed=1), _samples(300, start_ms=200, seed=2)
    comparison = Comparison(wanted=200, maturity_ms=301)
    comparison.add(old, old_own)
    assert comparison.standing() is None
    comparison.add(young, young_own)
    assert comparison.standing() is None, "the event at 199 ms is mature at 500 ms"
    one, one_own = _samples(1, start_ms=500)
    comparison.add(one, one_own)
    standing = comparison.standing()
    assert standing is not None
    assert standing.own == pytest.approx(_brier(old_own, old.labels))


def test_samples_that_nothing_else_scored_do_not_count() -> None:
    comparison = Comparison(wanted=100, maturity_ms=0)
    comparison.add(*_samples(1000, served=np.nan))
    assert comparison.standing() is None
    scored, own = _samples(100, start_ms=1000)
    comparison.add(scored, own)
    assert comparison.standing() == Standing(
        100, pytest.approx(_brier(own, scored.labels)), pytest.approx(_brier(scored.served, scored.labels))
    )


def test_what_is_no_longer_needed_is_dropped() -> None:
    comparison = Comparison(wanted=250, maturity_ms=0)
    for start in range(0, 10_000, 1000):
        comparison.add(*_samples(1000, start_ms=start))
    assert len(comparison.closed) == 3
    assert comparison.block_size == 100


def test_while_nothing_is_mature_blocks_become_larger_and_lose_nothing() -> None:
    rows = 300 * MAX_BLOCKS
    samples, own = _samples(rows)
    comparison = Comparison(wanted=rows - 1000, maturity_ms=10 * rows)
    comparison.add(samples, own)
    assert len(comparison.closed) <= MAX_BLOCKS
    assert comparison.block_size == 400
    assert comparison.standing() is None
    comparison.add(*_samples(1, start_ms=20 * rows))
    standing = comparison.standing()
    assert standing is not None
    whole = sum(block.samples for block in comparison.closed)
    counted = slice(whole - standing.samples, whole)
    assert standing.own == pytest.approx(_brier(own[counted], samples.labels[counted]), abs=1e-9)


def test_it_does_not_depend_on_how_the_samples_come() -> None:
    samples, own = _samples(1234, delay_ms=7)
    whole, pieces = Comparison(wanted=300, maturity_ms=50), Comparison(wanted=300, maturity_ms=50)
    whole.add(samples, own)
    for start, stop in ((0, 1), (1, 99), (99, 100), (100, 101), (101, 950), (950, 1234)):
        pieces.add(samples.between(start, stop), own[start:stop])
    assert whole == pieces
