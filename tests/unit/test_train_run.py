"""A training run, from samples to a candidate in the store."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.train.job import Kept, Made
from agents.train.run import run_job
from ml.drift.baseline import Baseline
from ml.models.registry import model_type
from ml.training.xgboost_trainer import XGBoostTrainer
from schemas.events import ModelVersion, Sample
from schemas.training import GatesSpec, SearchSpec
from stores.artifacts import ArtifactStore, ArtifactUnavailable, Signer
from stores.documents import Documents, card_folder
from stores.tracking import TrackedRun, TrackingFailed
from tests.making import (
    DAY_MS,
    END_MS,
    MINUTE_MS,
    SIGNER,
    Heard,
    Run,
    job_of,
    runner,
    samples_of,
    stream_of,
    training_of,
)

SPEC = stream_of()
SAMPLES = samples_of(1200)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(tmp_path, monkeypatch)


def a_champion(run: Run, *, noise: float = 30.0, **changes: Any) -> ModelVersion:
    """Return a champion that knows little: it was trained on noisy labels."""
    version = run(samples=samples_of(1200, seed=7, noise=noise), run_id="flights-run-0").made.version
    return msgspec.structs.replace(version, model_id="champion", **changes)


def signed(version: ModelVersion) -> ModelVersion:
    return msgspec.structs.replace(version, signature=SIGNER.sign(version))


def test_a_run_leaves_a_signed_model_its_baseline_and_its_card_in_the_store(run: Run, tmp_path: Path) -> None:
    heard = run(plots=True)
    made, version = heard.made, heard.made.version
    store = ArtifactStore(str(tmp_path / "store"))
    SIGNER.verify(version)
    model = model_type(version.algorithm).load(store.get(version.sha256, version.size_bytes))
    baseline = Baseline.decode(store.get(version.baseline, version.baseline_bytes))
    card = Documents(str(tmp_path / "store")).get(card_folder(version.model_id))
    assert heard.phases == ["read", "fit", "evaluate", "record"]
    assert model.n_features == 3
    assert [column.name for column in baseline.columns] == ["a", "b", "c", "score"]
    assert {"card.md", "report.json", "roc.svg", "drift.json"} <= card.keys()
    assert (made.passed, made.samples, made.from_time_ms) == (True, 1140, DAY_MS)
    assert version.metrics["roc_auc"] > 0.8
    assert (version.run_id, version.created_time_ms, version.version) == ("flights-run-1", 1_700_000_000_000, "")


def test_what_was_learnt_from_ends_where_the_test_begins(run: Run) -> None:
    made = run().made
    assert made.version.training_from_time_ms == made.from_time_ms
    assert made.version.training_to_time_ms == DAY_MS + round(0.8 * made.samples) * MINUTE_MS
    assert made.to_time_ms == DAY_MS + (made.samples - 1) * MINUTE_MS + 1


def test_two_attempts_come_to_the_same(run: Run) -> None:
    first, second = run(attempt=1).made, run(attempt=2).made
    assert first == second


@pytest.mark.parametrize("damage", ["none", "missing", "damaged"])
def test_an_attempt_goes_on_from_what_was_kept_or_begins_anew_and_comes_to_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    kept: list[bytes] = []
    monkeypatch.setattr("agents.train.making.Unfinished.keep", lambda _, payload: kept.append(payload))
    monkeypatch.setattr("ml.training.xgboost_trainer.KEEP_ROUNDS", 10)
    spec = stream_of(training=training_of(parameters={"max_depth": 3, "learning_rate": 0.05}))
    whole = run(spec).made
    assert kept
    payload = b"flights-run-1\n" + kept[0]
    store = ArtifactStore(str(tmp_path / "store"))
    found = Kept(sha256=store.put(payload), size_bytes=len(payload))
    if damage == "missing":
        store.remove(found.sha256)
    if damage == "damaged":
        (tmp_path / "store" / found.sha256[:2] / found.sha256).write_bytes(b"something else")
    resumed: list[bytes] = []
    original = XGBoostTrainer.fit

    def noting(self: Any, train: Any, validation: Any, watch: Any, resume: bytes = b"") -> Any:
        resumed.append(resume)
        return original(self, train, validation, watch, resume)

    monkeypatch.setattr("ml.training.xgboost_trainer.XGBoostTrainer.fit", noting)
    assert run(spec, kept=found).made == whole
    assert resumed == [kept[0] if damage == "none" else b""]


def test_with_shuffled_labels_a_model_is_worth_nothing_and_is_refused(run: Run) -> None:
    samples = samples_of(4000, noise=0.1)
    labels = np.random.default_rng(3).permutation([int(sample.label) for sample in samples]).tolist()
    shuffled = [msgspec.structs.replace(s, label=label) for s, label in zip(samples, labels, strict=True)]
    spec = stream_of(training=training_of(gates=GatesSpec(min_auc=0.6)))
    honest, made = run(spec, samples).made, run(spec, shuffled).made
    assert honest.version.metrics["roc_auc"] > 0.95
    assert honest.passed
    assert made.version.metrics["roc_auc"] == pytest.approx(0.5, abs=0.06)  # two standard errors of 790 test rows
    assert not made.passed
    assert [gate.gate for gate in made.gates if not gate.passed] == ["min_auc"]


def test_a_candidate_that_is_better_than_the_champion_passes(run: Run) -> None:
    made = run(champion=signed(a_champion(run))).made
    [gate] = made.gates
    assert made.passed, gate
    assert made.version.parent == "champion"
    assert made.version.metrics["champion_roc_auc"] < made.version.metrics["roc_auc"] == gate.value
    assert gate.low is not None
    assert gate.low > 0


def test_a_candidate_that_is_no_better_does_not(run: Run) -> None:
    champion = signed(msgspec.structs.replace(run(run_id="flights-run-0").made.version, model_id="champion"))
    assert not run(champion=champion).made.passed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": ("a", "b")}, "other features than stream 'flights' declares: a, b instead of a, b, c"),
        ({"signature": "forged"}, "signature of model 'champion' is wrong"),
        ({"sha256": "0" * 64}, "does not exist"),
        ({"pruned": True}, "was pruned"),
        ({"algorithm": "of-nobody"}, "no algorithm is called 'of-nobody'"),
    ],
    ids=["other features", "forged", "missing", "pruned", "unknown"],
)
def test_a_champion_that_cannot_be_compared_with_takes_a_person(run: Run, changes: dict[str, Any], words: str) -> None:
    champion = msgspec.structs.replace(a_champion(run), **changes)
    made = run(champion=champion if "signature" in changes else signed(champion)).made
    [gate] = made.gates
    assert not made.passed
    assert words in gate.message
    assert "takes a person" in gate.message


def test_a_champion_whose_file_is_another_is_not_opened(run: Run, tmp_path: Path) -> None:
    champion = signed(a_champion(run))
    (tmp_path / "store" / champion.sha256[:2] / champion.sha256).write_bytes(b"evil")
    made = run(champion=champion).made
    assert not made.passed
    assert "was changed since it was stored" in made.gates[0].message


def test_a_backtest_counts_the_alerts_of_both(run: Run) -> None:
    spec = stream_of(training=training_of(gates=GatesSpec(min_gain=0.0, backtest=True)))
    made = run(spec, champion=signed(a_champion(run))).made
    assert [gate.gate for gate in made.gates] == ["champion", "backtest"]
    assert made.gates[1].value is not None


def one_class(samples: list[Sample]) -> list[Sample]:
    return [msgspec.structs.replace(sample, label=0) for sample in samples]


def without_newest_b(samples: list[Sample]) -> list[Sample]:
    return [
        msgspec.structs.replace(s, features=(s.features[0], None if n > 700 else s.features[1], s.features[2]))
        for n, s in enumerate(samples)
    ]


def of_an_older_list(samples: list[Sample]) -> list[Sample]:
    return [
        msgspec.structs.replace(s, features=(*s.features[:2], None if n < 1080 else 1.5)) for n, s in enumerate(samples)
    ]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda samples: samples[:90], "the whole data has 30 samples, and needs 100"),
        (one_class, "all of class 0"),
        (without_newest_b, "a feature vanished: b"),
        (of_an_older_list, "60 samples, and needs 100; 1080 samples of an older feature list, without c, are left out"),
        (lambda samples: [], "has no sample yet"),
    ],
    ids=["too few", "one class", "a feature vanished", "an older feature list", "none"],
)
def test_data_that_no_model_can_be_made_of_is_a_failure_that_says_why(
    run: Run, spoil: Callable[[list[Sample]], list[Sample]], words: str
) -> None:
    failed = run(samples=spoil(SAMPLES)).failed
    assert words in failed.message
    assert not failed.again


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer": "of-nobody"}, "no trainer is called 'of-nobody'"),
        ({"parameters": {"depht": 3}}, "no parameter 'depht'"),
        (
            {"search": SearchSpec(method="grid", space={"gamma": (0.0, 1.0)})},
            "a grid needs choices or a step for gamma",
        ),
        ({"parameters": {"seed": 3, "feature_names": "a"}}, "training: feature_names, seed cannot be given"),
        ({"search": SearchSpec(space={"threads": (1, 2)})}, "training: threads cannot be given or searched"),
    ],
)
def test_a_wrong_declaration_is_a_failure_that_is_not_tried_again(
    run: Run, changes: dict[str, Any], words: str
) -> None:
    failed = run(stream_of(training=training_of(**changes))).failed
    assert words in failed.message
    assert (failed.again, failed.samples) == (False, 1140)


def test_a_full_disk_is_a_failure_that_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stores.files.reach_disk", full)
    failed = run().failed
    assert failed.again
    assert "No space left on device" in failed.message


def test_a_store_that_is_away_is_a_failure_that_is_tried_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    assert run().failed.again


def test_a_champion_that_the_store_does_not_give_now_is_a_failure_that_is_tried_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = signed(a_champion(run))

    def away(*_: object) -> bytes:
        raise ArtifactUnavailable("the model store failed")

    monkeypatch.setattr("stores.artifacts.ArtifactStore.get", away)
    monkeypatch.setattr("stores.artifacts.ArtifactStore.put", lambda _, payload: hashlib.sha256(payload).hexdigest())
    failed = run(champion=champion).failed
    assert (failed.message, failed.again) == ("the model store failed", True)


def test_a_kafka_that_is_away_is_a_failure_that_is_tried_again(tmp_path: Path) -> None:
    heard = Heard()
    run_job(job_of(SPEC, tmp_path), heard)
    assert heard.failed.again
    assert heard.failed.message.startswith("Kafka failed, check that its brokers run")


def test_whatever_a_trainer_raises_is_a_failure_that_is_recorded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("somebody's trainer divides by 0")

    monkeypatch.setattr("ml.training.xgboost_trainer.XGBoostTrainer.fit", broken)
    failed = run().failed
    assert failed.message == "ZeroDivisionError: somebody's trainer divides by 0"
    assert not failed.again


def test_an_error_without_a_message_says_where_it_arose(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("agents.train.run.judge_candidate", broken)
    line = broken.__code__.co_firstlineno + 1
    assert run().failed.message == f"AssertionError was raised without a message in {__name__}, line {line}"


def test_why_a_person_asked_stands_in_the_card(run: Run, tmp_path: Path) -> None:
    made = run(asked_because="a hurricane | came").made
    card = Documents(str(tmp_path / "store")).get(card_folder(made.version.model_id))["card.md"].decode()
    assert "tests asked for it (manual: a hurricane \\| came)." in card
    assert "`drift.json`" in card


def test_mlflow_is_told_everything_and_where_it_is_there_is_noted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, TrackedRun]] = []

    def track(uri: str, experiment: str, tracked: TrackedRun) -> str:
        told.append((uri, experiment, tracked))
        return "http://mlflow/1"

    monkeypatch.setattr("agents.train.recording.track", track)
    made = run(mlflow_uri="http://mlflow", mlflow_experiment="flights").made
    [(uri, experiment, tracked)] = told
    assert (uri, experiment, tracked.run_id) == ("http://mlflow", "flights", "flights-run-1")
    assert (tracked.start_ms, tracked.end_ms) == (1_700_000_000_000, END_MS)
    assert {
        "card/card.md",
        "card/report.json",
        "card/drift.json",
        "baseline.json",
        f"model/{made.version.model_id}",
    } <= tracked.artifacts.keys()
    assert Baseline.decode(tracked.artifacts["baseline.json"]).features
    assert {"roc_auc", "validation_roc_auc", "validation_loss"} <= tracked.metrics.keys()
    assert tracked.parameters["max_depth"] == 3
    assert made.notes == ("The run is in MLflow: http://mlflow/1",)


def test_mlflow_that_is_down_is_a_note_and_no_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def track(*_: object) -> str:
        raise TrackingFailed("MLflow at http://mlflow did not take the run")

    monkeypatch.setattr("agents.train.recording.track", track)
    made: Made = run(mlflow_uri="http://mlflow").made
    assert made.passed
    assert made.notes == ("MLflow at http://mlflow did not take the run",)


def test_a_model_of_another_key_is_not_taken_for_ours(run: Run) -> None:
    champion = a_champion(run)
    forged = msgspec.structs.replace(champion, signature=Signer(b"another").sign(champion))
    assert not run(champion=forged).made.passed
