"""Tallies: merged they are what one would have counted, and a corrected label leaves no trace of the one before."""

from typing import Any

import msgspec
import numpy as np
import pytest

from ml.evaluation.figures import decisions
from ml.evaluation.tally import CLIP, Scoring, Tally, growth_bytes

BINARY = Scoring("binary", 2, 0.5)
CLASSES = Scoring("multiclass", 4, 0.5)
ANOMALY = Scoring("anomaly", 2, 10.0)


def _drawn(scoring: Scoring, n: int, seed: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    return {
        "labels": rng.integers(0, scoring.classes, n),
        "scores": rng.dirichlet(np.ones(4), n) if scoring is CLASSES else scores * (20 if scoring is ANOMALY else 1),
        "delays_ms": rng.integers(-50, 10**6, n),
        "latencies_ms": rng.integers(0, 500, n),
    }


def _tally(scoring: Scoring, drawn: dict[str, Any], rows: Any) -> Tally:
    tally = Tally(scoring)
    tally.add(assumed=len(rows) // 7, **{name: column[rows] for name, column in drawn.items()})
    return tally


@pytest.mark.parametrize("scoring", [BINARY, CLASSES, ANOMALY], ids=lambda scoring: scoring.task)
def test_merged_parts_are_the_whole(scoring: Scoring) -> None:
    drawn = _drawn(scoring, 20_000)
    rows = np.random.default_rng(4).permutation(20_000)
    whole = _tally(scoring, drawn, np.arange(20_000))
    merged = _tally(scoring, drawn, rows[:7_000])
    merged.merge(Tally.restored(scoring, _tally(scoring, drawn, rows[7_000:14_000]).dump()))
    merged.merge(_tally(scoring, drawn, rows[14_000:]))
    figures = merged.figures()
    assert figures.n == 20_000
    assert figures.assumed == 1000 + 1000 + 857
    assert (figures.log_loss is None) == (scoring is ANOMALY)
    for name in figures.__struct_fields__:
        if name != "assumed":
            assert getattr(figures, name) == getattr(whole.figures(), name), name


@pytest.mark.parametrize("n", [1, 10, 1_000, 50_000])
@pytest.mark.parametrize("classes", [2, 4, 40, 300])
def test_its_weight_is_never_less_than_what_it_takes_at_rest(classes: int, n: int) -> None:
    rng, scoring = np.random.default_rng(n), Scoring("multiclass", classes, 0.5) if classes > 2 else BINARY
    guessed = rng.integers(0, classes, n)
    certain = np.eye(classes)[guessed] if classes > 2 else guessed.astype(np.float64)
    random = rng.dirichlet(np.ones(classes), min(n, 1_000)) if classes > 2 else rng.random(n)
    for scores in (certain, random):
        rows, tally = len(scores), Tally(scoring)
        tally.model_id = "m" * 120
        labels, delays_ms = rng.integers(0, classes, rows), rng.integers(0, 10**9, rows)
        tally.add(labels, scores, delays_ms, 0, rng.integers(0, 10**6, rows))
        assert len(msgspec.msgpack.encode(tally.dump())) <= tally.weight_bytes
        if rows == 1:
            assert tally.weight_bytes <= growth_bytes(scoring)


@pytest.mark.parametrize("scoring", [BINARY, CLASSES, ANOMALY], ids=lambda scoring: scoring.task)
def test_a_corrected_label_counts_as_if_it_had_been_the_first(scoring: Scoring) -> None:
    drawn = _drawn(scoring, 500)
    tally = _tally(scoring, drawn, np.arange(500))
    after = np.random.default_rng(5).integers(0, scoring.classes, 60)
    tally.correct(drawn["labels"][:60], after, drawn["scores"][:60], 50)
    right = _drawn(scoring, 500)
    right["labels"][:60] = after
    expected = _tally(scoring, right, np.arange(500)).figures()
    assert tally.figures().revised == 50
    for name in expected.__struct_fields__:
        if name != "revised":
            assert getattr(tally.figures(), name) == getattr(expected, name), name


def test_a_mistake_made_in_certainty_costs_no_more_than_the_clip() -> None:
    tally = Tally(BINARY)
    nothing = np.zeros(2, dtype=np.int64)
    tally.add(np.array([1, 0]), np.array([0.0, 1.0]), nothing, 0, None)
    assert tally.figures().log_loss == pytest.approx(-np.log(CLIP), rel=1e-9)
    assert tally.figures().calibration_error == 1.0
    assert tally.figures().latency_p50_ms is None


def test_an_empty_tally_has_no_figures() -> None:
    figures = Tally(BINARY).figures()
    assert figures.n == 0
    assert {getattr(figures, name) for name in figures.__struct_fields__[3:]} == {None}


def test_macro_figures_are_of_the_classes_that_occur() -> None:
    confusion = np.array([[3, 1, 0], [2, 0, 0], [0, 0, 0]])  # class 1 is never right, class 2 never there
    found = decisions(confusion)
    assert found["accuracy"] == 0.5
    assert found["recall"] == pytest.approx((3 / 4 + 0) / 2)
    assert found["precision"] == pytest.approx((3 / 5 + 0) / 2)
