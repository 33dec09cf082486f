"""The train stage: requests in, one run at a time, and one record of what each came to."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from agents.train.job import Failed, Kept, Progress
from schemas.errors import RetryableError
from schemas.wire import encode
from stream.batches import TopicPartition
from tests.support import version_of
from tests.training import DAY_MS, request_of
from tests.training_world import FAILS_GATES, PASSES, TOPICS, TrainingWorld, Worker, in_world, outcomes, settle

LONG_S = 3000.0
AGAIN = Failed(message="the store is away", again=True)


@in_world()
async def test_a_request_becomes_a_run_whose_candidate_is_registered_once(world: TrainingWorld) -> None:
    world.route()
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle()
    [job] = world.jobs
    assert (job.attempt, job.stop_offset, job.reasons) == (1, 1000, ("drift",))
    assert job.champion == version_of(world.spec, "champion")
    [_, version] = world.models
    [ended] = world.ended
    assert (ended.outcome, ended.model_id, ended.run_id) == ("accepted", version.model_id, job.run_id)
    assert ended.champion == "champion"
    assert (version.status, version.run_id, version.version) == ("draft", job.run_id, "1.0.0")
    assert worker.count("ml_training_runs_total", outcome="accepted") == 1
    assert worker.count("ml_pipeline_updates_total") == 1
    assert worker.count("ml_pipeline_samples_processed_total") == 1000
    assert worker.count("ml_pipeline_accuracy") == 0.75
    assert worker.count("ml_training_duration_seconds_count") == 1
    await worker.end()


@in_world()
async def test_requests_that_come_during_a_run_are_one_next_run_and_are_told_that_they_wait(
    world: TrainingWorld,
) -> None:
    world.scripts = [[100.0, Failed(message="too few samples", again=False)]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle()
    world.ask(request_of("r2"), request_of("r3", reason="manual"))
    await settle()
    waiting = world.events[-1]
    assert (waiting.phase, waiting.request_ids) == ("waiting", ("r2", "r3"))
    assert waiting.message == f"it waits for the end of {world.jobs[0].run_id}"
    await settle(200.0)
    assert outcomes(world) == [("failed", ("r1",)), ("accepted", ("r2", "r3"))]
    assert world.ended[1].run_id == waiting.run_id
    assert worker.count("ml_training_runs_total", outcome="failed") == 1
    await worker.end()


@in_world(cooldown_minutes=60)
async def test_a_request_within_the_cooldown_is_recorded_as_skipped_and_one_by_hand_is_not(
    world: TrainingWorld,
) -> None:
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle()
    world.ask(request_of("r2", requested_time_ms=DAY_MS), request_of("r3", reason="manual"))
    await settle()
    assert outcomes(world) == [("accepted", ("r1",)), ("skipped", ("r2",)), ("accepted", ("r3",))]
    assert "cooldown_minutes is 60" in world.ended[1].message
    assert worker.count("ml_training_runs_total", outcome="skipped") == 1
    await worker.end()


@in_world()
async def test_what_is_no_request_for_this_stream_is_passed_over(world: TrainingWorld) -> None:
    world.kafka.append(TopicPartition(TOPICS.retrain, 0), [b"nonsense", encode(request_of("r0", stream="birds"))])
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle()
    assert outcomes(world) == [("accepted", ("r1",))]
    await worker.end()


@in_world(attempts=3)
async def test_a_failure_that_may_pass_is_tried_again_after_ever_longer_pauses(world: TrainingWorld) -> None:
    world.scripts = [[AGAIN], [AGAIN], [PASSES]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(9.0)
    assert len(world.jobs) == 1
    assert world.events[-1].message == "attempt 1 failed: the store is away; it is tried again in 10 s"
    await settle(2.0)
    assert len(world.jobs) == 2
    await settle(18.0)
    assert len(world.jobs) == 2
    await settle(2.0)
    assert outcomes(world) == [("accepted", ("r1",))]
    assert [job.attempt for job in world.jobs] == [1, 2, 3]
    assert len({(job.now_ms, job.stop_offset) for job in world.jobs}) == 1
    await worker.end()


@in_world(attempts=2)
async def test_after_its_last_attempt_a_failure_is_recorded_and_people_are_told(world: TrainingWorld) -> None:
    world.scripts = [[AGAIN], [AGAIN], [PASSES]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(100.0)
    assert outcomes(world) == [("failed", ("r1",))]
    assert (world.ended[0].message, world.ended[0].attempt) == ("the store is away", 2)
    [alert] = world.alerts
    assert (alert.kind, alert.severity) == ("training", "medium")
    assert world.models == []
    await worker.end()


@in_world(max_minutes=5)
async def test_a_run_that_takes_too_long_is_ended_and_not_tried_again(world: TrainingWorld) -> None:
    world.scripts = [[Progress(phase="fit"), 400.0, PASSES]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(299.0)
    assert world.ended == []
    await settle(2.0)
    assert outcomes(world) == [("failed", ("r1",))]
    assert "longer than training.max_minutes, 5 minutes" in world.ended[0].message
    await worker.end()


@in_world()
async def test_a_phase_is_told_at_once_and_news_of_it_once_a_second(world: TrainingWorld) -> None:
    steps = [said for n in range(300) for said in (Progress(phase="fit", share=n / 300), 0.01)]
    world.scripts = [[Progress(phase="read"), *steps, Progress(phase="evaluate"), PASSES]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(10.0)
    told = [(event.phase, event.share) for event in world.events]
    assert told[:2] == [("waiting", None), ("read", None)]
    assert [phase for phase, _ in told[2:]] == ["fit", "fit", "fit", "evaluate", "ended"]
    assert told[4][1] == pytest.approx(2 / 3, abs=0.02)
    await worker.end()


@in_world(attempts=1)
async def test_a_worker_that_ends_properly_leaves_the_run_to_another_and_counts_no_attempt(
    world: TrainingWorld,
) -> None:
    world.scripts = [[Kept(sha256="ab" * 32, size_bytes=9), LONG_S], [LONG_S], [PASSES]]
    world.ask(request_of("r1"))
    for _ in range(2):
        worker = Worker(world)
        await settle(5.0)
        await worker.end()
    worker = Worker(world)
    await settle()
    assert [job.attempt for job in world.jobs] == [1, 1, 1]
    assert [job.kept for job in world.jobs] == [None, *2 * [Kept(sha256="ab" * 32, size_bytes=9)]]
    assert len({(job.run_id, job.now_ms, job.stop_offset) for job in world.jobs}) == 1
    assert outcomes(world) == [("accepted", ("r1",))]
    await worker.end()


@in_world(attempts=2)
async def test_workers_that_are_lost_in_every_attempt_end_the_run_with_a_failure(world: TrainingWorld) -> None:
    world.scripts = [[LONG_S], [LONG_S]]
    world.ask(request_of("r1"))
    for _ in range(2):
        await killed_after(world, 5.0)
    worker = Worker(world)
    await settle()
    assert [job.attempt for job in world.jobs] == [1, 2]
    assert [(event.outcome, event.message) for event in world.ended] == [
        ("failed", "the worker ended in the middle of attempt 2")
    ]
    await worker.end()


@in_world(attempts=1)
async def test_a_broker_that_goes_away_costs_a_run_no_attempt(world: TrainingWorld) -> None:
    world.scripts = [[5.0, Kept(sha256="ab" * 32, size_bytes=9), LONG_S], [PASSES]]
    away = iter([False] * 2)

    async def wait(point: str) -> None:
        if point == "commit" and len(world.jobs) == 1 and next(away, True) is False:
            raise KafkaConnectionError

    world.ask(request_of("r1"))
    worker = Worker(world, wait)
    await settle(60.0)
    assert [job.attempt for job in world.jobs] == [1, 1]
    assert outcomes(world) == [("accepted", ("r1",))]
    await worker.end()


@in_world()
async def test_views_that_do_not_follow_open_the_task_again_until_they_do(world: TrainingWorld) -> None:
    fails = iter([RetryableError("the views have stopped")] * 2)

    async def wait(point: str) -> None:
        if point == "caught up" and (error := next(fails, None)) is not None:
            raise error

    world.ask(request_of("r1"))
    worker = Worker(world, wait)
    await settle(10.0)
    assert outcomes(world) == [("accepted", ("r1",))]
    assert worker.fatal == []
    await worker.end()


@in_world()
async def test_a_candidate_that_fails_its_gates_is_registered_and_put_away(world: TrainingWorld) -> None:
    world.scripts = [[FAILS_GATES]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle()
    [version] = world.models
    assert (version.status, version.reason) == ("archived", world.ended[0].message)
    assert "ROC AUC 0.52 of 0.7" in version.reason
    assert world.ended[0].outcome == "rejected"
    await worker.end()


@in_world(attempts=2)
async def test_when_a_run_has_ended_for_good_nothing_is_left_of_it_and_before_that_everything(
    world: TrainingWorld,
) -> None:
    kept = Kept(sha256="ab" * 32, size_bytes=9, before=("cd" * 32,))
    world.scripts = [[kept, AGAIN], [AGAIN]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(5.0)
    assert world.cleared == []
    await settle(30.0)
    assert [job.kept for job in world.cleared] == [kept]
    await worker.end()


@in_world(max_minutes=5)
async def test_nothing_is_left_of_a_run_whose_process_was_killed(world: TrainingWorld) -> None:
    kept = Kept(sha256="ab" * 32, size_bytes=9)
    world.scripts = [[kept, 400.0]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle(350.0)
    assert [(job.run_id, job.kept) for job in world.cleared] == [(world.ended[0].run_id, kept)]
    await worker.end()


@in_world()
async def test_a_run_that_is_over_is_not_made_again_by_the_next_worker(world: TrainingWorld) -> None:
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle()
    await worker.end()
    world.kafka.offsets.clear()  # as when the group was idle for so long that the broker has forgotten it
    worker = Worker(world)
    await settle()
    assert len(world.jobs) == 1
    assert outcomes(world) == [("accepted", ("r1",))]
    await worker.end()


async def killed_after(world: TrainingWorld, seconds: float) -> None:
    """Let a worker run for so long, and then nothing that it does reach anybody."""
    dead = asyncio.Event()

    async def wait(_: str) -> None:
        await (asyncio.Future() if dead.is_set() else asyncio.sleep(0))

    worker = Worker(world, wait)
    await settle(seconds)
    dead.set()
    await worker.end(0.0)
