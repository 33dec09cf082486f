"""What the demo counts of training runs and of the champions that they make."""

from dataclasses import dataclass

import msgspec
import pytest

from app.demo.retraining import Promotion, Retraining
from topics import StreamTopics

TOPICS = StreamTopics("flights")
NOW_MS = 1_370_000_000_000


@dataclass
class Record:
    value: bytes
    key: bytes | None = None
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


@pytest.fixture
def retraining() -> Retraining:
    return Retraining(TOPICS, lambda: NOW_MS)


def run(retraining: Retraining, run_id: str, phase: str = "ended", **fields: object) -> None:
    document = {"run_id": run_id, "phase": phase, "reasons": ["schedule"], **fields}
    retraining.takers[TOPICS.training](Record(msgspec.json.encode(document)))


def deploy(retraining: Retraining, champion: str, changed_by: str = "ann", rollout: str = "") -> None:
    experiment = {"experiment_id": rollout} if rollout else None
    document = {"champion": champion, "changed_by": changed_by, "experiment": experiment, "reason": "it is so"}
    retraining.takers[TOPICS.deployments](Record(msgspec.json.encode(document)))


def test_a_run_is_told_of_when_it_ends_and_skipped_requests_are_not(retraining: Retraining) -> None:
    run(retraining, "r1", "fit")
    assert retraining.now is not None
    assert retraining.news == []
    run(retraining, "r1", outcome="rejected", message="no gain", model_id="m1")
    run(retraining, "r2", outcome="skipped", message="too soon")
    assert retraining.now is None
    assert retraining.outcomes == {"rejected": 1, "skipped": 1}
    assert retraining.news == ["training for schedule: rejected, no gain"]


def test_an_end_that_is_told_twice_is_noticed(retraining: Retraining) -> None:
    run(retraining, "r1", outcome="failed", message="one class only")
    run(retraining, "r1", outcome="failed", message="one class only")
    assert (len(retraining.ended), retraining.repeated) == (1, 1)


def test_only_a_trained_model_that_takes_over_is_a_promotion(retraining: Retraining) -> None:
    deploy(retraining, "january")
    run(retraining, "r1", outcome="accepted", message="good", model_id="m1", follow_up="a rollout")
    deploy(retraining, "january", "train", rollout="m1")  # it has half of the traffic now
    deploy(retraining, "m1", "rollout m1")
    deploy(retraining, "m1", "somebody")
    deploy(retraining, "january", "ann")
    assert retraining.promotions == [Promotion("m1", "rollout m1", NOW_MS)]
    assert retraining.news[1:] == ["new champion m1, by rollout m1: it is so"]


def test_a_rollout_that_fails_is_told_of(retraining: Retraining) -> None:
    deploy(retraining, "january")
    deploy(retraining, "january", "train", rollout="m1")
    deploy(retraining, "january", "rollout m1")
    assert retraining.news == ["rollout m1 ends, and the champion stays: it is so"]
    assert retraining.promotions == []
