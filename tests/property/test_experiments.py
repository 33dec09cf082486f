"""Properties of ml.experiments: however samples come, what is known of them is the same, and variances are right."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ml.evaluation.tally import Scoring
from ml.experiments.assignment import BUCKETS, bucket_counts, expanded, initial_table, reshared
from ml.experiments.contrast import estimates
from ml.experiments.monitor import Counted, Monitor, Outcomes, Rules
from ml.experiments.outcomes import Counts, values_of

RIPENS_MS = 16_000
SMALL = initial_table(bucket_counts([0.7, 0.2, 0.1]))
TABLES = [expanded(SMALL), expanded(reshared(SMALL, bucket_counts([0.3, 0.5, 0.2])))]
RULES = Rules(
    "experiment",
    ("champion", "b", "c"),
    scoring=Scoring("binary", 2, 0.5),
    metric="accuracy",
    guard_metrics=("log_loss", "cost"),
    false_negative_cost=3.0,
    min_samples=5,
    ripens_ms=RIPENS_MS,
)


def draw(seed: int, n: int, late: bool = False) -> Outcomes:
    """Return n samples of few entities; about one in ten is a revision of one before it."""
    random = np.random.default_rng(seed)
    epochs = np.sort(random.integers(0, len(TABLES), n))
    buckets = random.integers(0, 40, n) * 250
    times_ms = np.sort(random.integers(0, 60_000, n))
    delays_ms = random.integers(0, 3 * RIPENS_MS if late else RIPENS_MS, n)
    outcomes = Outcomes(
        epochs=epochs,
        variants=np.stack(TABLES)[epochs, buckets].astype(np.int64),
        buckets=buckets,
        revisions=np.zeros(n, dtype=np.int64),
        labels=random.integers(0, 2, n),
        replaced=np.full(n, -1, dtype=np.int64),
        event_times_ms=times_ms,
        label_times_ms=times_ms + delays_ms,
        scores=random.random(n).round(2),
        assumed=random.random(n) < 0.1,
    )
    revised = np.flatnonzero(random.random(n) < 0.1)
    again = revise(outcomes.take(revised), random.integers(0, 2, len(revised)))
    both = Outcomes.joined([outcomes, again])
    return both.take(np.argsort(both.label_times_ms, kind="stable"))


def revise(outcomes: Outcomes, labels: np.ndarray) -> Outcomes:
    """Return the revisions, a millisecond later, that give these samples other labels."""
    return replace(
        outcomes,
        labels=labels,
        replaced=outcomes.labels,
        revisions=outcomes.revisions + 1,
        label_times_ms=outcomes.label_times_ms + 1,
    )


def closing(at_ms: int = 1_000_000) -> Outcomes:
    """Return a sample whose label makes everything before it mature."""
    one = draw(0, 1).take(np.array([0]))
    time_ms = np.array([at_ms])
    return replace(one, event_times_ms=time_ms, label_times_ms=time_ms)


def fed(parts: list[Outcomes], rules: Rules = RULES) -> Monitor:
    monitor = Monitor(rules, TABLES)
    for part in parts:
        monitor.take(part)
    return monitor


def cut(outcomes: Outcomes, places: list[int]) -> list[Outcomes]:
    edges = [0, *sorted(place % (len(outcomes) + 1) for place in places), len(outcomes)]
    return [outcomes.take(np.arange(start, stop)) for start, stop in pairwise(edges)]


@given(st.integers(0, 10**6), st.integers(1, 300), st.lists(st.integers(0, 400), max_size=8), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_cut_with_a_restart_between_any_two_batches_gives_the_same_look(
    seed: int, n: int, places: list[int], late: bool
) -> None:
    outcomes = draw(seed, n, late)
    counted = Counted(epoch=1, variant=1, n=30, errors=2, calls=3, call_us=999, scores=[1] * 20)
    at_once = fed([outcomes])
    at_once.count([counted])
    monitor = Monitor(RULES, TABLES)
    monitor.count([counted])
    for part in cut(outcomes, places):
        monitor.take(part)
        monitor.look()
        restarted = Monitor(RULES, TABLES)
        restarted.load(monitor.dump())
        assert restarted.dump() == monitor.dump()
        monitor = restarted
    assert monitor.look() == at_once.look()
    assert monitor.dump() == at_once.dump()
    assert monitor.missed == at_once.missed


@given(st.integers(0, 10**6), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_samples_of_a_cohort_may_come_in_any_order(seed: int, n: int) -> None:
    outcomes = draw(seed, n)
    shuffled = np.random.default_rng(seed).permutation(len(outcomes))
    # Event times in one cohort of 2 s, and no label beyond the time that labels may take.
    near = replace(
        outcomes,
        event_times_ms=outcomes.event_times_ms % 2000 + 10_000,
        label_times_ms=outcomes.label_times_ms % RIPENS_MS + 12_000 - 1,
    )
    looks = [fed([each, closing()]).look() for each in (near, near.take(shuffled))]
    assert looks[0] == looks[1]
    assert looks[0].samples == int((outcomes.revisions == 0).sum())


@given(st.integers(0, 10**6), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_a_revision_equals_having_had_the_right_label_from_the_start(seed: int, n: int) -> None:
    wrong = draw(seed, n)
    wrong = wrong.take(np.flatnonzero(wrong.revisions == 0))
    right = np.random.default_rng(seed + 1).integers(0, 2, n)
    corrected = Outcomes.joined([wrong, revise(wrong, right)])
    in_order = corrected.take(np.argsort(corrected.label_times_ms, kind="stable"))
    assert fed([in_order, closing()]).look() == fed([replace(wrong, labels=right), closing()]).look()


def parts_of(outcomes: Outcomes, rules: Rules = RULES) -> list:
    counts = Counts(rules)
    counts.add(outcomes)
    return [(stratum, TABLES[epoch].astype(np.intp)) for epoch, stratum in counts.strata().items()]


@given(st.integers(0, 10**6), st.integers(20, 300))
@settings(max_examples=40, deadline=None)
def test_the_variance_is_the_sum_of_the_squared_influence_of_buckets_though_they_move_between_arms(
    seed: int, n: int
) -> None:
    outcomes = draw(seed, n)
    outcomes = outcomes.take(np.flatnonzero(outcomes.revisions == 0))
    for challenger in (1, 2):
        for metric, found in enumerate(estimates(parts_of(outcomes), challenger)):
            values = values_of(RULES, outcomes.labels, outcomes.scores)[metric]
            difference, variance = by_hand(outcomes, values, challenger)
            assert found.difference == pytest.approx(difference, abs=1e-8)
            assert found.variance == pytest.approx(variance, rel=1e-6)


def by_hand(outcomes: Outcomes, values: np.ndarray, challenger: int) -> tuple[float, float]:
    """Return the stratified difference and its variance, event by event."""
    strata = []
    for epoch in (0, 1):
        arms = [np.flatnonzero((outcomes.epochs == epoch) & (outcomes.variants == v)) for v in (0, challenger)]
        if all(map(len, arms)):
            strata.append((len(arms[0]) * len(arms[1]) / (len(arms[0]) + len(arms[1])), arms))
    total = sum(weight for weight, _ in strata)
    difference, influence = 0.0, np.zeros(BUCKETS)
    for weight, arms in strata:
        for sign, rows in zip((-1, 1), arms, strict=True):
            mean = values[rows].mean()
            difference += sign * weight / total * mean
            for row in rows:
                influence[outcomes.buckets[row]] += sign * weight / total * (values[row] - mean) / len(rows)
    involved = np.concatenate([rows for _, arms in strata for rows in arms])
    m = len(np.unique(outcomes.buckets[involved]))
    least = 1 / len(involved) / total  # as if one event of all had been the worst, the others the best
    return difference, max(float((influence**2).sum()) * m / max(m - 1, 1), least)


@given(st.integers(0, 10**6), st.integers(20, 400))
@settings(max_examples=30, deadline=None)
def test_with_one_event_in_each_bucket_the_variance_is_that_of_welch(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    buckets = random.permutation(BUCKETS)[:n]
    some = draw(seed, n)
    some = replace(
        some.take(np.flatnonzero(some.revisions == 0)),
        buckets=buckets,
        epochs=np.ones(n, dtype=np.int64),
        variants=TABLES[1][buckets].astype(np.int64),
    )
    losses = values_of(RULES, some.labels, some.scores)[1]
    arms = [losses[some.variants == variant] for variant in (0, 1)]
    if min(map(len, arms)) < 5:
        return
    found = estimates(parts_of(some), 1)[1]
    m = len(arms[0]) + len(arms[1])
    textbook = sum(arm.var() / len(arm) for arm in arms) * m / (m - 1)
    least = sum(1 / len(arm) for arm in arms) / m
    assert found.variance == pytest.approx(max(textbook, least), rel=1e-6)
    rules = replace(RULES, metric="log_loss", guard_metrics=("accuracy",), min_samples=5)
    test = fed([some, closing()], rules).look().contrasts[0].fixed["welch"]
    assert test == pytest.approx(stats.ttest_ind(arms[1], arms[0], equal_var=False).pvalue, rel=1e-5)


def test_the_columns_of_samples_are_all_taken_and_joined() -> None:
    outcomes = draw(3, 50)
    halves = cut(outcomes, [20])
    for column in fields(Outcomes):
        np.testing.assert_array_equal(getattr(Outcomes.joined(halves), column.name), getattr(outcomes, column.name))
