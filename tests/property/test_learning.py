"""A learner is a fold: however the samples are cut, and however often it is dumped and loaded, it ends up the same."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.learning.online import OnlineLearner, Samples, Settings, Update, open_learner
from ml.models import registry

ROWS = 400
STRATEGIES: dict[str, Settings] = {
    "incremental": Settings(strategy="incremental"),
    "mini_batch": Settings(strategy="mini_batch", batch_size=37, max_buffer=50),
    "mini_batch in a small buffer": Settings(strategy="mini_batch", batch_size=37, max_buffer=20),
    "periodic": Settings(strategy="periodic", max_buffer=41, period_ms=40_000),
    "adaptive": Settings(strategy="adaptive", batch_size=10, max_buffer=45, period_ms=44_000),
}
CASES = [
    ("river-logistic", 1, {}),
    ("river-logistic", 3, {}),
    ("river-hoeffding-tree", 1, {"grace_period": 20, "tau": 0.5}),
    ("river-adaptive-forest", 3, {"n_models": 2, "grace_period": 20}),
    ("xgboost-online", 1, {"max_rounds": 10}),
]


@pytest.fixture(autouse=True, scope="module")
def _packages_are_looked_for_once() -> Iterator[None]:
    """It takes 4 ms each time, most of what a restart costs, and is not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_installed", cache(registry._installed))
        yield


@cache
def _samples(classes: int) -> Samples:
    """Event times run about a second apart and now and then back; in the middle the labels turn around."""
    random = np.random.default_rng(classes)
    matrix = random.normal(size=(ROWS, 3)).astype(np.float32)
    labels = (matrix[:, 0] > 0).astype(np.int64) if classes == 1 else matrix.argmax(axis=1)
    labels[ROWS // 2 :] = (labels[ROWS // 2 :] + 1) % max(classes, 2)
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    times = np.cumsum(random.integers(0, 2000, ROWS)) + random.integers(-5000, 5000, ROWS) + 10**6
    served = random.random((ROWS,) if classes == 1 else (ROWS, classes))
    served[random.random(ROWS) < 0.1] = np.nan
    return Samples(
        offsets=np.cumsum(random.integers(1, 3, ROWS)),
        event_time_ms=times,
        label_time_ms=times + random.integers(0, 20_000, ROWS),
        matrix=matrix,
        labels=labels,
        weights=random.uniform(0.5, 2, ROWS),
        served=served,
    )


def _open(
    algorithm: str, classes: int, parameters: dict[str, Any], strategy: str, dumped: bytes | None
) -> OnlineLearner:
    settings = STRATEGIES[strategy]
    return open_learner(
        algorithm, 3, classes, parameters, settings, compare_samples=150, maturity_ms=30_000, dumped=dumped
    )


@cache
def _whole(case: int, strategy: str, triggers: tuple[int, ...]) -> tuple[bytes, tuple[Update, ...], Any]:
    """Take all samples in one go, but for the manual triggers, which stand in the log before these samples."""
    learner, updates = _open(*CASES[case], strategy, None), []
    for start, stop in zip((0, *triggers), (*triggers, ROWS), strict=True):
        updates += learner.take(_samples(CASES[case][1]).between(start, stop))
        updates += learner.trigger() if stop in triggers else []
    return learner.canonical(), tuple(updates), learner.standing()


POSITIONS = st.lists(st.integers(1, ROWS - 1), max_size=12, unique=True)


@pytest.mark.parametrize(
    ("case", "strategy"),
    [
        pytest.param(case, strategy, id=f"{algorithm}-{classes}-{strategy}")
        for case, (algorithm, classes, _) in enumerate(CASES)
        for strategy in STRATEGIES
        if (algorithm, strategy) != ("xgboost-online", "incremental")
    ],
)
@settings(max_examples=8, deadline=None)
@given(cuts=POSITIONS, restarts=POSITIONS, triggers=st.sampled_from([(), (200,), (5, 350)]))
def test_cuts_and_restarts_change_nothing(
    case: int, strategy: str, cuts: list[int], restarts: list[int], triggers: tuple[int, ...]
) -> None:
    algorithm, classes, parameters = CASES[case]
    learner, updates = _open(algorithm, classes, parameters, strategy, None), []
    ends = sorted({*cuts, *restarts, *triggers, ROWS})
    for start, stop in zip([0, *ends], ends, strict=False):
        updates += learner.take(_samples(classes).between(start, stop))
        updates += learner.trigger() if stop in triggers else []
        if stop in restarts:
            learner = _open(algorithm, classes, parameters, strategy, learner.dump())
    canonical, expected, standing = _whole(case, strategy, triggers)
    assert tuple(updates) == expected
    assert learner.canonical() == canonical
    assert learner.standing() == standing


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_samples_of_this_test_make_each_strategy_do_something(strategy: str) -> None:
    _, updates, standing = _whole(0, strategy, ())
    assert standing is not None
    reasons = {
        "incremental": set(),
        "mini_batch": {"batch"},
        "mini_batch in a small buffer": {"buffer_full"},
        "periodic": {"period", "buffer_full"},
        "adaptive": {"accuracy", "elapsed", "buffer_full"},
    }
    assert {update.reason for update in updates} == reasons[strategy]


def test_the_samples_of_this_test_make_trees_split_and_the_forest_replace_one() -> None:
    tree, forest = (_open(*CASES[case], "incremental", None) for case in (2, 3))
    for learner, classes in ((tree, 1), (forest, 3)):
        learner.take(_samples(classes))
    assert tree.model._classifier.n_nodes > 20  # type: ignore[attr-defined]
    assert forest.model._classifier.n_drifts_detected() > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "incremental"])
def test_every_sample_is_learnt_once_and_in_order(strategy: str) -> None:
    _, updates, _ = _whole(0, strategy, ())
    offsets, position = _samples(1).offsets, 0
    for update in updates:
        assert offsets[position] == update.first_offset
        position += update.samples
        assert offsets[position - 1] == update.last_offset
        assert update.samples <= STRATEGIES[strategy].max_buffer
