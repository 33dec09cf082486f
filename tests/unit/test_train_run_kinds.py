"""Training runs of other kinds: searched, validated over time, of several classes, of other trainers, out of SQL."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.train.job import Progress
from ml.models.registry import model_type
from ml.training.xgboost_trainer import XGBoostTrainer
from schemas.events import Sample
from schemas.training import GatesSpec, SearchSpec
from stores.artifacts import ArtifactStore, ArtifactUnavailable
from stores.documents import Documents, card_folder
from tests.making import DAY_MS, MINUTE_MS, Heard, Run, runner, samples_of, stream_of, training_of

QUICK = {"rounds": 20, "learning_rate": 0.3}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(tmp_path, monkeypatch)


def messages(heard: Heard, phase: str) -> list[str]:
    return [said.message for said in heard.said if isinstance(said, Progress) and said.phase == phase and said.message]


def test_a_search_chooses_the_parameters_on_data_before_the_test(run: Run, tmp_path: Path) -> None:
    search = SearchSpec(method="grid", trials=4, space={"max_depth": {"choices": [1, 4]}})
    spec = stream_of(training=training_of(parameters=QUICK, search=search))
    heard = run(spec)
    made = heard.made
    assert heard.phases == ["read", "search", "fit", "evaluate", "record"]
    assert [told.split(",")[0] for told in messages(heard, "search")] == ["trial 1 of 2", "trial 2 of 2"]
    card = Documents(str(tmp_path / "store")).get(card_folder(made.version.model_id))["card.md"].decode()
    assert "best of 2 trials" in card
    losses = [
        run(stream_of(training=training_of(parameters=QUICK | {"max_depth": depth}))).made.version for depth in (1, 4)
    ]
    best = min(losses, key=lambda version: version.metrics["validation_loss"])
    assert made.version.parameters["max_depth"] == best.parameters["max_depth"]


def test_a_search_that_was_killed_does_not_try_again_what_it_tried(run: Run) -> None:
    search = SearchSpec(method="grid", space={"max_depth": {"choices": [1, 4]}})
    spec = stream_of(training=training_of(parameters=QUICK, search=search))
    first, second = run(spec), run(spec, attempt=2)
    assert messages(second, "search") == []
    assert first.made == second.made


def test_folds_are_of_the_data_before_the_test(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[int, int]] = []
    original = XGBoostTrainer.fit

    def noting(self: Any, train: Any, validation: Any, *rest: Any) -> Any:
        fits.append((len(train), len(validation)))
        assert train.event_time_ms.max() < validation.event_time_ms.min()
        return original(self, train, validation, *rest)

    monkeypatch.setattr("ml.training.xgboost_trainer.XGBoostTrainer.fit", noting)
    heard = run(stream_of(training=training_of(parameters=QUICK, folds=3)))
    assert heard.phases == ["read", "validate", "fit", "evaluate", "record"]
    assert fits == [(228, 228), (456, 228), (684, 228), (798, 114)]  # of 1,140 rows, 228 are the test
    assert len(messages(heard, "validate")) == 3
    card = Documents(str(tmp_path / "store")).get(card_folder(heard.made.version.model_id))["card.md"].decode()
    assert "each judged on what follows" in card


def of_classes(count: int) -> list[Sample]:
    random = np.random.default_rng(1)
    names = ("tit", "owl", "crow")
    return [
        msgspec.structs.replace(s, label=names[place], predicted="tit", scores=[0.4, 0.3, 0.3])
        for s, place in zip(samples_of(count), random.integers(0, 3, count).tolist(), strict=True)
        for s in [msgspec.structs.replace(s, features=(float(place), *s.features[1:]))]
    ]


def test_several_classes_are_learnt_and_compared_by_log_loss(run: Run) -> None:
    spec = stream_of("birds", task="multiclass", classes=("tit", "owl", "crow"), training=training_of(parameters=QUICK))
    first = run(spec, of_classes(900)).made
    assert first.passed
    assert first.version.metrics["accuracy"] > 0.95
    again = run(spec, of_classes(900), champion=first.version).made
    assert not again.passed
    assert "log loss" in again.gates[0].message


def test_an_anomaly_stream_is_judged_by_its_ranking(run: Run) -> None:
    made = run(stream_of(task="anomaly", training=training_of(parameters=QUICK))).made
    assert made.version.metrics["roc_auc"] > 0.8
    assert "log_loss" not in made.version.metrics


def test_a_scikit_learn_estimator_is_trained_stored_and_opened(run: Run, tmp_path: Path) -> None:
    training = training_of(trainer="sklearn", parameters={"estimator": "sklearn.linear_model.LogisticRegression"})
    version = run(stream_of(training=training)).made.version
    payload = ArtifactStore(str(tmp_path / "store")).get(version.sha256, version.size_bytes)
    assert version.algorithm == "sklearn"
    assert model_type("sklearn").load(payload).n_features == 3
    assert version.metrics["roc_auc"] > 0.8


def test_a_query_stands_in_for_the_archive_and_the_log(run: Run, tmp_path: Path) -> None:
    samples = samples_of(1200)
    rows = [(s.event_id, s.entity_id, s.event_time_ms, s.label, *s.features) for s in samples]
    with sqlite3.connect(tmp_path / "samples.db") as connection:
        connection.execute("CREATE TABLE samples (event_id, entity_id, event_time, label, a, b, c)")
        connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    query = "SELECT * FROM samples WHERE event_time BETWEEN :from_time_ms AND :to_time_ms"
    spec = stream_of(training=training_of(sql=query))
    now_ms = DAY_MS + 1139 * MINUTE_MS + 1 + spec.ripens_ms
    url = f"sqlite:///{tmp_path}/samples.db"
    heard = run(spec, [], sql_url=url, now_ms=now_ms)  # nothing is in the log, so it is the clock that counts
    made, usual = heard.made, run(samples=samples).made
    assert (made.samples, made.from_time_ms, made.to_time_ms) == (1140, usual.from_time_ms, usual.to_time_ms)
    assert made.version.sha256 == usual.version.sha256
    assert made.version.training_from_offset is None
    card = Documents(str(tmp_path / "store")).get(card_folder(made.version.model_id))["card.md"].decode()
    assert query in card


def test_a_query_that_is_refused_is_a_failure_with_a_sentence(run: Run) -> None:
    spec = stream_of(training=training_of(sql="SELECT 1 AS event_id"))
    failed = run(spec, sql_url="sqlite://").failed
    assert "gives no column event_time, label, a, b, c" in failed.message
    assert not failed.again
    assert not run(spec).failed.again  # without an URL


def test_a_high_bar_is_not_reached_and_the_candidate_is_made_all_the_same(run: Run) -> None:
    gates = GatesSpec(min_precision=0.99, min_recall=0.1)
    made = run(stream_of(training=training_of(parameters=QUICK, gates=gates))).made
    assert [(gate.gate, gate.passed) for gate in made.gates] == [
        ("min_precision", False),
        ("min_recall", True),
        ("champion", True),
    ]
    assert made.version.signature


def test_a_fit_goes_on_when_its_unfinished_work_cannot_be_stored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    put = ArtifactStore.put

    def full(self: ArtifactStore, payload: bytes) -> str:
        if payload.startswith(b"flights-run-1\n"):
            raise ArtifactUnavailable("the disk is full")
        return put(self, payload)

    monkeypatch.setattr("stores.artifacts.ArtifactStore.put", full)
    monkeypatch.setattr("ml.training.xgboost_trainer.KEEP_ROUNDS", 5)
    assert run().made.passed


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
