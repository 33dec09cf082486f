"""The simulations of benchmarks/experiments.py, small."""

import numpy as np
import pytest

from benchmarks import experiments
from benchmarks.experiment_worlds import worlds
from benchmarks.experiments import Told, beyond_limits, simulate, z_labels, z_power
from ml.experiments.monitor import Outcomes


def drawn(name: str) -> Outcomes:
    return worlds()[name].draw(np.random.default_rng(5), 10_000)[0]


def test_a_lift_is_found_and_nothing_is_not() -> None:
    lifted = [simulate("lift", 8_000, seed) for seed in range(6)]
    assert sum(told.verdict == "better" for told in lifted) >= 5
    assert all(told.labels is None or told.labels >= 2000 for told in lifted)
    assert not any(simulate("same", 6_000, seed).verdict for seed in range(6))


def test_a_z_test_is_fooled_by_entities_of_many_events_and_the_sequence_is_not() -> None:
    told = [simulate("clustered", 10_000, seed) for seed in range(8)]
    assert sum(each.z_false for each in told) >= 3
    assert not any(each.verdict for each in told)


def test_waiting_for_late_labels_makes_the_difference() -> None:
    assert not any(simulate("late_positives", 6_000, seed).verdict for seed in range(3))
    assert simulate("late_positives_at_once", 12_000, 1).verdict == "worse"


def test_the_worlds_are_what_they_say() -> None:
    lift = drawn("lift")
    right = (lift.scores >= 0.5) == (lift.labels == 1)
    assert [right[lift.variants == variant].mean() for variant in (0, 1)] == pytest.approx([0.30, 0.35], abs=0.02)
    clustered = drawn("clustered")
    wrong = (clustered.scores >= 0.5) != (clustered.labels == 1)
    delays_ms = clustered.label_times_ms - clustered.event_times_ms
    assert delays_ms[wrong].mean() > 5 * delays_ms[~wrong].mean()
    assert (np.diff(clustered.label_times_ms) >= 0).all()
    late = drawn("late_positives")
    right = (late.scores >= 0.5) == (late.labels == 1)
    assert [right[late.variants == variant].mean() for variant in (0, 1)] == pytest.approx([0.68, 0.68], abs=0.02)


def test_figures_beyond_their_limits_are_named() -> None:
    fine = {"aa_false": 0.03, "aa_false_clustered": 0.05, "z_false": 0.3, "found": 0.95, "wrong": 0, "assign_us": 0.1}
    assert beyond_limits(fine) == []
    bad = fine | {"aa_false": 0.051, "z_false": 0.1, "found": 0.8}
    assert beyond_limits(bad) == ["aa_false", "z_false", "found"]


def test_figures_come_from_what_was_told() -> None:
    none, found = Told("", None, True, True, False), Told("better", 3000, False, False, True)
    told = {name: [none] for name in ("clustered", "same_early", "late_positives", "late_positives_at_once")}
    figures = experiments._figures(told | {"same": [none, found], "lift": [found, found, Told("worse", 1, 0, 0, 0)]})
    assert (figures["aa_false"], figures["z_false"]) == (0.5, 0.5)
    assert figures["found"] == pytest.approx(2 / 3)
    assert figures["labels_until_found"]["p50"] == 3000


def test_the_power_of_a_z_test_is_that_of_the_textbook() -> None:
    # 30 against 35 %, two-sided 5 %, 80 % power: 1,377 of each (Fleiss, Levin and Paik 2003, without correction).
    assert z_labels(0.8) == 2800
    assert z_power(2 * 1377) == pytest.approx(0.80, abs=0.002)
    assert z_power(10_000) > 0.99
