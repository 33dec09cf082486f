"""The chaos run of rollouts sends flights in their order, has the models that it needs, and times what it should."""

from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from app.demo.flights import NO_LABEL, Flights, flights_stream, load_flights, replay_start
from app.settings import load_settings
from app.stream_init import stream_toml
from benchmarks import chaos, rollout_story
from benchmarks.faults import Duty, Scene
from benchmarks.plain import Row
from benchmarks.recovery import Recoveries
from benchmarks.rollout_models import mirrored, rollout_stream
from benchmarks.rollout_producer import ROUND_MS, Message, messages
from benchmarks.rollout_story import Effect, timed
from topics.specs import StreamTopics

TOPICS = StreamTopics("flights")
DAY_MS = 24 * 3_600_000


@pytest.fixture(scope="module")
def flights() -> Flights:
    """The last flights of the year, and one of January that is never replayed."""
    whole = load_flights()
    rows = [0, *range(len(whole) - 300, len(whole))]
    return Flights(
        event_ids=[whole.event_ids[row] for row in rows],
        entity_ids=[whole.entity_ids[row] for row in rows],
        event_time_ms=whole.event_time_ms[rows],
        features=whole.features[rows],
        labels=whole.labels[rows],
        label_time_ms=whole.label_time_ms[rows],
    )


def two_rounds(flights: Flights) -> list[tuple[Message, dict[str, Any]]]:
    labelled = int((flights.labels[1:] != NO_LABEL).sum())
    of_two = islice(messages(flights, TOPICS), 2 * (len(flights) - 1 + labelled))
    return [(message, msgspec.json.decode(message.value)) for message in of_two]


def test_flights_and_landings_are_sent_in_the_order_of_their_times_round_after_round(flights: Flights) -> None:
    sent = two_rounds(flights)
    times = [
        document["label_time_ms" if message.topic == TOPICS.labels else "event_time_ms"] for message, document in sent
    ]
    assert times == sorted(times)
    first = [document["event_time_ms"] for message, document in sent if message.event_id.endswith("-0")]
    second = [document["event_time_ms"] for message, document in sent if message.event_id.endswith("-1")]
    assert second == [time_ms + ROUND_MS for time_ms in first]
    assert len(first) == len(flights) - 1


def test_every_landing_comes_after_its_flight_under_the_same_key_and_id(flights: Flights) -> None:
    departed: dict[str, bytes] = {}
    for message, document in two_rounds(flights):
        if message.topic == TOPICS.features:
            assert document["event_id"] not in departed
            departed[document["event_id"]] = message.key
        else:
            assert departed[document["event_id"]] == message.key


def test_a_round_is_over_before_the_next_one_begins() -> None:
    whole = load_flights()
    start = int(replay_start().timestamp() * 1000)
    assert ROUND_MS % (7 * DAY_MS) == 0
    assert int(whole.label_time_ms.max()) < start + ROUND_MS


def test_the_runs_stream_is_the_demos_without_a_learner_and_can_be_declared(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text(stream_toml(rollout_stream()), encoding="utf-8")
    (declared,) = load_settings({}, tmp_path / "penstock.toml").streams
    assert declared == rollout_stream()
    assert declared.features == flights_stream().features
    assert declared.experiments.steps == (0.1, 0.5, 1.0)
    assert not declared.learners


def test_mirrored_labels_are_the_same_ones_with_the_order_of_the_scores_turned_over() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.7], dtype=np.float32)
    labels = np.array([1, 0, 0, 1], dtype=np.int8)
    assert mirrored(scores, labels).tolist() == [0, 1, 1, 0]


class FakeFollower:
    """Shows predictions of two partitions; the second partition's change of revision comes later."""

    def __init__(self, *_: object, **options: bool) -> None:
        assert options == {"from_end": True}
        self.rows = [[(0, 4)], [(1, 4)], [(0, 4), (0, 5)], [(1, 4)], [(1, 5)], []]

    def poll(self, _: float) -> list[Row]:
        FakeKafka.now_ms += 100
        shown = self.rows.pop(0)
        return [Row(b"", b'{"deployment_revision":%d}' % revision, number, 0, 0) for number, revision in shown]

    def close(self) -> None: ...


class FakeKafka:
    """A cluster whose newest roll-back was sent at 150 ms."""

    bootstrap = ""
    now_ms = 0

    def partitions(self, _: str) -> list[int]:
        return [0, 1]

    def read(self, _: str) -> list[Row]:
        commands = [("rollback", 10), ("rollback", 150), ("promote", 160)]
        return [Row(b"", msgspec.json.encode({"action": action}), 0, 0, time_ms) for action, time_ms in commands]


class FakePenstock:
    """Notes what it is told to run."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def run(self, *words: str) -> dict[str, int]:
        self.told.append(words)
        return {"revision": 7}


def test_the_effect_of_a_command_is_timed_from_its_record_until_every_partition_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeKafka, "now_ms", 0)
    monkeypatch.setattr(rollout_story, "Follower", FakeFollower)
    monkeypatch.setattr(rollout_story, "now_ms", lambda: FakeKafka.now_ms)
    penstock: Any = FakePenstock()
    cluster: Any = FakeKafka()
    effect = timed(penstock, cluster, "models", "rollback")
    assert penstock.told == [("models", "rollback")]
    assert effect == Effect(since_command_s=0.35, first_s=0.15, since_start_s=0.3)


class FakeRoutes:
    """A rollout that is at these shares, one after the other."""

    def __init__(self, *shares: float) -> None:
        self.shares = [*shares]
        self.revisions = [6, 6, 7]

    def reached(self, revision: int) -> bool:
        return self.revisions.pop(0) >= revision

    def tried_share(self) -> float | None:
        assert not self.revisions, "the start is not in the log yet"
        return self.shares.pop(0) if self.shares else None


class FakeScene:
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def strike(self, what: str, _: float) -> None:
        self.told.append(what)

    def settle(self) -> None: ...


def test_workers_are_killed_until_a_rollout_is_over_and_everything_is_restarted_once() -> None:
    penstock, scene, routes = FakePenstock(), FakeScene(), FakeRoutes(0.1, 0.1, 0.5)
    parts: Any = penstock, routes, scene
    assert rollout_story.rollout(*parts, "m2", lambda: scene.told.append("everything")) == 3
    assert penstock.told == [("rollouts", "start", "m2", "--stream", "flights")]
    assert scene.told == [
        "m2 has 10%; kill 1 of its rollout",
        "m2 has 10%; kill 2 of its rollout",
        "everything",
        "m2 has 50%; kill 3 of its rollout",
    ]


class RecordedWorker:
    """A worker that says when it is killed."""

    def __init__(self, name: str, happened: list[str]) -> None:
        self.name = name
        self.happened = happened

    def wait_until_ready(self) -> None: ...

    def kill(self) -> None:
        self.happened.append(f"kill {self.name}")


class Recorded:
    """A deployment and a broker that say what happens to them."""

    def __init__(self) -> None:
        self.happened: list[str] = []

    def worker(self, name: str, *_: str) -> RecordedWorker:
        self.happened.append(f"start {name}")
        return RecordedWorker(name, self.happened)

    def stop(self) -> None:
        self.happened.append("stop the broker")

    def start(self) -> None:
        self.happened.append("start the broker")


def test_when_everything_is_restarted_no_worker_lives_on_beside_the_new_broker() -> None:
    recorded = Recorded()
    parts: Any = recorded, recorded
    rng: Any = None
    scene = Scene(*parts, Recoveries(1), rng, lambda _: None, [Duty("d", bool, bool)], roles=[])
    scene.start()
    recorded.happened.clear()
    scene.restart_everything()
    assert recorded.happened == [
        "kill worker-a",
        "kill worker-b",
        "stop the broker",
        "start the broker",
        "start worker-a",
        "start worker-b",
    ]


@pytest.mark.parametrize("stage", ["score", "learn", "drift"])
def test_only_predictions_of_rollouts_can_be_swapped(stage: str) -> None:
    assert chaos.parse(["--stage", "rollout", "--plant", "swap"]).plant == "swap"
    with pytest.raises(SystemExit):
        chaos.parse(["--stage", stage, "--plant", "swap"])
