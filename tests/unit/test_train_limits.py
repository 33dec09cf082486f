"""What keeps runs of the train stage few and finite: the cool-down, wrong clocks, interruptions, and what was saved."""

import msgspec
import pytest

from agents.train.job import Failed, Progress
from agents.train.queue import MOST_INTERRUPTIONS
from agents.train.stage import FORMAT
from schemas.errors import FatalError
from schemas.events import Checkpoint
from schemas.wire import encode
from tests.support import version_of
from tests.training import DAY_MS, job_of, made_of, request_of, spec_of
from tests.training_world import CHECKPOINTS, KAFKA_MS, TrainingWorld, Worker, in_world, outcomes, settle

HOUR_MS = 3_600_000
RIPENS_MS = spec_of().ripens_ms
LONG_S = 3000.0


@in_world()
async def test_of_requests_in_every_hour_one_in_a_cooldown_becomes_a_run_though_ripe_samples_end_a_day_before(
    world: TrainingWorld,
) -> None:
    assert RIPENS_MS > DAY_MS  # as streams are unless they say otherwise
    worker = Worker(world)
    for hour in range(96):
        time_ms = 30 * DAY_MS + hour * HOUR_MS
        world.scripts = [[made_of(job_of(run_id=f"run-{hour}"), to_time_ms=time_ms - RIPENS_MS)]]
        world.ask(request_of(f"r{hour}", requested_time_ms=time_ms))
        await settle()
    ran = [requests for outcome, requests in outcomes(world) if outcome == "accepted"]
    assert ran == [("r0",), ("r24",), ("r48",), ("r72",)]
    assert len(world.ended) == 96
    await worker.end()


@in_world()
async def test_a_run_that_was_asked_for_by_hand_blocks_from_where_the_stream_was(world: TrainingWorld) -> None:
    seen_ms = 10 * DAY_MS + RIPENS_MS
    world.scripts = [[made_of(job_of(), to_time_ms=10 * DAY_MS)]]
    world.ask(request_of("r1", reason="manual", requested_time_ms=900 * DAY_MS))
    worker = Worker(world)
    await settle()
    world.ask(request_of("r2", requested_time_ms=seen_ms + DAY_MS - 1))
    await settle()
    world.ask(request_of("r3", requested_time_ms=seen_ms + DAY_MS))
    await settle()
    assert outcomes(world) == [("accepted", ("r1",)), ("skipped", ("r2",)), ("accepted", ("r3",))]
    await worker.end()


@pytest.mark.parametrize("says", [[Failed(message="too few samples", again=False)], [400.0]])
def test_a_run_that_read_nothing_or_was_ended_for_its_time_blocks_as_well(says: list[Failed | float]) -> None:
    @in_world(max_minutes=5)
    async def scenario(world: TrainingWorld) -> None:
        world.scripts = [says]
        world.ask(request_of("r1", requested_time_ms=9 * DAY_MS))
        worker = Worker(world)
        await settle(500.0)
        world.ask(request_of("r2", requested_time_ms=9 * DAY_MS + HOUR_MS))
        await settle()
        assert outcomes(world) == [("failed", ("r1",)), ("skipped", ("r2",))]
        await worker.end()

    scenario()


@in_world()
async def test_a_request_with_a_wrong_clock_does_not_block_for_ever(world: TrainingWorld) -> None:
    world.ask(request_of("r1", requested_time_ms=3 * 10**13))
    worker = Worker(world)
    await settle()
    assert world.state.queue.blocked_until_ms == KAFKA_MS + 2 * DAY_MS
    world.ask(request_of("r2", requested_time_ms=KAFKA_MS + 2 * DAY_MS))
    await settle()
    assert [outcome for outcome, _ in outcomes(world)] == ["accepted", "skipped"]  # not further than a day either
    await worker.end()


@in_world()
async def test_a_request_that_will_be_skipped_after_the_run_is_promised_none(world: TrainingWorld) -> None:
    world.scripts = [[100.0, Failed(message="too few samples", again=False)]]
    world.ask(request_of("r1", requested_time_ms=5 * DAY_MS))
    worker = Worker(world)
    await settle()
    world.ask(request_of("r2", requested_time_ms=5 * DAY_MS + 1), request_of("r3", reason="manual"))
    await settle()
    assert [event.request_ids for event in world.events if "waits for the end" in event.message] == [("r3",)]
    promised = world.events[-1].run_id
    await settle(200.0)
    assert outcomes(world) == [("failed", ("r1",)), ("skipped", ("r2",)), ("accepted", ("r3",))]
    assert world.ended[-1].run_id == promised
    await worker.end()


@in_world(attempts=3)
async def test_a_run_that_its_worker_is_taken_from_again_and_again_fails_in_the_end(world: TrainingWorld) -> None:
    world.scripts = [[LONG_S] for _ in range(MOST_INTERRUPTIONS + 1)]
    world.ask(request_of("r1"))
    for _ in range(MOST_INTERRUPTIONS):
        worker = Worker(world)
        await settle(5.0)
        assert world.ended == []
        await worker.end()
    worker = Worker(world)
    await settle()
    assert outcomes(world) == [("failed", ("r1",))]
    assert f"taken away {MOST_INTERRUPTIONS} times" in world.ended[0].message
    assert len(world.jobs) == MOST_INTERRUPTIONS
    assert len(world.cleared) == 1
    assert [alert.kind for alert in world.alerts] == ["training"]
    await worker.end()


@in_world(attempts=2, max_minutes=10)
async def test_a_run_that_was_interrupted_may_not_take_longer_than_its_attempts_together(world: TrainingWorld) -> None:
    world.scripts = [[Progress(phase="read"), 599.0]] * 5
    world.ask(request_of("r1"))
    for _ in range(3):
        worker = Worker(world)
        await settle(500.0)
        await worker.end()
    assert world.ended == []
    worker = Worker(world)
    await settle()
    assert len(world.jobs) == 3
    assert "began more than 20 minutes ago" in world.ended[0].message
    await worker.end()


@pytest.mark.parametrize(
    ("checkpoint_format", "state", "words"),
    [(FORMAT + 1, b"{}", "it is of format 2"), (FORMAT, b'{"queue": {"waiting": 7}}', "waiting")],
)
def test_a_checkpoint_that_cannot_be_read_stops_the_worker_and_is_not_written_over(
    checkpoint_format: int, state: bytes, words: str
) -> None:
    @in_world()
    async def scenario(world: TrainingWorld) -> None:
        saved = Checkpoint(stage="train", partition=0, format=checkpoint_format, offsets={}, state=msgspec.Raw(state))
        world.kafka.written[CHECKPOINTS].append(encode(saved))
        world.ask(request_of("r1"))
        worker = Worker(world)
        await settle()
        [error] = worker.fatal
        assert isinstance(error, FatalError)
        assert words in str(error)
        assert "[streams.flights.training]" in str(error)
        assert world.kafka.written[CHECKPOINTS] == [encode(saved)]
        await worker.end()

    scenario()


@in_world()
async def test_a_stage_that_is_closed_hears_of_no_routing_any_more(world: TrainingWorld) -> None:
    world.route()
    worker = Worker(world)
    await settle()
    assert worker.listeners == 1
    await worker.end()
    assert worker.listeners == 0


@in_world(approve="auto")
async def test_over_a_champion_that_came_while_the_run_was_at_work_a_person_is_asked(world: TrainingWorld) -> None:
    world.route()
    world.scripts = [[100.0, "passes"]]
    world.ask(request_of("r1"))
    worker = Worker(world)
    await settle()
    world.route(champion=version_of(world.spec, "other"))
    await settle(200.0)
    assert world.commands == []
    assert "compared with champion, and other serves by now" in world.alerts[-1].message
    await worker.end()
