"""Cards of candidates, for tests."""

from dataclasses import replace

import numpy as np

from agents.train.facts import Card, Rival, part_of
from ml.evaluation.tally import Scoring
from ml.training.comparison import compare
from ml.training.gates import Champion, GateRules, judge
from ml.training.importance import permutation_importance
from ml.training.measure import measure
from ml.training.table import Table
from schemas.events import ModelVersion
from tests.tables import BINARY, THREE, Weighing, table_of, three_classes

NAMES = ("weight | kg", "price in $x$", "age", "none")
PARTS = ("train", "validation", "test")
HOUR_MS = 3_600_000


def version_of(model_id: str, classes: tuple[str, ...] = ()) -> ModelVersion:
    """Return a registered model."""
    return ModelVersion(
        model_id=model_id,
        stream="flights",
        algorithm="xgboost",
        task="multiclass" if classes else "binary",
        created_time_ms=1_700_000_000_000,
        sha256="ab" * 32,
        signature="",
        size_bytes=123_456,
        memory_bytes=0,
        features=NAMES,
        classes=classes,
        parameters={"max_depth": 6, "eta": 0.05},
        training_to_time_ms=0,
    )


def rows(random: np.random.Generator, n: int, start_hour: int) -> Table:
    """Return one event an hour, of 300 entities; the label depends on all features but the last."""
    matrix = random.normal(size=(n, len(NAMES))).astype(np.float32)
    labels = random.random(n) < 1 / (1 + np.exp(1.5 - matrix @ np.array([1.5, -1.0, 0.4, 0.0])))
    table = table_of(labels, matrix, entities=random.integers(0, 300, n))
    return replace(table, event_time_ms=1_690_000_000_000 + HOUR_MS * (start_hour + np.arange(n)))


def binary_card(rules: GateRules | None = None) -> Card:
    """Return the card of a candidate that is better than the champion, by those gates."""
    random = np.random.default_rng(5)
    parts = [rows(random, 3000, 0), rows(random, 800, 3000), rows(random, 1500, 3800)]
    _, validation, test = parts
    candidate, champion = Weighing([1.4, -0.9, 0.3, 0.05]), Weighing([0.8, 0.2, 0.3, 0.2])
    scores, others = candidate.predict(test.matrix), champion.predict(test.matrix)
    on_validation = measure(candidate.predict(validation.matrix), validation, BINARY)
    on_test = measure(scores, test, BINARY)
    assert on_validation.best is not None
    rival = Champion(difference=compare("roc_auc", scores, others, test, BINARY))
    return Card(
        version=version_of("flights-new"),
        run_id="run-1",
        reasons=("drift", "manual"),
        requested_by="ann",
        asked_because="a hurricane | came",
        source="Samples 0 to 5,300 of flights.samples.",
        query="",
        parts=tuple(part_of(name, each, ("0", "1")) for name, each in zip(PARTS, parts, strict=True)),
        validation=on_validation,
        test=on_test,
        test_at_best=measure(scores, test, Scoring("binary", 2, on_validation.best.threshold)),
        rival=Rival(version=version_of("flights-old"), test=measure(others, test, BINARY), found=rival),
        gates=judge(rules or GateRules(metric="roc_auc", min_gain=0.02, alpha=0.05, min_auc=0.7), on_test, rival),
        importance=permutation_importance(candidate, NAMES, test, BINARY, seed=1),
        notes=("The fit ended after 120 rounds",),
    )


def card_of_classes(classes: tuple[str, ...] = ("calm", "rain|y", "snow")) -> Card:
    """Return the card of the first candidate of a stream with three classes."""
    scores, table = three_classes(np.random.default_rng(6), 600)
    table = replace(table, event_time_ms=1_690_000_000_000 + HOUR_MS * np.arange(600))
    measured = measure(scores, table, THREE)
    return replace(
        binary_card(),
        version=version_of("flights-three", classes),
        parts=tuple(part_of(name, table, classes) for name in PARTS),
        validation=measured,
        test=measured,
        test_at_best=None,
        rival=None,
        gates=judge(GateRules(metric="log_loss", min_gain=0.02, alpha=0.05), measured, None),
        importance=(),
        query="SELECT *\nFROM flights",
    )
