"""Training a first model from a file of labelled events: the older rows teach it, the newest tell what it is worth.

It is what a training run does with samples, without its champion and its gates: what the model is compared with is
guessing, that is, giving every event the shares that the classes have among the rows it was trained on.
"""

import math
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from agents.baselines import BaselineUnusable, baseline_of_rows, scores_of
from agents.registering import describe_model
from app.baselines import with_baseline
from app.csv_events import NO_LABEL, CsvEvents
from ml.errors import ModelError
from ml.evaluation.tally import Scoring
from ml.models.protocol import Model, Scores
from ml.models.registry import model_type
from ml.training.comparison import Difference, Metric, compare
from ml.training.measure import Measures, measure
from ml.training.protocol import Fitted, TrainingImpossible, Watch
from ml.training.registry import trainer_type
from ml.training.split import Split, require_learnable, split, vanished
from ml.training.table import Table
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from schemas.training import TrainingSpec
from stores.artifacts import ArtifactStore

_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model, the rows that it was made of, and what it is worth on the last of them.

    `timed` is whether the rows were in the order of time; else they were shuffled, and `shared` entities have rows both
    in the test and outside it. `against_guessing` are the differences from guessing, by metric. `unlabelled` rows were
    left out.
    """

    fitted: Fitted
    model: Model
    parts: Split
    timed: bool
    shared: int
    unlabelled: int
    test: Measures
    against_guessing: tuple[Difference, ...]

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part has, and how many were left out."""
        return {
            "train": len(self.parts.train),
            "validation": len(self.parts.validation),
            "test": len(self.parts.test),
            "unlabelled": self.unlabelled,
        }

    @property
    def better_than_guessing(self) -> bool:
        """Whether it surely is, by one of the metrics."""
        return any(difference.surely_better for difference in self.against_guessing)


def train(spec: StreamSpec, events: CsvEvents, threads: int, watch: Watch) -> Trained:
    """Train with the stream's trainer and its parameters (XGBoost unless declared), and measure the model.

    The rows are split by time, in the shares that the stream declares: 70% to train on, 10% to stop by, 20% for the
    test. Raises PenstockError when nothing can be learnt or tested. About 5 s for 100,000 rows of ten features.
    """
    table, timed = _table(spec, events)
    try:
        parts = _parts(spec, table)
        fitted = _fit(spec, parts, threads, watch)
        model = model_type(fitted.algorithm).load(fitted.payload, threads=threads)
        scores = scores_of(model, parts.test.matrix)
        scoring = Scoring(spec.task, len(spec.classes) or 2, spec.threshold)
        return Trained(
            fitted=fitted,
            model=model,
            parts=parts,
            timed=timed,
            shared=0 if timed else _shared(parts),
            unlabelled=len(events.labels) - len(table),
            test=measure(scores, parts.test, scoring),
            against_guessing=_against_guessing(spec, scores, parts, scoring),
        )
    except ModelError as error:
        raise PenstockError(f"no model can be trained: {error}") from error


def version_of(
    spec: StreamSpec, trained: Trained, store: ArtifactStore, registered_by: str, now_ms: int
) -> tuple[ModelVersion, str]:
    """Return the version to register, with its baseline in the store, and a sentence when there can be none.

    The baseline is of the rows that the model was not fitted to, as that of a training run is.
    """
    fitted, parts = trained.fitted, trained.parts
    metrics = trained.test.metrics | {"validation_loss": fitted.loss}
    version = describe_model(
        spec,
        fitted.payload,
        fitted.algorithm,
        registered_by,
        now_ms,
        {name: value for name, value in metrics.items() if math.isfinite(value)},
        fitted.parameters,
    )
    if trained.timed:
        version = msgspec.structs.replace(
            version,
            training_from_time_ms=int(parts.train.event_time_ms[0]),
            training_to_time_ms=int(parts.test.event_time_ms[0]),
        )
    matrix = np.concatenate([parts.validation.matrix, parts.test.matrix])
    try:
        return with_baseline(version, store, baseline_of_rows(spec, trained.model, matrix)), ""
    except BaselineUnusable as error:
        return version, f"There is nothing to measure its drift against: {error}."


def _table(spec: StreamSpec, events: CsvEvents) -> tuple[Table, bool]:
    """Return the labelled rows in the order of time, or shuffled if there is none, and whether there is one.

    A file without times may be sorted by anything, its label too: any other order is as true, and a random one is fair.
    """
    rows = np.flatnonzero(events.labels != NO_LABEL)
    times_ms = events.times_ms
    if times_ms is None:
        rows = np.random.default_rng(_SEED).permutation(rows)
    entities = np.unique(np.array(events.entity_ids, dtype=object), return_inverse=True)[1]
    table = Table(
        matrix=events.features[rows].astype(np.float32),
        labels=events.labels[rows],
        weights=np.ones(len(rows)),
        event_time_ms=np.arange(len(rows)) if times_ms is None else times_ms[rows],
        entities=entities[rows].astype(np.int64),
        served=np.full((len(rows), len(spec.classes)) if spec.classes else len(rows), np.nan),
    )
    return table, times_ms is not None


def _parts(spec: StreamSpec, table: Table) -> Split:
    """Return the rows in three parts. Raises TrainingImpossible when one of them cannot be learnt from or judged by."""
    training, classes = spec.training or TrainingSpec(), len(spec.classes) or 1
    require_learnable(table, classes, 1, "labelled")
    if sentence := vanished(table, spec.features):
        raise TrainingImpossible(sentence)
    parts = split(table, training.validation_share, training.test_share)
    for name, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        require_learnable(part, classes, 1, name)
    return parts


def _shared(parts: Split) -> int:
    """Return how many entities of the test have rows in another part, too."""
    others = np.concatenate([parts.train.entities, parts.validation.entities])
    return len(np.intersect1d(parts.test.entities, others))


def _fit(spec: StreamSpec, parts: Split, threads: int, watch: Watch) -> Fitted:
    training = spec.training or TrainingSpec()
    kind = trainer_type(training.trainer)
    trainer = kind(spec.features, len(spec.classes) or 1, seed=_SEED, threads=threads, **training.parameters)
    return trainer.fit(parts.train, parts.validation, watch)


def _against_guessing(spec: StreamSpec, scores: Scores, parts: Split, scoring: Scoring) -> tuple[Difference, ...]:
    shares = np.bincount(parts.train.labels, minlength=scoring.classes) / len(parts.train)
    guess = np.tile(shares, (len(scores), 1)) if spec.classes else np.full(len(scores), shares[1])
    metrics: tuple[Metric, ...] = ("accuracy", "log_loss") if spec.classes else ("roc_auc", "accuracy")
    return tuple(compare(metric, scores, guess, parts.test, scoring) for metric in metrics)
