"""What a monitor says of an experiment or rollout: verdicts, guardrails, steps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ml.errors import CountsInvalid, ModelPayloadInvalid
from ml.evaluation.tally import Scoring
from ml.experiments.assignment import BUCKETS, bucket_counts, expanded, initial_table, reshared
from ml.experiments.monitor import LATE, MAX_EPOCHS, MISPLACED, UNKNOWN_EVENT, Counted, Monitor, Outcomes, Rules

HALVES = initial_table(bucket_counts([0.5, 0.5]))
TENTH = initial_table(bucket_counts([0.9, 0.1]))
RULES = Rules(
    "experiment", ("champion", "b"), scoring=Scoring("binary", 2, 0.5), metric="accuracy", min_samples=500, margin=0.02
)
ROLLOUT = replace(RULES, kind="rollout", steps=(0.1, 0.5, 1.0), margin=0.05)


def monitor_of(rules: Rules, *tables: Any) -> Monitor:
    return Monitor(rules, [expanded(table) for table in tables or (HALVES,)])


def outcomes_of(
    table: Any,
    shares: tuple[float, ...],
    n: int,
    epoch: int = 0,
    seed: int = 1,
    from_ms: int = 0,
    entities: int = BUCKETS,
) -> Outcomes:
    """Return n samples, 1 ms apart and labelled at once, of which this share is predicted rightly by variant."""
    random = np.random.default_rng(seed)
    buckets = random.integers(0, entities, n) * (BUCKETS // entities)
    variants = expanded(table)[buckets].astype(np.int64)
    right = random.random(n) < np.array(shares)[variants]
    labels = random.integers(0, 2, n)
    times_ms = from_ms + np.arange(n)
    return Outcomes(
        epochs=np.full(n, epoch),
        variants=variants,
        buckets=buckets,
        revisions=np.zeros(n, dtype=np.int64),
        labels=labels,
        replaced=np.full(n, -1),
        event_times_ms=times_ms,
        label_times_ms=times_ms,
        scores=np.where(right == (labels == 1), 0.9, 0.1),
        assumed=np.zeros(n, dtype=np.bool_),
    )


def look_at(rules: Rules, shares: tuple[float, ...], n: int, **others: Any) -> Any:
    monitor = monitor_of(rules)
    monitor.take(outcomes_of(HALVES, shares, n, **others))
    monitor.take(outcomes_of(HALVES, shares, 1, from_ms=n + 2000))
    return monitor.look()


def test_a_challenger_that_is_better_wins() -> None:
    look = look_at(RULES, (0.5, 0.65), 6000)
    assert (look.verdict, look.winner, look.step) == ("better", "b", "none")
    target = look.contrasts[0]
    assert target.low > 0
    assert target.p_value < RULES.alpha
    assert target.fixed["two_proportion_z"] < target.p_value  # one look is worth more than all of them
    assert look.variants[1].means["accuracy"] == pytest.approx(0.65, abs=0.03)
    assert look.variants[1].f1 == pytest.approx(0.65, abs=0.03)
    assert look.variants[1].roc_auc == pytest.approx(0.65, abs=0.03)


def test_a_challenger_that_is_worse_loses() -> None:
    look = look_at(RULES, (0.65, 0.5), 6000)
    assert (look.verdict, look.winner) == ("worse", "")


def test_there_is_no_winner_when_none_can_be_better_by_more_than_the_margin() -> None:
    assert look_at(replace(RULES, margin=0.2), (0.5, 0.5), 6000).verdict == "no_winner"
    assert look_at(RULES, (0.5, 0.5), 3000).verdict == "undecided"


def test_it_is_too_early_without_samples_of_each_variant_or_with_few_buckets() -> None:
    look = look_at(RULES, (0.2, 0.9), 800)
    assert look.verdict == "too_early"
    assert look.contrasts[0].low is None
    few = look_at(RULES, (0.2, 0.9), 6000, entities=40)
    assert few.verdict == "too_early"
    assert "buckets" in few.why
    assert look_at(RULES, (0.2, 0.9), 6000, entities=100).verdict == "better"


def test_buckets_count_for_as_many_as_equal_ones_they_are_worth() -> None:
    samples = outcomes_of(HALVES, (0.2, 0.9), 9000, entities=100)
    few = np.flatnonzero((samples.buckets % 5000 < 300) | (np.arange(9000) % 40 == 0))  # 2 × 3 of 100 have most of all
    monitor = monitor_of(replace(RULES, ripens_ms=10_000))
    monitor.take(Outcomes.joined([samples.take(few)] * 4))
    monitor.take(outcomes_of(HALVES, (0.2, 0.9), 1, from_ms=30_000))
    look = monitor.look()
    assert min(each.samples for each in look.variants) > RULES.min_samples
    assert min(each.buckets for each in look.variants) > 30
    assert (look.verdict, look.contrasts[0].low) == ("too_early", None)
    assert "which are worth" in look.why


def test_a_lower_loss_is_better() -> None:
    for metric in ("brier", "log_loss", "cost"):
        rules = replace(RULES, metric=metric, false_positive_cost=7.0, false_negative_cost=2.0)
        look = look_at(rules, (0.5, 0.7), 6000)
        assert look.verdict == "better", metric
        means = [each.means[metric] for each in look.variants]
        assert look.contrasts[0].difference == pytest.approx(means[0] - means[1])
    assert means == pytest.approx([4.5 * 0.5, 4.5 * 0.3], abs=0.3)


def test_models_that_are_never_wrong_are_found_to_be_alike() -> None:
    look = look_at(RULES, (1.0, 1.0), 6000)
    assert look.verdict == "no_winner"
    assert look.contrasts[0].low > -RULES.margin


def test_several_challengers_share_alpha() -> None:
    three = replace(RULES, variants=("champion", "b", "c"))
    table = initial_table(bucket_counts([0.4, 0.4, 0.2]))
    widths = []
    for rules in (three, replace(three, alpha=three.alpha / 2)):
        monitor = Monitor(rules, [expanded(table)])
        monitor.take(outcomes_of(table, (0.5, 0.5, 0.8), 9000))
        look = monitor.look()
        assert (look.verdict, look.winner) == ("better", "c")
        widths.append(look.contrasts[1].high - look.contrasts[1].low)
    assert widths[0] < widths[1]


def test_a_bucket_that_gets_more_samples_than_others_of_the_other_variant_is_told() -> None:
    monitor = monitor_of(RULES)
    samples = outcomes_of(HALVES, (0.5, 0.5), 9000)
    kept = np.flatnonzero((samples.variants == 0) | (np.random.default_rng(2).random(9000) < 0.8))
    monitor.take(samples.take(kept))
    look = monitor.look()
    assert look.verdict == "unequal_shares"
    assert look.sample_ratio_p < 0.001
    assert look_at(RULES, (0.5, 0.5), 9000).sample_ratio_p > 0.001


def test_a_variant_without_any_sample_is_an_unequal_share() -> None:
    monitor = monitor_of(RULES)
    samples = outcomes_of(HALVES, (0.5, 0.5), 4000)
    monitor.take(samples.take(np.flatnonzero(samples.variants == 0)))
    look = monitor.look()
    assert look.verdict == "too_early"
    assert look.sample_ratio_p < 0.001


def test_samples_wait_until_their_cohort_is_mature_and_are_late_after_that() -> None:
    rules = replace(RULES, ripens_ms=80_000)
    monitor = monitor_of(rules)
    monitor.take(outcomes_of(HALVES, (0.5, 0.5), 1000))
    monitor.take(outcomes_of(HALVES, (0.5, 0.5), 1, from_ms=89_999))
    assert (monitor.look().samples, monitor.look().ripening) == (0, 1001)
    monitor.take(outcomes_of(HALVES, (0.5, 0.5), 1, from_ms=90_000))
    assert (monitor.look().samples, monitor.look().ripening) == (1000, 2)
    monitor.take(outcomes_of(HALVES, (0.5, 0.5), 7))
    assert monitor.missed[LATE] == 7
    assert monitor.look().samples == 1000


def test_what_cannot_be_placed_is_not_counted_and_is_told() -> None:
    monitor = monitor_of(RULES)
    samples = outcomes_of(HALVES, (0.5, 0.5), 10)
    monitor.take(replace(samples, variants=1 - samples.variants))
    monitor.take(replace(samples, revisions=np.ones(10, dtype=np.int64)))
    assert (monitor.missed[MISPLACED], monitor.missed[UNKNOWN_EVENT]) == (10, 10)
    assert monitor.look().ripening == 0
    with pytest.raises(CountsInvalid, match="not begun"):
        monitor.take(replace(samples, epochs=samples.epochs + 1))
    with pytest.raises(CountsInvalid, match="epoch 1"):
        monitor.count([Counted(epoch=0, variant=0, n=1), Counted(epoch=1, variant=0, n=1)])
    assert monitor.look().variants[0].events == 0


def test_epochs_are_bounded_and_so_are_cohorts() -> None:
    monitor = monitor_of(replace(RULES, ripens_ms=80_000), *[HALVES] * MAX_EPOCHS)
    with pytest.raises(CountsInvalid, match="32 epochs"):
        monitor.add_epoch(expanded(HALVES))
    samples = outcomes_of(HALVES, (0.5, 0.5), 5000)
    monitor.take(replace(samples, event_times_ms=samples.event_times_ms * 10**6, label_times_ms=np.arange(5000) * 100))
    assert len(monitor._cohorts) <= 19


def test_a_dump_of_few_samples_is_small_and_one_of_another_experiment_is_refused() -> None:
    monitor = monitor_of(RULES, TENTH, HALVES)
    monitor.take(outcomes_of(TENTH, (0.5, 0.5), 20))
    dumped = monitor.dump()
    assert len(dumped) < 1500
    for other in (monitor_of(RULES), monitor_of(replace(RULES, guard_metrics=("brier",)), TENTH, HALVES)):
        with pytest.raises(ModelPayloadInvalid):
            other.load(dumped)
    with pytest.raises(ModelPayloadInvalid):
        monitor.load(b"nothing")
    later = monitor_of(RULES, TENTH, HALVES, TENTH)
    later.load(dumped)
    assert later.look().ripening == 20


def test_a_mean_that_moves_while_shares_do_is_no_difference() -> None:
    grown = reshared(TENTH, bucket_counts([0.5, 0.5]))
    monitor = monitor_of(RULES, TENTH, grown)
    monitor.take(outcomes_of(TENTH, (0.3, 0.3), 8000))
    monitor.take(outcomes_of(grown, (0.7, 0.7), 8000, epoch=1, from_ms=8000))
    look = monitor.look()
    assert look.variants[1].means["accuracy"] - look.variants[0].means["accuracy"] > 0.1
    assert abs(look.contrasts[0].difference) < 0.03
    assert look.verdict != "better"


def rollout_at(step: int, shares: tuple[float, float] = (0.5, 0.5), n: int = 20_000, rules: Rules = ROLLOUT) -> Monitor:
    """Return a rollout at this step, with n samples in each epoch."""
    tables = [TENTH, reshared(TENTH, bucket_counts([0.5, 0.5])), initial_table((0, BUCKETS))][: step + 1]
    monitor = monitor_of(rules, *tables)
    for epoch, table in enumerate(tables):
        monitor.take(outcomes_of(table, shares, n, epoch, from_ms=epoch * n, seed=epoch))
    return monitor


def test_a_rollout_advances_when_the_challenger_is_not_worse_and_is_promoted_at_the_end() -> None:
    assert rollout_at(0, n=2000).look().step == "hold"
    assert rollout_at(0).look().step == "advance"
    assert "50.00%" in rollout_at(0).look().why
    assert rollout_at(1).look().step == "advance"
    last = rollout_at(2)
    assert last.look().step == "hold"  # no event is known to have been scored at this share
    last.count([Counted(epoch=2, variant=1, n=500)])
    assert last.look().step == "promote"


def test_each_step_needs_samples_of_its_own() -> None:
    monitor = rollout_at(0)
    monitor.add_epoch(expanded(reshared(TENTH, bucket_counts([0.5, 0.5]))))
    look = monitor.look()
    assert look.step == "hold"
    assert "0 of 500" in look.why


def test_a_rollout_to_a_part_of_traffic_promotes_at_its_last_step() -> None:
    assert rollout_at(1, rules=replace(ROLLOUT, steps=(0.1, 0.5))).look().step == "promote"


def test_a_rollout_goes_back_when_the_challenger_is_worse() -> None:
    look = rollout_at(0, (0.6, 0.4)).look()
    assert (look.verdict, look.step) == ("worse", "roll_back")


def test_a_rollout_that_is_not_automatic_says_that_a_person_must_act() -> None:
    look = rollout_at(0, rules=replace(ROLLOUT, automatic=False)).look()
    assert look.step == "advance"
    assert "a person must" in look.why


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("errors", {"n": 100, "errors": 10}),
        ("latency", {"n": 100, "calls": 20, "slow_calls": 8}),
    ],
)
def test_a_broken_guardrail_takes_a_rollout_back_before_any_label(name: str, counted: dict[str, Any]) -> None:
    monitor = monitor_of(ROLLOUT, TENTH)
    monitor.count([Counted(epoch=0, variant=0, n=500, scores=[500] + [0] * 19)])
    assert monitor.look().step == "hold"
    monitor.count([Counted(epoch=0, variant=1, **counted)])
    look = monitor.look()
    assert (look.verdict, look.step) == ("broken_guardrail", "roll_back")
    assert [each.name for each in look.guardrails if not each.holds] == [name]
    assert f"b broke {name}" in look.why


def test_errors_and_latency_are_judged_in_the_current_epoch_and_from_a_few_on() -> None:
    monitor = monitor_of(ROLLOUT, TENTH)
    monitor.count([Counted(epoch=0, variant=1, n=4, errors=4, calls=19, slow_calls=19)])
    assert all(each.holds for each in monitor.look().guardrails)
    monitor.count([Counted(epoch=0, variant=1, n=1, errors=1, calls=1)])
    assert [each.holds for each in monitor.look().guardrails] == [False, False, True]
    monitor.add_epoch(expanded(HALVES))
    assert all(each.holds for each in monitor.look().guardrails)
    assert monitor.look().variants[1].errors == 5


def test_a_single_pause_takes_no_rollout_back() -> None:
    monitor = monitor_of(ROLLOUT, TENTH)
    monitor.count([Counted(epoch=0, variant=1, n=2020, calls=101, call_us=6_200_000, slow_calls=1)])
    latency = monitor.look().guardrails[1]
    assert (latency.name, latency.holds, latency.limit) == ("latency", True, 0.1)
    assert latency.value == pytest.approx(1 / 101)
    assert "1 of 101 calls" in latency.reason


def test_where_no_error_is_allowed_the_first_breaks() -> None:
    monitor = monitor_of(replace(ROLLOUT, max_error_share=0.0), TENTH)
    monitor.count([Counted(epoch=0, variant=1, n=1)])
    assert monitor.look().guardrails[0].holds
    monitor.count([Counted(epoch=0, variant=1, n=1, errors=1)])
    assert not monitor.look().guardrails[0].holds


def test_several_challengers_share_the_alpha_of_a_guardrail() -> None:
    table = expanded(initial_table(bucket_counts([0.2] * 5)))
    for names, holds in ((("b",), False), (("b", "c", "d", "e"), True)):
        monitor = Monitor(replace(RULES, variants=("champion", *names)), [table])
        monitor.count([Counted(epoch=0, variant=1, n=100, errors=6)])
        assert monitor.look().guardrails[0].holds == holds


def test_scores_that_move_with_time_while_shares_do_are_no_drift() -> None:
    monitor = monitor_of(ROLLOUT, TENTH, HALVES)
    early, late = [1] + [0] * 19, [0] * 19 + [1]
    for epoch, cells, n in ((0, early, (9000, 1000)), (1, late, (5000, 5000))):
        for variant in (0, 1):
            scores = [cell * n[variant] for cell in cells]
            monitor.count([Counted(epoch=epoch, variant=variant, n=n[variant], scores=scores)])
    assert monitor.look().variants[1].score_psi is None  # nobody knows how many of them are of one entity
    monitor.take(outcomes_of(HALVES, (0.5, 0.5), 10_000, epoch=1))
    assert monitor.look().variants[1].score_psi == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(("entities", "holds"), [(BUCKETS, False), (20, True)])
def test_scores_of_few_entities_must_be_farther_apart_than_chance_puts_them(entities: int, holds: bool) -> None:
    monitor = monitor_of(RULES)
    monitor.take(outcomes_of(HALVES, (0.5, 0.5), 2000, entities=entities))
    for variant, scores in enumerate(([30] * 10 + [70] * 10, [70] * 10 + [30] * 10)):
        monitor.count([Counted(epoch=0, variant=variant, n=1000, scores=tuple(scores))])
    assert monitor.look().guardrails[2].holds  # a PSI of 0.33
    for variant, scores in enumerate(([10_000] * 10 + [0] * 10, [0] * 10 + [10_000] * 10)):
        monitor.count([Counted(epoch=0, variant=variant, n=100_000, scores=tuple(scores))])
    scored = monitor.look().guardrails[2]
    assert (scored.name, scored.holds) == ("scores", holds)
    assert scored.value is not None
    assert scored.value > 1.0


def test_a_rollout_that_holds_alone_says_so_when_nothing_can_come_any_more() -> None:
    rules = replace(ROLLOUT, ripens_ms=8_000)
    whole = initial_table((0, BUCKETS))
    monitor = monitor_of(rules, TENTH, whole)
    monitor.take(outcomes_of(TENTH, (0.5, 0.5), 2000))
    monitor.count([Counted(epoch=1, variant=1, n=9000)])
    assert (monitor.look().step, monitor.look().stuck) == ("hold", False)
    monitor.take(outcomes_of(whole, (0.5, 0.5), 7900, epoch=1, from_ms=2000))
    ripening = monitor.look()
    assert (ripening.step, ripening.stuck) == ("hold", False)
    assert "a person" not in ripening.why
    monitor.take(outcomes_of(whole, (0.5, 0.5), 9500, epoch=1, from_ms=9900))
    look = monitor.look()
    assert (look.step, look.stuck) == ("hold", True)
    assert "a person must decide" in look.why
    monitor.add_epoch(expanded(HALVES))
    assert not monitor.look().stuck


@pytest.mark.parametrize("label_ms", [500, 21_000])
def test_a_revision_is_of_the_cohort_of_its_event_whenever_its_label_is_from(label_ms: int) -> None:
    monitor = monitor_of(replace(RULES, ripens_ms=8_000))
    first = outcomes_of(HALVES, (1.0, 1.0), 1, from_ms=12_500)
    monitor.take(replace(first, label_times_ms=first.label_times_ms - 2_000))  # known before it happens
    monitor.take(outcomes_of(HALVES, (1.0, 1.0), 1, from_ms=20_999))
    again = replace(first, revisions=first.revisions + 1, labels=1 - first.labels, replaced=first.labels)
    monitor.take(replace(again, label_times_ms=np.array([label_ms])))
    monitor.take(outcomes_of(HALVES, (1.0, 1.0), 1, from_ms=22_000))
    assert monitor.missed[LATE] == 0
    look = monitor.look()
    assert [each.means["accuracy"] for each in look.variants if each.samples] == [0.0]


def test_a_guard_metric_that_becomes_worse_takes_a_rollout_back() -> None:
    rules = replace(ROLLOUT, guard_metrics=("cost",), false_positive_cost=10.0, metric="brier")
    look = rollout_at(0, (0.6, 0.5), rules=rules).look()
    assert [each.name for each in look.guardrails if not each.holds] == ["cost"]
    assert look.step == "roll_back"
