"""What the command line makes of a replay: its two halves side by side, what it could not have, and what it says."""

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agents.learn.hosts import Apart
from agents.replay.identity import Compared, Whose
from agents.replay.question import Question
from app import backtest_models
from app.backtest import _both
from app.backtest_models import BacktestModels
from app.backtest_report import lines_of
from app.cli.replay import _require_same
from app.settings import Settings
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from tests.replaying import SPEC
from tests.support import version_of


async def never() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise PenstockError("the archive is away")


@pytest.mark.parametrize("labels_fail", [True, False])
async def test_a_half_that_fails_ends_the_other_at_once_with_its_own_sentence(labels_fail: bool) -> None:
    halves = (never(), failing()) if labels_fail else (failing(), never())
    async with asyncio.timeout(1):
        with pytest.raises(PenstockError, match="the archive is away"):
            await _both(*halves)


def compared(*found: tuple[Whose, Compared]) -> Any:
    return SimpleNamespace(served=SimpleNamespace(compared=dict(found)))


def test_only_scores_that_came_out_otherwise_or_that_served_and_are_lost_are_an_error() -> None:
    _require_same(compared((Whose("online", "online@5", True), Compared(events=9, not_executed=9))))
    with pytest.raises(PenstockError, match="1 scores came out other"):
        _require_same(compared((Whose("online", "online@5", True), Compared(events=9, identical=8))))
    with pytest.raises(PenstockError, match="9 served ones could not"):
        _require_same(compared((Whose("champion", "old", False), Compared(events=9, not_executed=9))))


def models(monkeypatch: pytest.MonkeyPatch, question: Question, *versions: ModelVersion) -> BacktestModels:
    for name in ("artifact_store", "model_opener"):
        monkeypatch.setattr(backtest_models, name, lambda settings: None)
    known = {version.model_id: version for version in versions}
    registry: Any = SimpleNamespace(
        models=list(versions),
        deployments=[],
        champion="old",
        find=known.__getitem__,
        baseline_of=lambda model_id: known[model_id] if known[model_id].baseline else None,
    )
    return BacktestModels(Settings(), registry, question)


async def test_a_model_without_a_baseline_is_a_problem_and_not_one_without_drift(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = Question(spec=SPEC, changed=SPEC, model="new")
    found = models(monkeypatch, ask, version_of(SPEC, "new"))
    assert (await found.measure("new")).yardstick is None
    assert found.library.problems == {"baseline of new": "there is none, so no drift is found while it serves"}


def test_models_of_other_features_are_known_and_so_is_the_one_that_may_have_learnt_from_the_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = Question(spec=SPEC, changed=SPEC, model="new")
    other = msgspec.structs.replace(version_of(SPEC, "other"), features=("b", "a"))
    found = models(monkeypatch, ask, version_of(SPEC, "new"), other)
    assert found.foreign == {"other"}
    assert found.learnt == version_of(SPEC, "new")
    assert models(monkeypatch, Question(spec=SPEC, changed=SPEC), other).learnt is None


def document(**changes: Any) -> dict[str, Any]:
    world = {"windows": [], "drift_windows": 7, "alerts": [], "requests": []}
    usual = {
        "stream": "shop",
        "from_time_ms": None,
        "to_time_ms": None,
        "model": "served",
        "learner": None,
        "threshold": 0.5,
        "set": [],
        "history": {"archived_samples": 0},
        "events": 100,
        "samples": 100,
        "unusable": 0,
        "not_scored": 0,
        "scores": [],
        "problems": {},
        "pruned": [],
        "learnt_from": None,
        "learned": None,
        "decisions": {"events": 0, "changed": 0, "changes": [], "not_scored": 0, "examples": []},
        "overall": None,
        "served": world,
        "replayed": world | {"drift_windows": 0},
    }
    return usual | changes


def test_a_learner_s_snapshots_are_one_line_each_way() -> None:
    counts = {"events": 10, "identical": 0, "close": 0, "different": 0, "not_executed": 10}
    ids = [f"online@{n}" for n in range(50)]
    scores = [{"variant": "online", "model_id": model_id, "shadow": True} | counts for model_id in ids]
    lines = list(lines_of(document(scores=scores, pruned=ids[:40], problems=dict.fromkeys(ids[40:], "is lost"))))
    assert sum("online" in line for line in lines) == 2
    assert any("online (shadow)" in line and "500" in line for line in lines)
    assert "online@40: is lost (and 9 more of this learner)" in lines
    assert any(line.startswith("40 models were pruned") for line in lines)


def test_events_that_a_candidate_may_know_are_told_with_the_time_that_leaves_them_out() -> None:
    learnt = {"model_id": "new", "training_to_time_ms": 1_700_000_000_123, "events": 60, "overall_later": None}
    said = "\n".join(lines_of(document(learnt_from=learnt)))
    assert "60 of 100 events are from before 2023-11-14T22:13:20.123Z" in said
    assert "--from 2023-11-14T22:13:20.123Z leaves them out" in said
    assert "there are no later labelled events yet" in said
    assert "7 drift windows" in said
    unknown = learnt | {"training_to_time_ms": None, "events": None}
    assert "nobody said up to when model new learnt" in "\n".join(lines_of(document(learnt_from=unknown)))


class Dying:
    """An object whose process does not outlive its work."""

    def run(self) -> None:
        os._exit(3)


async def test_a_process_that_has_ended_is_called_what_it_was() -> None:
    other = Apart(ended="the process that replays the samples has ended (exit code {code})")
    try:
        await other.start(Dying)
        with pytest.raises(PenstockError, match=r"replays the samples has ended \(exit code"):
            await other.call("run")
    finally:
        await other.close()
