"""Counts what a run with model swaps left in its topics: is each prediction whole, and by the model it names?"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

import msgspec
import numpy as np
import xgboost

from benchmarks import synthetic
from benchmarks.checker import Place, Scored, Sent, tally
from benchmarks.plain import Kafka, Row


class Event(msgspec.Struct):
    """What is read of a feature event."""

    event_id: str
    features: dict[str, float | None]


class Prediction(msgspec.Struct):
    """What is read of a prediction."""

    event_id: str
    model_id: str
    deployment_revision: int
    score: float
    scored_time_ms: int
    partition: int
    offset: int

    @property
    def place(self) -> Place:
        """Where its event lies."""
        return Place(self.partition, self.offset)


class Deployment(msgspec.Struct):
    """What is read of a deployment."""

    revision: int
    champion: str


class Answer(msgspec.Struct):
    """What is read of an audit event."""

    action: str
    revision: int
    decided_time_ms: int


T = TypeVar("T")
Models = Mapping[str, xgboost.Booster]


def check(cluster: Kafka, stream: str, models: Models) -> dict[str, Any]:
    """Return the counts of what is committed. `models` are all that were registered, by id."""

    def read(topic: str, kind: type[T]) -> list[tuple[Row, T]]:
        decode = msgspec.json.Decoder(kind).decode
        return [(row, decode(row.value or b"")) for row in cluster.read(f"{stream}.{topic}")]

    events = {Place(row.partition, row.offset): event for row, event in read("features", Event)}
    predictions = [prediction for _, prediction in read("predictions", Prediction)]
    deployments = {d.revision: d.champion for _, d in read("deployments", Deployment)}
    found = tally(
        (Sent(event.event_id, place, good=True) for place, event in events.items()),
        (Scored(prediction.event_id, prediction.place) for prediction in predictions),
        [],
    )
    return {
        "events": found.events,
        "predictions": len(predictions),
        "lost": found.lost,
        "duplicated": found.duplicated,
        "misjudged": found.misjudged + found.unknown,
        "dead_letters": len(read("features.dead", msgspec.Raw)),
        "wrong_scores": wrong_scores(events, predictions, models),
        "wrong_switches": wrong_switches(predictions, deployments),
        "swaps": len(deployments) - 1,
        "swap_s": swap_times_s(predictions, [a for _, a in read("audit", Answer) if a.action == "promote"]),
    }


def wrong_scores(events: Mapping[Place, Event], predictions: Sequence[Prediction], models: Models) -> int:
    """Count predictions whose score is not, to the bit, what the model that they name gives for their event."""
    by_model: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_model.setdefault(prediction.model_id, []).append(prediction)
    wrong = sum(len(theirs) for model_id, theirs in by_model.items() if model_id not in models)
    for model_id in by_model.keys() & models.keys():
        theirs = [prediction for prediction in by_model[model_id] if prediction.place in events]
        rows = [[events[prediction.place].features[name] for name in synthetic.FEATURES] for prediction in theirs]
        scores = models[model_id].inplace_predict(np.array(rows, dtype=np.float32), validate_features=False)
        wrong += int(np.count_nonzero(scores.astype(float) != np.array([prediction.score for prediction in theirs])))
    return wrong


def wrong_switches(predictions: Sequence[Prediction], deployments: Mapping[int, str]) -> int:
    """Count predictions by another model than their deployment's, and those that step back to an older deployment.

    `predictions` are in the order of each partition. A partition that never got to the newest deployment counts too.
    """
    wrong = 0
    newest: dict[int, int] = {}
    for prediction in predictions:
        revision = prediction.deployment_revision
        if deployments.get(revision) != prediction.model_id or revision < newest.get(prediction.partition, 0):
            wrong += 1
        newest[prediction.partition] = max(revision, newest.get(prediction.partition, 0))
    return wrong + sum(1 for revision in newest.values() if revision != max(deployments))


def swap_times_s(predictions: Sequence[Prediction], answers: Sequence[Answer]) -> dict[str, float]:
    """Return the median and the longest time from control's answer to the first prediction of the new deployment.

    Both are the worker's own clock. The first deployment is left out: its stream was still empty.
    """
    first_ms: dict[int, int] = {}
    for prediction in predictions:
        revision, scored_ms = prediction.deployment_revision, prediction.scored_time_ms
        first_ms[revision] = min(scored_ms, first_ms.get(revision, scored_ms))
    taken_s = [(first_ms[a.revision] - a.decided_time_ms) / 1000 for a in answers[1:] if a.revision in first_ms]
    return {"median": round(median(taken_s), 3), "max": round(max(taken_s), 3)} if taken_s else {}
