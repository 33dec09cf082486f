"""What the compare stage tells people and asks control: each once, whatever happens in between."""

from typing import Any

import pytest

from ml.experiments.assignment import bucket_counts
from schemas.experiments import ServedCount
from tests.comparing import (
    DAWN,
    SECOND,
    Bench,
    bench_of,
    counts_of,
    deployment_of,
    experiment_of,
    reshared_to,
    sample_in,
)

STEPS = (0.1, 0.5, 1.0)


def _rollout(share: float = 0.1, steps: tuple[float, ...] = STEPS, **plan: Any) -> Any:
    return experiment_of("r", share=share, steps=steps, margin=0.2, **plan)


async def _good(deployment: Any, start: int = 0, n: int = 1_000) -> Bench:
    """Return a bench after `n` samples of which all were foretold."""
    bench = await bench_of(deployment)
    return await bench.take(*[sample_in(i, deployment) for i in range(start, start + n)])


async def test_a_rollout_that_is_good_enough_asks_for_its_next_step_once() -> None:
    first = deployment_of(1, _rollout())
    bench = await _good(first)
    [command] = bench.commands
    assert (command.action, command.shares, command.model_id) == ("reshare", {"b": 0.5}, "")
    assert (command.experiment_id, command.expected_epoch, command.expected_revision) == ("r", 0, None)
    assert (command.issued_by, command.correlation_id) == ("rollout r", "r-0-advance")
    assert command.issued_time_ms == DAWN + 999 * SECOND
    assert command.reason == bench.reports[-1].why
    assert bench.reports[-1].step == "advance"
    [alert] = bench.alerts
    assert (alert.kind, alert.severity, alert.subject, alert.window) == ("rollout", "low", "r", "epoch 0 advance")
    assert "goes on to a share of 0.5" in alert.message
    await bench.take(*[sample_in(i, first) for i in range(1_000, 1_200)])
    assert len(bench.commands) == len(bench.alerts) == 1


async def test_a_step_that_nobody_takes_is_asked_for_again_under_the_same_id_after_many_events() -> None:
    first = deployment_of(1, _rollout(min_samples=80))
    bench = await bench_of(first)
    await bench.take(*[sample_in(i, first) for i in range(1_000)], counts_of(1, champion=30))
    for events in (70, 9):
        await bench.open()
        await bench.take(counts_of(1, champion=events))
    assert len(bench.commands) == 1
    await bench.open()
    await bench.take(counts_of(1, b=100))
    assert [command.correlation_id for command in bench.commands] == ["r-0-advance"] * 2
    assert len(bench.alerts) == 1


async def test_each_epoch_has_its_own_step_and_the_last_one_is_the_promotion() -> None:
    rollout = _rollout()
    bench = await _good(deployment_of(1, rollout))
    for revision, share in ((2, 0.5), (3, 1.0)):
        rollout = reshared_to(rollout, share)
        deployment = deployment_of(revision, rollout)
        bench.deploy(deployment)
        start = 1_000 * revision
        await bench.take(
            *[sample_in(i, deployment) for i in range(start, start + 200)],
            counts_of(revision, b=100, to_time_ms=DAWN + start * SECOND),
        )
    assert [command.correlation_id for command in bench.commands] == ["r-0-advance", "r-1-advance", "r-2-promote"]
    assert [command.shares for command in bench.commands] == [{"b": 0.5}, {"b": 1.0}, {}]
    promote = bench.commands[-1]
    assert (promote.action, promote.model_id, promote.expected_epoch) == ("promote", "m2", 2)
    assert promote.experiment_id == "r"
    assert [alert.window for alert in bench.alerts] == ["epoch 0 advance", "epoch 1 advance", "epoch 2 promote"]
    assert "m2 becomes the champion" in bench.alerts[-1].message


@pytest.mark.parametrize("automatic", [True, False])
async def test_a_rollout_whose_model_fails_goes_back_by_itself(automatic: bool) -> None:
    first = deployment_of(1, _rollout(automatic=automatic))
    bench = await bench_of(first)
    await bench.take(counts_of(1, champion=900, b=ServedCount(variant="b", model_id="m2", n=100, errors=50)))
    [command] = bench.commands
    assert (command.action, command.correlation_id, command.expected_epoch) == ("stop", "r-0-stop", 0)
    [alert] = bench.alerts
    assert (alert.kind, alert.severity, alert.window) == ("rollout", "high", "epoch 0 roll_back")
    assert "goes back to the champion" in alert.message
    assert "errors" in alert.message
    assert (bench.reports[-1].verdict, bench.reports[-1].step) == ("broken_guardrail", "roll_back")


async def test_a_rollout_whose_model_is_worse_goes_back_by_itself() -> None:
    first = deployment_of(1, _rollout(share=0.5, steps=(0.5, 1.0)))
    bench = await bench_of(first)
    samples = [sample_in(i, first) for i in range(1_000)]
    await bench.take(*[sample_in(i, first, right=samples[i].variant == "champion") for i in range(1_000)])
    assert [command.action for command in bench.commands] == ["stop"]
    assert "b is worse" in bench.commands[0].reason


async def test_a_rollout_that_is_not_automatic_asks_a_person() -> None:
    bench = await _good(deployment_of(1, _rollout(automatic=False)))
    assert bench.commands == []
    [alert] = bench.alerts
    assert (alert.severity, alert.recommendation) == ("medium", "`penstock rollouts advance --stream s` does so.")
    assert "waits for a person to go on to a share of 0.5" in alert.message
    last = reshared_to(reshared_to(_rollout(automatic=False), 0.5), 1.0)
    bench.deploy(deployment_of(2, reshared_to(_rollout(automatic=False), 0.5)), deployment_of(3, last))
    await bench.take(sample_in(2_000, deployment_of(3, last)), counts_of(3, b=100))
    assert bench.commands == []
    assert bench.alerts[-1].recommendation == "`penstock models promote m2 --stream s` does so."
    assert len(bench.alerts) == 2


async def test_a_rollout_that_can_never_know_enough_asks_a_person_once_in_an_epoch() -> None:
    rollout = _rollout(min_samples=80)
    early = deployment_of(1, rollout)
    bench = await _good(early, n=60)  # a person goes on before enough is known
    whole = reshared_to(reshared_to(rollout, 0.5), 1.0)
    bench.deploy(deployment_of(2, reshared_to(rollout, 0.5)), alone := deployment_of(3, whole))
    for start in (1_000, 2_000):
        await bench.take(*[sample_in(start + i, alone) for i in range(200)], counts_of(3, b=200))
    [alert] = bench.alerts
    assert (alert.kind, alert.severity, alert.window) == ("rollout", "medium", "epoch 2 hold")
    assert "of 80 mature samples" in alert.message
    assert "a person must decide" in alert.message
    assert "`penstock models promote m2 --stream s`" in alert.recommendation
    assert "`penstock experiments shares r b=50 --stream s`" in alert.recommendation
    assert (bench.reports[-1].step, bench.commands) == ("hold", [])
    again = reshared_to(whole, 0.5)
    bench.deploy(deployment_of(4, again))
    await bench.take(*[sample_in(i, deployment_of(4, again)) for i in range(3_000, 4_000)])
    assert [command.shares for command in bench.commands] == [{"b": 1.0}]


async def test_a_share_between_the_buckets_is_still_the_step_that_was_taken() -> None:
    steps = (0.33333, 0.66666, 1.0)
    for share, expected in ((steps[0], steps[1]), (steps[1], steps[2])):
        first = deployment_of(1, _rollout(share=share, steps=steps))
        assert first.experiment is not None
        assert first.experiment.variants[1].buckets == bucket_counts((1 - share, share))[1]
        bench = await _good(first)
        assert [command.shares for command in bench.commands] == [{"b": expected}]


async def _differing(*right: str, n: int = 2_000, **plan: Any) -> Bench:
    """Return a bench after samples that only these variants foretold."""
    running = deployment_of(1, experiment_of(**plan))
    bench = await bench_of(running)
    variants = [sample_in(i, running).variant for i in range(n)]
    await bench.take(*[sample_in(i, running, right=variant in right) for i, variant in enumerate(variants)])
    return bench


async def test_an_experiment_that_is_decided_is_told_once_and_sends_no_command() -> None:
    bench = await _differing("b")
    [alert] = bench.alerts
    assert (alert.kind, alert.severity, alert.subject, alert.window) == ("experiment", "low", "x", "better")
    assert alert.recommendation == "`penstock models promote m2 --stream s` makes it the champion."
    assert (bench.reports[-1].verdict, bench.reports[-1].winner) == ("better", "b")
    assert alert.message == f"experiment x: {bench.reports[-1].why}"
    await bench.open()
    await bench.take(*[sample_in(i, deployment_of(1, experiment_of())) for i in range(2_000, 2_200)])
    assert len(bench.alerts) == 1
    assert bench.commands == []


async def test_where_no_variant_is_better_a_person_is_told_to_stop() -> None:
    for right, verdict in ((("champion",), "worse"), (("champion", "b"), "no_winner")):
        bench = await _differing(*right, margin=0.05)
        assert [(alert.window, alert.severity) for alert in bench.alerts] == [(verdict, "low")]
        assert "`penstock experiments stop x --stream s`" in bench.alerts[0].recommendation


async def test_a_broken_guardrail_of_an_experiment_is_an_alert_and_nothing_else() -> None:
    bench = await bench_of(deployment_of(1, experiment_of()))
    await bench.take(counts_of(1, champion=100, b=ServedCount(variant="b", model_id="m2", n=100, errors=50)))
    assert [(alert.kind, alert.severity) for alert in bench.alerts] == [("guardrail", "high")]
    assert bench.commands == []


async def test_unequal_shares_are_told() -> None:
    running = deployment_of(1, experiment_of())
    bench = await bench_of(running)
    samples = [sample_in(i, running) for i in range(4_000)]
    await bench.take(*[sample for i, sample in enumerate(samples) if sample.variant == "champion" or i % 3 == 0])
    [alert] = bench.alerts
    assert (alert.kind, alert.severity, alert.window) == ("unequal_shares", "medium", "unequal_shares")


async def test_ids_of_alerts_are_derived() -> None:
    one, two = await _differing("b"), await _differing("b")
    assert one.alerts == two.alerts
    other = await _differing("champion")
    assert other.alerts[0].id != one.alerts[0].id
