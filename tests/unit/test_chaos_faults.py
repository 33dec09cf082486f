"""A fault strikes who does the work that is to be disturbed, and only after it has done some of it."""

import random
from typing import Any

import pytest

from benchmarks.faults import Duty, Scene
from benchmarks.recovery import Recoveries


class FakeWorker:
    """A worker process that knows its tasks. It has worked once it was asked three times."""

    def __init__(self, name: str, tasks: set[str]) -> None:
        self.name = name
        self.owned = tasks
        self.asked = 0
        self.exit_code: int | None = None

    def worked(self) -> bool:
        self.asked += 1
        return self.asked > 2

    def check(self) -> None:
        if self.exit_code is not None:
            raise RuntimeError(f"{self.name} ended with {self.exit_code}")

    def wait_until_ready(self) -> None: ...

    def kill(self) -> None:
        self.exit_code = -9


class FakePenstock:
    """Starts workers: `worker-a` joins, `worker-b` learns."""

    def __init__(self) -> None:
        self.started: list[FakeWorker] = []
        self.roles: list[tuple[str, ...]] = []

    def worker(self, name: str, *roles: str) -> FakeWorker:
        self.roles.append(roles)
        self.started.append(FakeWorker(name, {"join" if name == "worker-a" else "learn"}))
        return self.started[-1]


def duty(name: str) -> Duty:
    def owns(worker: Any) -> bool:
        return name in worker.owned

    def works(worker: Any) -> bool:
        done: bool = worker.worked()
        return done

    return Duty(name, owns, works)


def scene_of(penstock: FakePenstock, *duties: Duty) -> Scene:
    stage: Any = penstock
    server: Any = None
    scene = Scene(server, stage, Recoveries(1), random.Random(1), lambda _: None, duties, roles=["join", "learn"])
    scene.start()
    return scene


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.plain.time.sleep", lambda _: None)


def test_the_duties_are_struck_in_turn_and_who_is_killed_starts_again() -> None:
    penstock = FakePenstock()
    scene = scene_of(penstock, duty("join"), duty("learn"))
    assert [scene.kill() for _ in range(4)] == [
        "worker-a, which does join",
        "worker-b, which does learn",
        "worker-a, which does join",
        "worker-b, which does learn",
    ]
    assert scene.struck == {"join": 2, "learn": 2}
    assert len(penstock.started) == 6
    assert set(penstock.roles) == {("join", "learn")}


def test_nobody_is_killed_before_it_has_worked_since_its_last_start() -> None:
    penstock = FakePenstock()
    scene = scene_of(penstock, duty("join"))
    scene.kill()
    scene.kill()
    killed = [worker for worker in penstock.started if worker.exit_code == -9]
    assert [worker.asked for worker in killed] == [3, 3]


def test_a_duty_that_moved_to_another_worker_is_struck_there() -> None:
    penstock = FakePenstock()
    scene = scene_of(penstock, duty("learn"))
    first, second = penstock.started

    def move_away() -> bool:
        second.owned, first.owned = set(), {"learn"}
        return False

    second.worked = move_away  # type: ignore[method-assign]
    assert scene.kill() == "worker-a, which does learn"


def test_a_worker_that_ends_by_itself_ends_the_run() -> None:
    penstock = FakePenstock()
    scene = scene_of(penstock, duty("join"))
    penstock.started[1].exit_code = 1
    with pytest.raises(RuntimeError, match="worker-b ended with 1"):
        scene.kill()
