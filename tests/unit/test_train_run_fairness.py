"""What keeps the verdict of a training run honest: folds, seeds, studies, and champions that know the test."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.train.making import Recipe, Trial, seed_of
from ml.training.xgboost_trainer import XGBoostTrainer
from schemas.events import ModelVersion, Sample
from schemas.text import duration
from schemas.training import GatesSpec, SearchSpec
from stores.documents import Documents, card_folder
from tests.making import DAY_MS, MINUTE_MS, SIGNER, Run, job_of, runner, samples_of, stream_of, training_of
from tests.tables import table_of

QUICK: dict[str, Any] = {"rounds": 20, "learning_rate": 0.3}
SAMPLES = samples_of(1200)
TEST_FROM_MS = DAY_MS + 912 * MINUTE_MS  # 1,140 samples are ripe, and 228 of them are the test


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(tmp_path, monkeypatch)


def card_of(root: Path, version: ModelVersion) -> str:
    return Documents(str(root / "store")).get(card_folder(version.model_id))["card.md"].decode()


def champion_of(run: Run, *, noise: float = 30.0, **changes: Any) -> ModelVersion:
    """Return a signed champion, of noisy labels unless told."""
    version = run(samples=samples_of(1200, seed=7, noise=noise)).made.version
    version = msgspec.structs.replace(version, model_id="champion", **changes)
    return msgspec.structs.replace(version, signature=SIGNER.sign(version))


def of_one_class_at_first(count: int) -> list[Sample]:
    """Return samples of which the first are all of class 0."""
    return [msgspec.structs.replace(s, label=0) if n < count else s for n, s in enumerate(SAMPLES)]


def test_a_fold_that_cannot_be_trained_on_is_left_out_with_a_note(run: Run, tmp_path: Path) -> None:
    made = run(stream_of(training=training_of(parameters=QUICK, folds=3)), of_one_class_at_first(230)).made
    [note] = made.notes
    assert note.startswith("fold 1 of 3 cannot be tried: the fold's training data has 228 samples, all of class 0")
    card = card_of(tmp_path, made.version)
    assert note in card
    assert "each judged on what follows" in card


def test_data_that_cannot_be_cut_into_so_many_folds_is_noted(run: Run) -> None:
    samples = [
        msgspec.structs.replace(s, event_time_ms=DAY_MS + n // 100 * 100 * MINUTE_MS) for n, s in enumerate(SAMPLES)
    ]
    made = run(stream_of(training=training_of(parameters=QUICK, folds=20)), samples).made
    assert any("event times leave no fold" in note for note in made.notes)


def test_a_search_with_such_a_fold_fails_before_it_begins_and_names_it(run: Run) -> None:
    search = SearchSpec(method="grid", space={"max_depth": {"choices": [1, 4]}})
    spec = stream_of(training=training_of(parameters=QUICK, folds=3, search=search))
    heard = run(spec, of_one_class_at_first(230))
    assert heard.phases == ["read"]
    assert heard.failed.message.startswith("training.folds: fold 1 of 3 cannot be tried")
    assert not heard.failed.again


def test_the_card_says_a_length_of_time_as_every_report_does(run: Run, tmp_path: Path) -> None:
    assert "without the last 1 h 30 min, whose labels" in card_of(tmp_path, run().made.version)


@pytest.mark.parametrize(("length_ms", "said"), [(60_000, "1 min"), (0, "0 min"), (90_061_000, "1 d 1 h 1 min")])
def test_lengths_of_time_have_days_hours_and_minutes(length_ms: int, said: str) -> None:
    assert duration(length_ms) == said


def test_the_losses_of_folds_are_not_called_more_than_they_are(run: Run, tmp_path: Path) -> None:
    made = run(stream_of(training=training_of(parameters=QUICK, folds=2))).made
    assert "so they are a little too good" in card_of(tmp_path, made.version)


def test_asking_again_gives_the_same_model_and_the_same_verdict(run: Run) -> None:
    parameters = QUICK | {"subsample": 0.5}
    spec = stream_of(training=training_of(parameters=parameters))
    first, again = (run(spec, run_id=run_id, stop_offset=5_000).made for run_id in ("run-1", "run-2"))
    assert again.version.sha256 == first.version.sha256
    assert again.gates == first.gates
    assert again.version.metrics == first.version.metrics


def test_other_samples_and_another_declaration_are_drawn_otherwise(tmp_path: Path) -> None:
    jobs = [
        job_of(stream_of(), tmp_path),
        job_of(stream_of(), tmp_path, stop_offset=7),
        job_of(stream_of(training=training_of(test_share=0.3)), tmp_path),
        job_of(stream_of("trains"), tmp_path),
    ]
    assert len({seed_of(job) for job in jobs}) == len(jobs)
    reordered = training_of(parameters={"learning_rate": 0.3, "max_depth": 3})
    assert seed_of(job_of(stream_of(training=reordered), tmp_path, run_id="run-2")) == seed_of(jobs[0])


def test_a_search_that_means_something_else_does_not_go_on_with_the_trials_of_another(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    original = XGBoostTrainer.fit

    def noting(self: Any, *given: Any) -> Any:
        fits.append(1)
        return original(self, *given)

    monkeypatch.setattr("ml.training.xgboost_trainer.XGBoostTrainer.fit", noting)
    monkeypatch.setattr("agents.train.making.seed_of", lambda job: 5)
    search = SearchSpec(method="grid", space={"max_depth": {"choices": [1, 4]}})
    for rounds, begun in ((20, 3), (20, 1), (10, 3)):
        fits.clear()
        assert run(stream_of(training=training_of(parameters=QUICK | {"rounds": rounds}, search=search))).made
        assert len(fits) == begun


def test_a_trial_is_known_by_recipe_folds_and_data_and_not_by_its_threads() -> None:
    recipe = Recipe(trainer="xgboost", feature_names=("a",), classes=1, seed=1, threads=1, parameters={"a": 1, "b": 2})
    train, validation = table_of([0, 1, 0]), table_of([1, 0])
    trial = Trial(recipe=recipe, train=train, validation=validation, folds=0)
    same = replace(trial, recipe=replace(recipe, threads=8, parameters={"b": 2, "a": 1}))
    others = [
        replace(trial, recipe=replace(recipe, parameters={"a": 2, "b": 2})),
        replace(trial, recipe=replace(recipe, trainer="sklearn")),
        replace(trial, recipe=replace(recipe, seed=2)),
        replace(trial, folds=2),
        replace(trial, validation=table_of([1, 1])),
        replace(trial, train=replace(train, weights=np.array([1.0, 2.0, 1.0]))),
    ]
    assert same.digest() == trial.digest()
    assert len({each.digest() for each in (trial, *others)}) == 1 + len(others)


def test_the_share_of_the_test_that_the_champion_knows_is_said(run: Run) -> None:
    champion = champion_of(run, training_to_time_ms=TEST_FROM_MS + 57 * MINUTE_MS)
    [gate] = run(champion=champion).made.gates
    assert "the champion has learnt from 25.0% of these rows" in gate.message
    fresh = champion_of(run, training_to_time_ms=TEST_FROM_MS)
    assert "learnt from" not in run(champion=fresh).made.gates[0].message


def served(score_of: dict[int, float], samples: Sequence[Sample] = SAMPLES) -> list[Sample]:
    return [msgspec.structs.replace(s, score=score_of[int(s.label)]) for s in samples]


@pytest.mark.parametrize(("scores", "passed"), [({0: 0.5, 1: 0.5}, True), ({0: 0.1, 1: 0.9}, False)])
def test_a_learner_counts_with_what_was_served_and_not_with_what_it_knows_now(
    run: Run, tmp_path: Path, scores: dict[int, float], passed: bool
) -> None:
    champion = champion_of(run, lineage="online", training_to_time_ms=None, training_to_offset=1200)
    made = run(samples=served(scores), champion=champion).made
    [gate] = made.gates
    assert made.passed == passed, gate
    assert made.version.metrics["champion_roc_auc"] == (0.5 if passed else 1.0)
    assert "counts with what was served at the time" in gate.message
    assert "counts with what was served at the time" in card_of(tmp_path, made.version)


def test_a_query_without_entities_leaves_a_gain_to_a_person(run: Run, tmp_path: Path) -> None:
    rows = [(s.event_id, s.entity_id, s.event_time_ms, s.label, *s.features) for s in SAMPLES]
    with sqlite3.connect(tmp_path / "samples.db") as connection:
        connection.execute("CREATE TABLE samples (event_id, entity_id, event_time, label, a, b, c)")
        connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    champion, url = champion_of(run), f"sqlite:///{tmp_path}/samples.db"
    gates = GatesSpec(min_gain=0.0)
    whole, lacking = (
        run(
            stream_of(training=training_of(gates=gates, sql=f"SELECT {columns} FROM samples")),
            sql_url=url,
            champion=champion,
        ).made
        for columns in ("*", "event_id, event_time, label, a, b, c")
    )
    assert whole.passed
    assert whole.notes == ()
    [gate] = lacking.gates
    assert not gate.passed
    assert "takes a person" in gate.message
    assert (gate.low, gate.high) == (None, None)
    [note] = lacking.notes
    assert "gives no entity_id" in note
    assert note in card_of(tmp_path, lacking.version)


def test_a_feature_that_went_too_late_to_have_vanished_is_noted(run: Run, tmp_path: Path) -> None:
    samples = [
        msgspec.structs.replace(s, features=(s.features[0], s.features[1], None if n > 940 else s.features[2]))
        for n, s in enumerate(SAMPLES)
    ]
    made = run(samples=samples).made
    [note] = made.notes
    assert note.startswith("Feature c is known in ")
    assert note in card_of(tmp_path, made.version)
