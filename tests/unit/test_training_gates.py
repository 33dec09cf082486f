"""Which candidates may go on, and what is said of the others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ml.training.comparison import Difference
from ml.training.gates import Champion, Gate, GateRules, judge
from ml.training.measure import Measures, measure
from tests.tables import BINARY, table_of

RULES = GateRules(metric="roc_auc", min_gain=0.02, alpha=0.05)


def measured() -> Measures:
    """Return measures with ROC AUC 13/16, precision 2/3 and recall 1/2."""
    labels, scores = [1, 1, 1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.4, 0.3, 0.7, 0.35, 0.2, 0.1]
    return measure(np.array(scores), table_of(labels), BINARY)


def difference(champion: float, candidate: float, half: float | None, metric: str = "roc_auc") -> Difference:
    """Return a difference whose interval reaches `half` to either side."""
    value = candidate - champion
    return Difference(
        metric=metric,
        candidate=candidate,
        champion=champion,
        value=value,
        low=None if half is None else value - half,
        high=None if half is None else value + half,
        alpha=0.05,
        entities=100.0,
    )


def against(rules: GateRules, found: Difference) -> Gate:
    """Return what the gate on the champion says."""
    (gate,) = judge(rules, measured(), Champion(difference=found))
    return gate


@pytest.mark.parametrize(
    ("limits", "failed"),
    [
        ({"min_auc": 0.8125, "min_precision": 0.66, "min_recall": 0.5}, set()),
        ({"min_auc": 0.8126, "min_precision": 0.66}, {"min_auc"}),
        ({"min_precision": 0.67, "min_recall": 0.51}, {"min_precision", "min_recall"}),
    ],
)
def test_a_candidate_must_reach_what_is_asked_of_any_model(limits: dict[str, float], failed: set[str]) -> None:
    gates = judge(replace(RULES, **limits), measured(), None)
    assert [gate.gate for gate in gates] == [*limits, "champion"]
    assert {gate.gate for gate in gates if not gate.passed} == failed
    for gate in gates[:-1]:
        assert gate.limit == limits[gate.gate]
        assert f"{gate.value:.4f} is {'below' if gate.gate in failed else 'at least'} {gate.limit:g}" in gate.message


def test_a_figure_that_the_test_rows_do_not_give_has_not_been_reached() -> None:
    nothing_predicted = replace(measured(), precision=None)
    gate, _ = judge(replace(RULES, min_precision=0.0), nothing_predicted, None)
    assert (gate.passed, gate.value) == (False, None)
    assert "do not say what its precision is" in gate.message


def test_before_the_first_champion_there_is_nothing_to_beat() -> None:
    gates = judge(replace(RULES, backtest=True), measured(), None)
    assert [(gate.gate, gate.passed) for gate in gates] == [("champion", True), ("backtest", True)]


@pytest.mark.parametrize(
    ("champion", "candidate", "half", "passed", "said"),
    [
        (0.70, 0.715, 0.01, True, "it is better"),
        (0.70, 0.715, 0.016, False, "that may be luck"),
        (0.70, 0.713, 0.001, False, "to be 2% better it must be at least 0.7140"),
        (0.70, 0.60, 0.01, False, "at least 0.7140"),
        (0.70, 0.90, None, False, "hardly more than one entity"),
        (0.99, 0.999, 0.001, False, "at least 1.0098, which no model can be"),
    ],
)
def test_a_gain_counts_when_it_is_large_enough_and_no_luck(
    champion: float, candidate: float, half: float | None, passed: bool, said: str
) -> None:
    gate = against(RULES, difference(champion, candidate, half))
    assert (gate.gate, gate.passed, gate.value) == ("champion", passed, candidate)
    assert gate.limit == pytest.approx(champion * 1.02)
    assert said in gate.message


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_of_a_loss_the_lower_is_the_better(metric: str) -> None:
    rules = GateRules(metric=metric, min_gain=0.1, alpha=0.05)
    assert against(rules, difference(0.5, 0.44, 0.05, metric)).passed
    lucky = against(rules, difference(0.5, 0.44, 0.07, metric))
    small = against(rules, difference(0.5, 0.46, 0.01, metric))
    worse = against(rules, difference(0.5, 0.60, 0.01, metric))
    assert not lucky.passed
    assert "may be luck" in lucky.message
    assert not small.passed
    assert "at most 0.4500" in small.message
    assert not worse.passed


def test_without_a_least_gain_any_gain_that_is_no_luck_counts() -> None:
    assert against(replace(RULES, min_gain=0.0), difference(0.7, 0.701, 0.0005)).passed
    assert not against(replace(RULES, min_gain=0.0), difference(0.7, 0.7, 0.0)).passed


def test_a_champion_that_cannot_be_compared_leaves_it_to_a_person() -> None:
    champion = Champion(incomparable="the champion takes other features")
    gates = judge(replace(RULES, backtest=True), measured(), champion)
    assert [gate.passed for gate in gates] == [False, False]
    assert gates[0].message == "the champion takes other features; whether it is better takes a person"


def test_where_no_entities_are_known_no_gain_is_sure() -> None:
    found = replace(difference(0.7, 0.9, None), entities_known=False)
    gate = against(RULES, found)
    assert not gate.passed
    assert "the samples have no entity_id, so whether that is luck cannot be told and takes a person" in gate.message


@pytest.mark.parametrize(
    ("has", "said"),
    [
        ({"known": 0.25}, "; the champion has learnt from 25.0% of these rows, which favours it"),
        ({"known": None}, "; what the champion has learnt from is not recorded"),
        ({"known": None, "as_served": True}, "so it counts with what was served at the time"),
    ],
)
def test_what_the_champion_knows_of_the_test_is_said(has: dict[str, Any], said: str) -> None:
    champion = Champion(difference=difference(0.70, 0.90, 0.01), **has)
    [gate] = judge(RULES, measured(), champion)
    assert gate.passed
    assert said in gate.message


@pytest.mark.parametrize(("own", "passed"), [(0, True), (3, True), (4, False)])
def test_a_candidate_may_not_raise_more_alerts_than_the_champion_when_that_is_asked(own: int, passed: bool) -> None:
    champion = Champion(difference=difference(0.7, 0.75, 0.01), alerts=(own, 3))
    gates = judge(replace(RULES, backtest=True), measured(), champion)
    assert [(gate.gate, gate.passed) for gate in gates] == [("champion", True), ("backtest", passed)]
    assert gates[1].message == f"replayed on the test rows it raises {own} alerts, and the champion 3"
    assert [gate.gate for gate in judge(RULES, measured(), champion)] == ["champion"]


def test_alerts_that_nobody_counted_do_not_pass() -> None:
    champion = Champion(difference=difference(0.7, 0.75, 0.01))
    _, backtest = judge(replace(RULES, backtest=True), measured(), champion)
    assert not backtest.passed
