"""Whether the chaos run of training would notice what it looks for."""

from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks.chaos_train import PHASES
from benchmarks.train_outcome import outcome_of
from schemas.events import AuditEvent, Command, ModelVersion
from schemas.runs import TrainingEvent
from schemas.wire import encode


def ended(run_id: str, *requests: str, outcome: Any = "accepted") -> TrainingEvent:
    return TrainingEvent(
        stream="bench",
        run_id=run_id,
        request_ids=requests,
        reasons=("manual",),
        attempt=1,
        phase="ended",
        time_ms=1,
        started_time_ms=0,
        outcome=outcome,
    )


def version(run_id: str, sha: str = "a", changes: int = 0) -> bytes:
    made = ModelVersion(
        model_id=f"bench-{run_id}",
        stream="bench",
        algorithm="xgboost",
        task="binary",
        created_time_ms=0,
        sha256=sha * 64,
        signature="",
        size_bytes=1,
        memory_bytes=1,
        features=("f0",),
        run_id=run_id,
        changes=changes,
    )
    return encode(made)


def audit(run_id: str) -> bytes:
    event = AuditEvent(
        stream="bench",
        correlation_id=run_id,
        action="register",
        issued_by="train",
        outcome="done",
        reason="",
        model_id=f"bench-{run_id}",
        revision=1,
        decided_time_ms=0,
    )
    return encode(event)


def command(run_id: str) -> bytes:
    sent = Command(
        stream="bench", action="promote", issued_by="train", issued_time_ms=0, correlation_id=f"{run_id}-promote"
    )
    return encode(sent)


ASKED = ["a", "b", "c"]
ENDED = [ended("r1", "a"), ended("r2", "b", "c", outcome="rejected")]
MODELS = [version("r1"), version("r1", changes=1), version("r2"), version("r2", changes=2)]
AUDIT = [audit("r1"), audit("r2")]
COMMANDS = [command("r1")]


def test_one_end_for_each_request_and_one_model_for_each_run_is_right() -> None:
    found = outcome_of(ASKED, ENDED, MODELS, AUDIT, COMMANDS)
    assert found.right
    assert found.as_dict().items() >= {"requests": 3, "runs": 2, "registered": 2, "commands": 1}.items()


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"asked": [*ASKED, "d"]}, "request d ended 0 times"),
        ({"asked": ["a", "b"]}, "request c was never asked"),
        ({"ended": [*ENDED, ended("r3", "a", outcome="failed")]}, "request a ended 2 times"),
        ({"models": [*MODELS, version("r1")]}, "run r1 was accepted, with 2 models and 1 registrations"),
        ({"models": MODELS[:2]}, "run r2 was rejected, with 0 models and 1 registrations"),
        ({"audit": [*AUDIT, audit("r2")]}, "run r2 was rejected, with 1 models and 2 registrations"),
        ({"models": [*MODELS, version("r9")]}, "run r9 registered a model and never ended"),
        ({"commands": [*COMMANDS, *COMMANDS]}, "command r1-promote was sent 2 times"),
        ({"models": [version("r1"), version("r2", sha="b")]}, "the same samples gave 2 different models"),
        ({"ended": [ENDED[0], replace(ENDED[1], outcome="failed")]}, "run r2 was failed: "),
    ],
)
def test_what_is_wrong_is_found(broken: dict[str, Any], sentence: str) -> None:
    given = {"asked": ASKED, "ended": ENDED, "models": MODELS, "audit": AUDIT, "commands": COMMANDS} | broken
    found = outcome_of(**given)
    assert not found.right
    assert sentence in found.problems


def test_every_phase_of_a_run_is_struck() -> None:
    assert PHASES == ("read", "search", "validate", "fit", "evaluate", "record")
