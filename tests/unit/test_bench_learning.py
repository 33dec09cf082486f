"""The benchmark of joining and learning: its rate, and the checks that its figures rely on."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler
from river.tree import HoeffdingTreeClassifier

from benchmarks import synthetic
from benchmarks.bare_learner import PROBES, Learnt, learn, logistic_numbers, tree_numbers
from benchmarks.learn_checker import learning_rate, model_differences, sample_differences
from benchmarks.plain import Row
from ml.models.protocol import Learner
from ml.models.registry import learner_type

VALUES = synthetic.draw(4_000, seed=5).astype(np.float32)
LABELS = synthetic.labels(VALUES.astype(float), seed=5)
SCORES = {f"e{n}": n / 10 for n in range(20)}
TRUTH = {f"e{n}": n % 2 for n in range(20)}


def features_of(event_id: str) -> tuple[float | None, ...]:
    return (float(event_id[1:]), None)


def row(number: int, time_ms: int = 0, **changes: Any) -> Row:
    sample = {
        "event_id": f"e{number}",
        "label": number % 2,
        "features": [number, None],
        "revision": 0,
        "score": number / 10,
    }
    return Row(b"s", msgspec.json.encode(sample | changes), 0, number, time_ms)


ROWS = [row(number) for number in range(20)]


def faults(rows: Sequence[Row]) -> list[str]:
    return sample_differences(SCORES, TRUTH, features_of, rows)


def test_one_right_sample_per_event_in_any_order_is_right() -> None:
    assert faults(ROWS[::-1]) == []


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(ROWS[1:], id="an event without a sample"),
        pytest.param([*ROWS, ROWS[4]], id="a sample twice"),
        pytest.param([*ROWS[1:], row(0, label=1)], id="another label"),
        pytest.param([*ROWS[1:], row(0, features=[1, None])], id="other features"),
        pytest.param([*ROWS[1:], row(0, score=0.5)], id="another score"),
        pytest.param([*ROWS[1:], row(0, revision=1)], id="a revision"),
        pytest.param([*ROWS[1:], row(0, assumed=True)], id="an assumed label"),
        pytest.param([*ROWS, row(99)], id="an event that nobody sent"),
    ],
)
def test_every_fault_of_a_sample_is_found(rows: list[Row]) -> None:
    assert faults(rows)


def update(samples: int, time_ms: int, action: str = "published") -> Row:
    value = msgspec.json.encode({"action": action, "samples": samples})
    return Row(b"s", value, 0, samples, time_ms)


def test_the_rate_is_between_the_snapshots_at_a_tenth_and_at_nine_tenths() -> None:
    steady = [update(1_000 * n, 5_000 + 10 * n) for n in range(2, 20)]
    slow_start, slow_end = update(1_000, 0), update(20_000, 99_000)
    assert learning_rate([slow_start, *steady, slow_end]) == pytest.approx(100_000)


def test_snapshots_that_are_kept_back_count_and_pruned_ones_do_not() -> None:
    told = [update(1_000 * n, 10 * n, "kept_back" if n % 2 else "published") for n in range(1, 21)]
    assert learning_rate([*told, *(update(1, 9_999, "pruned") for _ in range(20))]) == pytest.approx(100_000)


def test_too_few_snapshots_give_no_rate() -> None:
    with pytest.raises(ValueError, match="9 snapshots are too few"):
        learning_rate([update(1_000 * n, n) for n in range(9)])


def bare(kind: str, skip: int = 0, twice: int = 0) -> Learnt:
    """What a bare river loop learns of VALUES; it may leave one row out or take one twice."""
    samples = [
        ({name: v for name, v in zip(synthetic.FEATURES, values, strict=True) if v == v}, label)
        for values, label in zip(VALUES.tolist(), LABELS, strict=True)
    ]
    probes = samples[-PROBES:]
    given = samples[: 50 + twice] + samples[50:] if twice else samples[skip:]
    model: Any = StandardScaler() | LogisticRegression() if kind == "river-logistic" else HoeffdingTreeClassifier()
    eps = learn(model, given)
    if kind == "river-logistic":
        numbers = logistic_numbers(model["StandardScaler"], model["LogisticRegression"], synthetic.FEATURES)
    else:
        numbers = tree_numbers(model)
    return Learnt(eps, numbers, [model.predict_proba_one(x).get(1, 0.0) for x, _ in probes])


def taught(kind: str) -> Learner:
    model = learner_type(kind)(VALUES.shape[1])
    model.learn(VALUES, np.array(LABELS))
    return model


KINDS = pytest.mark.parametrize("kind", ["river-logistic", "river-hoeffding-tree"])


@KINDS
def test_a_model_that_learnt_the_same_samples_as_the_bare_loop_has_the_same_numbers(kind: str) -> None:
    learnt = bare(kind)
    assert learnt.steady_eps > 0
    assert len(learnt.numbers) > 3
    assert model_differences(taught(kind), learnt, VALUES[-PROBES:]) == []


@KINDS
@pytest.mark.parametrize("fault", [{"skip": 1}, {"twice": 1}], ids=["skip", "twice"])
def test_one_sample_too_few_or_too_many_is_found(kind: str, fault: dict[str, int]) -> None:
    found = model_differences(taught(kind), bare(kind, **fault), VALUES[-PROBES:])
    assert any("bare loop has" in each for each in found)
    assert any("score differently" in each for each in found)
