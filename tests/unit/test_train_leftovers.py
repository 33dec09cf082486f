"""What a run leaves while it may be tried again, and what is left when it has ended for good."""

import asyncio
import shutil
import threading
import time
from pathlib import Path

import pytest

from agents.train.job import Kept
from agents.train.leftovers import clear_leftovers
from agents.train.making import Unfinished
from schemas.training import SearchSpec
from stores.artifacts import ArtifactStore
from stores.tracking import TrackedRun, TrackingFailed, track
from tests.making import Heard, Run, job_of, runner, stream_of, training_of

ROUNDS = (b"round 50", b"round 100", b"round 150")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(tmp_path, monkeypatch)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def kept_by(heard: Heard) -> Kept:
    """Return the newest that a run said it has kept."""
    return [said for said in heard.said if isinstance(said, Kept)][-1]


async def test_the_newest_two_of_unfinished_work_are_kept_over_attempts_and_then_cleared(tmp_path: Path) -> None:
    heard, spec = Heard(), stream_of()
    store = ArtifactStore(str(tmp_path / "store"))
    first = Unfinished(store, job_of(spec, tmp_path), heard)
    for payload in ROUNDS:
        first.keep(payload)
        assert len(files_of(tmp_path / "store")) <= 2
    second = Unfinished(store, job_of(spec, tmp_path, kept=kept_by(heard)), heard)
    assert second.resume() == ROUNDS[-1]
    second.keep(b"round 200")
    assert len(files_of(tmp_path / "store")) == 2
    await clear_leftovers(job_of(spec, tmp_path, kept=kept_by(heard)))
    assert files_of(tmp_path / "store") == []


async def test_a_run_that_was_killed_at_any_point_leaves_nothing(tmp_path: Path) -> None:
    for points in range(1, 4):
        heard = Heard()
        unfinished = Unfinished(ArtifactStore(str(tmp_path / "store")), job_of(stream_of(), tmp_path), heard)
        for payload in ROUNDS[:points]:
            unfinished.keep(payload)
        await clear_leftovers(job_of(stream_of(), tmp_path, kept=kept_by(heard)))
        assert files_of(tmp_path / "store") == []


def test_a_run_that_failed_in_its_last_attempt_leaves_neither_work_nor_study(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OSError("the store is away")

    search = SearchSpec(method="grid", space={"max_depth": {"choices": [1, 2]}})
    spec = stream_of(training=training_of(parameters={"rounds": 20}, search=search, attempts=1))
    monkeypatch.setattr("ml.training.xgboost_trainer.KEEP_ROUNDS", 5)
    monkeypatch.setattr("agents.train.run.judge_candidate", away)
    heard = run(spec)
    assert heard.failed.again
    others = job_of(spec, tmp_path, run_id="flights-run-1-of-somebody-else")
    (tmp_path / "training" / f"{others.run_id}-01234567.journal").write_bytes(b"")
    assert len(files_of(tmp_path / "store")) == 2
    assert len(files_of(tmp_path / "training")) == 2
    job = job_of(spec, tmp_path, kept=kept_by(heard))
    for _ in range(2):
        asyncio.run(clear_leftovers(job))
        assert files_of(tmp_path / "store") == []
        assert [path.name for path in files_of(tmp_path / "training")] == [f"{others.run_id}-01234567.journal"]


async def test_a_store_that_is_away_keeps_the_study_and_what_was_for_mlflow_from_nobody_s_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "store").write_text("no folder")
    job = job_of(stream_of(), tmp_path, kept=Kept(sha256="ab" * 32, size_bytes=1))
    study = tmp_path / "training" / f"{job.run_id}-01234567.journal"
    study.parent.mkdir()
    study.write_bytes(b"")
    folders = [killed_while_it_told_mlflow(run_id, monkeypatch) for run_id in (job.run_id, "another")]
    await clear_leftovers(job)
    assert not study.exists()
    assert [folder.exists() for folder in folders] == [False, True]


def killed_while_it_told_mlflow(run_id: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that a run leaves which ends while MLflow is told of it."""
    found: list[str] = []

    def fall(_uri: str, _experiment: str, _run: object, folder: str, _timeout_s: float) -> None:
        found.append(shutil.copytree(folder, f"{folder}0"))
        raise TrackingFailed("killed")

    run = TrackedRun(
        run_id=run_id, name="m", parameters={}, metrics={}, artifacts={"model/m": b"x"}, tags={}, start_ms=1, end_ms=2
    )
    monkeypatch.setattr("stores.tracking._ask", fall)
    with pytest.raises(TrackingFailed):
        track("http://nowhere:1", "flights", run)
    return Path(found[0])


async def test_a_store_that_does_not_answer_does_not_keep_the_end_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()
    monkeypatch.setattr("agents.train.leftovers.CLEAR_S", 0.1)
    monkeypatch.setattr(ArtifactStore, "remove", lambda *_: answers.wait(10))
    begun = time.monotonic()
    await clear_leftovers(job_of(stream_of(), tmp_path, kept=Kept(sha256="ab" * 32, size_bytes=1)))
    answers.set()
    assert time.monotonic() - begun < 2
    assert "the store does not answer" in caplog.text


async def test_a_store_that_is_away_then_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "store").write_text("no folder")
    await clear_leftovers(job_of(stream_of(), tmp_path, kept=Kept(sha256="ab" * 32, size_bytes=1)))
    assert "left unfinished stays where it is" in caplog.text
