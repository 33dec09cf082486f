"""Where candidates are rolled out, a run waits for the end of an experiment, beside which it would be in vain."""

import pytest

from schemas.experiments import Experiment
from tests.support import experiment_of
from tests.training import request_of
from tests.training_world import TrainingWorld, Worker, in_world, outcomes, settle

RUNNING = experiment_of("champion", "other", experiment_id="colours")


def rollout_of(world: TrainingWorld) -> Experiment:
    """Return the rollout that control was asked for last."""
    name = world.commands[-1].experiment_id
    return experiment_of("champion", name, experiment_id=name, kind="rollout")


@in_world(approve="rollout")
async def test_a_run_waits_for_the_end_of_an_experiment_and_says_so_once(world: TrainingWorld) -> None:
    world.route(RUNNING)
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(300.0)
    world.ask(request_of("r2", reason="accuracy"))
    await settle(300.0)
    assert world.jobs == []
    [waiting] = world.events
    assert (waiting.phase, waiting.message) == ("waiting", "it waits for the end of experiment colours")
    assert waiting.request_ids == ("r1",)
    world.route()
    await settle(0.5)  # woken by the routing, and not because time has passed
    assert len(world.jobs) == 1
    await settle()
    assert outcomes(world) == [("accepted", ("r1", "r2"))]
    assert world.ended[0].run_id == waiting.run_id
    assert [command.action for command in world.commands] == ["start"]
    await worker.end()


@in_world(approve="rollout")
async def test_a_request_by_hand_begins_at_once_and_an_alert_asks_a_person(world: TrainingWorld) -> None:
    world.route(RUNNING)
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle()
    world.ask(request_of("r2", reason="manual"))
    await settle()
    assert outcomes(world) == [("accepted", ("r1", "r2"))]
    assert world.commands == []
    assert "control would refuse to roll it out" in world.alerts[-1].message
    await worker.end()


@pytest.mark.parametrize("approve", ["manual", "shadow", "auto"])
def test_where_nothing_is_rolled_out_a_run_begins_at_once(approve: str) -> None:
    @in_world(approve=approve)
    async def scenario(world: TrainingWorld) -> None:
        world.route(RUNNING)
        world.ask(request_of("r1"))
        worker = Worker(world)
        await settle()
        assert outcomes(world) == [("accepted", ("r1",))]
        await worker.end()

    scenario()


@in_world(approve="rollout", cooldown_minutes=0)
async def test_a_rollout_that_control_has_yet_to_begin_counts_as_running(world: TrainingWorld) -> None:
    world.route()
    world.scripts = [[20.0, "passes"]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(10.0)
    world.ask(request_of("r2", requested_time_ms=10**9))
    await settle(20.0)
    assert len(world.jobs) == 1
    world.route(rollout_of(world))
    await settle(3600.0)
    assert len(world.jobs) == 1
    assert [event.message for event in world.events if event.request_ids == ("r2",)] == [
        f"it waits for the end of {world.jobs[0].run_id}",
        f"it waits for the end of rollout {world.commands[0].experiment_id}",
    ]
    world.route()
    await settle()
    assert outcomes(world) == [("accepted", ("r1",)), ("accepted", ("r2",))]
    await worker.end()


@in_world(approve="rollout", cooldown_minutes=0)
async def test_a_rollout_that_control_never_begins_is_not_waited_for_for_ever(world: TrainingWorld) -> None:
    world.route()
    world.scripts = [[20.0, "passes"]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(10.0)
    world.ask(request_of("r2", requested_time_ms=10**9))
    await settle(45.0)
    assert len(world.jobs) == 1
    await settle(120.0)
    assert len(world.jobs) == 2
    await worker.end()


@in_world(approve="rollout", attempts=1)
async def test_a_worker_that_ends_while_a_run_waits_leaves_the_waiting_to_another(world: TrainingWorld) -> None:
    world.route(RUNNING)
    world.ask(request_of("r1"))
    for _ in range(2):
        worker = Worker(world)
        await settle(100.0)
        await worker.end()
    assert world.jobs == []
    world.route()
    worker = Worker(world)
    await settle()
    assert outcomes(world) == [("accepted", ("r1",))]
    await worker.end()
