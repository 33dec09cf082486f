"""Every request to train anew ends in exactly one run or skip, and a run in one candidate or one failure, whatever
happens at any of the points where the stage waits."""

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiokafka.errors import KafkaConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.train.job import Failed, Kept, Progress
from schemas.events import RetrainRequest
from schemas.wire import decode
from tests.support import MemoryDelivery, experiment_of, leap_through, now
from tests.training import DAY_MS, request_of, spec_of
from tests.training_world import (
    FAILS_GATES,
    NAME,
    PASSES,
    REQUESTS,
    EagerDelivery,
    Script,
    TrainingWorld,
    Worker,
)

DAYS_S = 10 * 24 * 3600.0


class Fault(Enum):
    """What can happen while the stage waits for something."""

    LOST = "the connection is lost"
    KILLED = "the process is killed"
    ENDED = "the worker is told to end, and another begins"
    FENCED = "another producer has started under the task's name and is gone again"


SCRIPTS: list[Script] = [
    [PASSES],
    [FAILS_GATES],
    [Progress(phase="fit"), 30.0, Kept(sha256="ab" * 32, size_bytes=9), 30.0, PASSES],
    [Failed(message="too few samples", again=False)],
    [1.0, Failed(message="the store is away", again=True)],
    [30 * 60.0],
    [Progress(phase="read"), Failed(message="one class only", again=False, samples=9, to_time_ms=DAY_MS)],
]


@dataclass(frozen=True)
class Plan:
    """Requests with the pauses before them, what attempts do, and what strikes at which point, by its number.

    Experiments have the pause before them, and how long they run.
    """

    requests: list[tuple[float, RetrainRequest]]
    scripts: list[Script]
    faults: dict[int, Fault]
    experiments: list[tuple[float, float]] = field(default_factory=list)


REQUESTS_OF = st.builds(
    lambda number, reason, days: request_of(f"r{number}", reason=reason, requested_time_ms=days * DAY_MS),
    st.integers(0, 9),
    st.sampled_from(["drift", "accuracy", "latency", "manual"]),
    st.integers(0, 4),
)


PAUSES = st.sampled_from([0.0, 0.3, 60.0, 4000.0])


def plans(*faults: Fault) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        requests=st.lists(st.tuples(PAUSES, REQUESTS_OF), min_size=1, max_size=8),
        scripts=st.lists(st.sampled_from(SCRIPTS), max_size=10),
        faults=st.dictionaries(st.integers(0, 150), st.sampled_from(faults), max_size=12),
        experiments=st.lists(st.tuples(PAUSES, st.sampled_from([30.0, 5000.0])), max_size=4),
    )


class Life:
    """A worker that is struck as the plan has it."""

    def __init__(self, run: "Lives") -> None:
        self._run = run
        self._dead = False
        self.worker = Worker(run.world, self._wait)

    async def _wait(self, point: str) -> None:
        fault = None if self._dead else self._run.next_fault()
        if fault in (Fault.KILLED, Fault.ENDED):
            self._dead = fault is Fault.KILLED
            self._run.blows.append((self, fault))
        if self._dead:
            await asyncio.Future()
        if fault is Fault.FENCED:
            self._run.world.kafka.fence(str(NAME))
        if fault is Fault.LOST:
            raise KafkaConnectionError
        await asyncio.sleep(0)


class Lives:
    """One worker after the other, until every request is answered."""

    def __init__(self, plan: Plan, delivery: type[MemoryDelivery], **training: Any) -> None:
        self.world = TrainingWorld(spec_of(max_minutes=10, **training), delivery)
        self.world.scripts = list(plan.scripts)
        self.blows: deque[tuple[Life, Fault]] = deque()
        self._faults = plan.faults
        self._points = 0
        self._requests = plan.requests
        self._experiments = plan.experiments
        self.experiments_ms: list[tuple[float, float]] = []

    def next_fault(self) -> Fault | None:
        self._points += 1
        return self._faults.get(self._points - 1)

    async def run(self) -> None:
        asking, _ = asyncio.create_task(self._ask()), asyncio.create_task(self._experiment())
        life = Life(self)
        async with asyncio.timeout(DAYS_S):
            while not (asking.done() and self._is_over):
                await asyncio.sleep(1.0)
                while self.blows:
                    struck, fault = self.blows.popleft()
                    if struck is life:
                        await life.worker.end(0.0 if fault is Fault.KILLED else 30.0)
                        life = Life(self)
        await asyncio.sleep(100.0)
        await life.worker.end()
        assert life.worker.fatal == []

    async def _ask(self) -> None:
        for pause_s, request in self._requests:
            await asyncio.sleep(pause_s)
            self.world.ask(request)

    async def _experiment(self) -> None:
        self.world.route()
        for pause_s, length_s in self._experiments:
            await asyncio.sleep(pause_s)
            self.experiments_ms.append((1000 * now(), 1000 * (now() + length_s)))
            self.world.route(experiment_of("champion", "other"))
            await asyncio.sleep(length_s)
            self.world.route()

    @property
    def _is_over(self) -> bool:
        ended = [request_id for event in self.world.ended for request_id in event.request_ids]
        return {request.id for _, request in self._requests} <= set(ended)


def live(plan: Plan, delivery: type[MemoryDelivery], attempts: int = 3, **training: Any) -> TrainingWorld:
    """Run `plan` and check what holds with transactions and without them."""
    lives = Lives(plan, delivery, attempts=attempts, **training)
    leap_through(lives.run())
    world = lives.world
    assert world.faults == []
    assert all(job.attempt <= attempts for job in world.jobs)
    answers = defaultdict(set)
    for event in world.ended:
        for request_id in event.request_ids:
            answers[request_id].add(event.run_id)
    assert set(answers) == {decode(RetrainRequest, entry.value).id for entry in world.kafka.logs[REQUESTS]}
    assert all(len(runs) == 1 for runs in answers.values()), answers
    if training.get("approve") == "rollout":
        waiting = [job for job in world.jobs if "manual" not in job.reasons]
        assert not [job for job in waiting for since, until in lives.experiments_ms if since < job.now_ms < until]
    made = {event.run_id: event.model_id for event in world.ended if event.outcome in ("accepted", "rejected")}
    assert {version.run_id: version.model_id for version in world.models if version.run_id} == made
    return world


@settings(max_examples=60, deadline=None, database=None)
@given(plans(*Fault))
def test_every_request_is_answered_once_and_every_candidate_is_registered_once(plan: Plan) -> None:
    world = live(plan, MemoryDelivery)
    assert len({event.run_id for event in world.ended}) == len(world.ended)
    assert len({version.model_id for version in world.models}) == len(world.models)
    assert len({alert.id for alert in world.alerts}) == len(world.alerts)


@settings(max_examples=60, deadline=None, database=None)
@given(plans(Fault.LOST, Fault.KILLED, Fault.ENDED))
def test_without_transactions_what_is_written_again_is_the_same_to_the_byte(plan: Plan) -> None:
    world = live(plan, EagerDelivery)
    assert len({event.run_id for event in world.ended}) == len(set(map(repr, world.ended)))
    assert len({version.model_id for version in world.models}) == len(set(map(repr, world.models)))
    assert len({alert.id for alert in world.alerts}) == len(set(map(repr, world.alerts)))


@settings(max_examples=40, deadline=None, database=None)
@given(plans(Fault.ENDED))
def test_a_worker_that_is_told_to_end_costs_no_run_an_attempt(plan: Plan) -> None:
    world = live(plan, MemoryDelivery, attempts=1)
    assert not any("the worker ended" in event.message for event in world.ended)


@settings(max_examples=60, deadline=None, database=None)
@given(plans(*Fault))
def test_where_candidates_are_rolled_out_no_run_but_one_by_hand_begins_beside_an_experiment(plan: Plan) -> None:
    live(plan, MemoryDelivery, approve="rollout")
