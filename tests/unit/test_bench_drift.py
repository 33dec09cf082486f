"""The benchmark of drift notices wrong counts and other verdicts."""

import pytest

from agents.counting import Counting
from benchmarks.counting_cost import CountingCost
from benchmarks.drift import Judging, compare, draw_pairs
from benchmarks.evidently_peer import Said, Statistic
from stream.batches import Outbox

MOVED = [True, False] * 5


def said(by_psi: list[bool], by_ks: list[bool]) -> Said:
    return Said(Statistic([], by_psi), Statistic([], by_ks), [1.0], [1.0])


def test_our_verdicts_name_the_features_that_moved() -> None:
    pairs = {name: Judging(pair).verdicts() for name, pair in draw_pairs(seed=7).items()}
    both = {name: [p and k for p, k in zip(*verdicts, strict=True)] for name, verdicts in pairs.items()}
    assert both.pop("null") == [False] * 10
    assert list(both.values()) == [MOVED] * 3


def test_the_same_verdicts_agree_also_where_one_test_alone_does_not() -> None:
    ours = {"a": ([True, False], [True, True]), "b": ([False], [False])}
    found = compare(ours, {"a": said([False, False], [True, True]), "b": said([False], [False])})
    assert found == {
        "verdicts_agree": True,
        "verdicts": 3,
        "drifted": {"a": 2, "b": 0},
        "one_test_differs": {"a": {"psi": 1, "ks": 0}, "b": {"psi": 0, "ks": 0}},
    }


@pytest.mark.parametrize("theirs", [said([False, False], [False, False]), said([True, True], [True, False])])
def test_one_feature_with_another_verdict_is_named(theirs: Said) -> None:
    found = compare({"a": ([True, False], [True, False])}, {"a": theirs})
    assert not found["verdicts_agree"]
    assert len(found["verdicts_that_differ"]) == 1


def test_the_cost_of_counting_is_taken_of_counts_that_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = CountingCost(seed=1, trees=5)
    assert cost.measure(2, 300).differences == []

    def save_nothing(self: Counting, outbox: Outbox) -> None:
        saved = Outbox()
        save(self, saved)
        for target, records in saved.targets.items():
            outbox.extend(target.topic, target.partition, records[:0])

    save = Counting.save
    monkeypatch.setattr(Counting, "save", save_nothing)
    assert cost.measure(2, 300).differences
