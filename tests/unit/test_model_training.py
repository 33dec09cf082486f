"""A model from a file of labelled events."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from app.csv_events import CsvEvents
from app.model_training import Trained, train, version_of
from app.model_training_report import lines
from ml.drift.baseline import Baseline
from ml.training.protocol import Unwatched
from schemas.errors import PenstockError
from schemas.streams import CsvSpec, StreamSpec
from schemas.training import TrainingSpec
from stores.artifacts import ArtifactStore

FEW_ROUNDS = TrainingSpec(parameters={"rounds": 30, "max_depth": 3})
BINARY = StreamSpec(name="s", features=("a", "b"), training=FEW_ROUNDS)
THREE = msgspec.structs.replace(BINARY, task="multiclass", classes=("x", "y", "z"))


def events(n: int = 1_000, *, timed: bool = True, **changes: Any) -> CsvEvents:
    """Return events of which the first feature tells the label three times in four."""
    random = np.random.default_rng(5)
    features = random.normal(size=(n, 2))
    labels = ((features[:, 0] > 0) ^ (random.random(n) < 0.25)).astype(np.int64)
    fields: dict[str, Any] = {
        "columns": CsvSpec(),
        "event_ids": [f"e{i}" for i in range(n)],
        "entity_ids": [f"n{i % 200}" for i in range(n)],
        "times_ms": 1_000 * np.arange(n) if timed else None,
        "features": features,
        "labels": labels,
    }
    return CsvEvents(**(fields | changes))


def trained(spec: StreamSpec, given: CsvEvents) -> Trained:
    return train(spec, given, 1, Unwatched())


def test_the_older_rows_teach_and_the_newest_fifth_judges() -> None:
    made = trained(BINARY, events())
    assert made.rows == {"train": 700, "validation": 100, "test": 200, "unlabelled": 0}
    assert made.parts.test.event_time_ms.tolist() == [1_000 * i for i in range(800, 1_000)]
    by_metric = {difference.metric: difference for difference in made.against_guessing}
    auc, accuracy = by_metric["roc_auc"], by_metric["accuracy"]
    assert auc.champion == 0.5
    assert auc.candidate == pytest.approx(made.test.roc_auc)
    assert auc.low is not None
    assert auc.high is not None
    assert 0.1 < auc.low < auc.value < auc.high < 0.4
    assert accuracy.candidate == pytest.approx(0.75, abs=0.07)
    assert made.better_than_guessing
    text = "\n".join(lines(made))
    assert "Trained on 700 rows, stopped by 100, tested on the newest 200 rows" in text
    assert f"ROC AUC   {auc.candidate:.3f}, by guessing 0.500: {auc.value:+.3f} ({auc.low:+.3f} to" in text


def test_what_cannot_be_learnt_is_told_to_be_no_better_than_guessing() -> None:
    coin = np.random.default_rng(1).integers(0, 2, 1_000)
    made = trained(BINARY, events(labels=coin))
    assert not made.better_than_guessing
    assert "It may be no better than guessing" in "\n".join(lines(made))


def test_rows_without_times_are_shuffled_so_that_a_file_sorted_by_its_label_can_be_learnt() -> None:
    given = events(timed=False)
    order = np.argsort(given.labels, kind="stable")
    made = trained(BINARY, events(timed=False, features=given.features[order], labels=given.labels[order]))
    assert made.better_than_guessing
    assert "the rows were shuffled" in "\n".join(lines(made))
    with pytest.raises(PenstockError, match="the validation data has 100 samples, all of class 1"):
        trained(BINARY, events(features=given.features[order], labels=given.labels[order]))


def test_rows_without_a_label_are_left_out_and_told() -> None:
    labels = events().labels.copy()
    labels[::4] = -1
    made = trained(BINARY, events(labels=labels))
    assert sum(len(part) for part in (made.parts.train, made.parts.validation, made.parts.test)) == 750
    assert "250 rows without a label were left out." in list(lines(made))


def test_entities_on_both_sides_of_a_shuffled_test_are_told() -> None:
    told = "\n".join(lines(trained(BINARY, events(timed=False))))
    assert "entities of the test have rows in what the model learnt from, too" in told
    alone = trained(BINARY, events(timed=False, entity_ids=[f"n{i}" for i in range(1_000)]))
    assert (alone.shared, trained(BINARY, events()).shared) == (0, 0)


def test_several_classes_are_learnt_and_compared_with_their_shares() -> None:
    features = events().features
    made = trained(THREE, events(labels=np.digitize(features[:, 0], [-0.5, 0.5])))
    assert {difference.metric for difference in made.against_guessing} == {"accuracy", "log_loss"}
    assert made.better_than_guessing
    assert made.model.classes == 3
    assert made.test.roc_auc is not None


def test_anomalies_are_learnt_from_their_labels() -> None:
    made = trained(msgspec.structs.replace(BINARY, task="anomaly"), events())
    assert made.better_than_guessing


def test_the_version_has_figures_times_parameters_and_a_baseline_of_rows_it_was_not_fitted_to(tmp_path: Path) -> None:
    made = trained(BINARY, events())
    store = ArtifactStore(str(tmp_path))
    version, note = version_of(BINARY, made, store, "somebody", 1_700_000_000_000)
    assert note == ""
    assert version.metrics["roc_auc"] == made.test.roc_auc
    assert version.metrics["validation_loss"] == made.fitted.loss
    assert version.parameters["max_depth"] == 3
    assert (version.training_from_time_ms, version.training_to_time_ms) == (0, 800_000)
    baseline = Baseline.decode(store.get(version.baseline, version.baseline_bytes))
    assert [column.n for column in baseline.columns[:2]] == [300, 300]


def test_with_few_rows_there_is_a_model_without_a_baseline_which_is_told(tmp_path: Path) -> None:
    version, note = version_of(BINARY, trained(BINARY, events(150, timed=False)), ArtifactStore(str(tmp_path)), "", 1)
    assert (version.baseline, version.training_from_time_ms) == ("", None)
    assert note.startswith("There is nothing to measure its drift against: a baseline needs at least 100 rows")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.full(1_000, -1), "the labelled data has 0 samples"),
        (np.zeros(1_000, dtype=np.int64), "all of class 0; two classes are the least"),
    ],
)
def test_what_nothing_can_be_learnt_from_is_one_sentence(labels: Any, sentence: str) -> None:
    with pytest.raises(PenstockError, match=sentence):
        trained(BINARY, events(labels=labels))


def test_parameters_that_the_trainer_does_not_know_are_one_sentence() -> None:
    spec = msgspec.structs.replace(BINARY, training=TrainingSpec(parameters={"deepth": 3}))
    with pytest.raises(PenstockError, match=r"no model can be trained: .*deepth"):
        trained(spec, events())
