"""Score: every feature event becomes one prediction, or one dead letter."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.counting import Counting
from agents.serving import Served, Serving
from agents.shadows import finite_rows, score_beside
from schemas.errors import InvalidEvent
from schemas.events import Prediction, ShadowScore
from schemas.streams import StreamSpec
from schemas.wire import encode_many
from stream import metrics as m
from stream.batches import Batch, Outbox, Record
from stream.deadletters import DeadLetterGate, dead_letter
from stream.delivery import Offsets
from stream.intake import FeatureIntake, Intake
from stream.metrics import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

STAGE = "score"
CHAMPION = "champion"

Scores = NDArray[np.floating]
Refused = Sequence[tuple[Record, InvalidEvent]]


class Score(Stage):
    """The stage on one partition of `<s>.features`. What it counts is all it keeps, and that only until the commit."""

    def __init__(
        self,
        serving: Serving,
        intake: FeatureIntake,
        counting: Counting,
        gate: DeadLetterGate,
        metrics: Metrics,
        clock_ms: Callable[[], int],
    ) -> None:
        self._serving = serving
        self._intake = intake
        self._counting = counting
        self._gate = gate
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._spec = serving.spec
        self._topics = StreamTopics(serving.spec.name)

    async def open(self, committed: Offsets) -> None:
        """Wait for a champion; forget what was counted of events that come again."""
        self._counting.forget()
        await self._serving.ready()

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Score the batch with the models that are routed to at this moment."""
        served = await self._serving.ready()
        taken = self._intake.read(batch)
        refused = taken.refused
        if taken.events:
            try:
                scores = np.asarray(served.model.predict(taken.matrix))
            except Exception:
                self._metrics.count(m.PREDICTION_ERRORS, 1, self._spec.name)
                raise
            taken, scores = drop_unscored(taken, scores)
            refused = taken.refused
            self._write(batch, taken, served, scores, outbox)
            await self._counting.take(taken, scores, served)
        self._refuse(batch, refused, outbox)

    async def save(self, outbox: Outbox) -> None:
        """Write what was counted since the last commit."""
        self._counting.save(outbox)

    def _write(self, batch: Batch, taken: Intake, served: Served, scores: Scores, outbox: Outbox) -> None:
        shadows = score_beside(served.shadows, taken.matrix, self._metrics, self._spec.name)
        now_ms = self._clock_ms()
        waits_ms = np.maximum(now_ms - np.array([record.timestamp for record in taken.records], dtype=np.int64), 0)
        scored = Scored(scores, shadows, now_ms, waits_ms.tolist())
        predictions = predict_events(self._spec, taken, served, scored, batch.source.partition)
        keys = [record.key for record in taken.records]
        outbox.extend(
            self._topics.predictions, batch.source.partition, zip(keys, encode_many(predictions), strict=True)
        )
        for label, count in Counter([prediction.label for prediction in predictions]).items():
            self._metrics.count(m.PREDICTIONS, count, self._spec.name, served.version.model_id, CHAMPION, str(label))
        self._metrics.observe_many(m.PREDICTION_LATENCY, waits_ms / 1000, self._spec.name)

    def _refuse(self, batch: Batch, refused: Refused, outbox: Outbox) -> None:
        now_ms = self._clock_ms()
        outbox.extend(
            self._topics.features_dead,
            batch.source.partition,
            [dead_letter(record, batch.source, STAGE, error, now_ms) for record, error in refused],
        )
        for reason, count in Counter([error.reason for _, error in refused]).items():
            self._metrics.count(m.DEAD_LETTERS, count, self._spec.name, STAGE, reason)
        self._gate.pass_through(len(batch.records), len(refused), str(refused[-1][1]) if refused else "")


@dataclass(frozen=True, slots=True)
class Scored:
    """What the models made of a batch, row by row: the champion's scores, of shape (events,) or (events, classes)."""

    scores: Scores
    shadows: Sequence[tuple[ShadowScore, ...]]
    now_ms: int
    latencies_ms: Sequence[int]


def predict_events(spec: StreamSpec, taken: Intake, served: Served, scored: Scored, partition: int) -> list[Prediction]:
    """Return one Prediction per event."""
    scores, now_ms = scored.scores, scored.now_ms
    labels: Sequence[int | str]
    if spec.task == "multiclass":
        labels = [spec.classes[column] for column in scores.argmax(axis=1).tolist()]
        class_scores: Sequence[list[float] | None] = scores.tolist()
        best = scores.max(axis=1).tolist()
    else:
        labels = (scores.astype(np.float64) >= spec.threshold).astype(int).tolist()  # as a reader of the score would
        class_scores = [None] * len(labels)
        best = scores.tolist()
    model_id, revision = served.version.model_id, served.deployment.revision
    return [
        Prediction(
            event_id=event.event_id,
            entity_id=event.entity_id,
            event_time_ms=event.event_time_ms,
            scored_time_ms=now_ms,
            model_id=model_id,
            variant=CHAMPION,
            deployment_revision=revision,
            score=score,
            scores=all_scores,
            label=label,
            features=row,
            partition=partition,
            offset=record.offset,
            latency_ms=latency_ms,
            shadows=shadows,
        )
        for event, row, record, score, all_scores, label, latency_ms, shadows in zip(
            taken.events,
            taken.rows,
            taken.records,
            best,
            class_scores,
            labels,
            scored.latencies_ms,
            scored.shadows,
            strict=True,
        )
    ]


def drop_unscored(taken: Intake, scores: Scores) -> tuple[Intake, Scores]:
    """Set aside the events to which the model gave no finite score."""
    finite = finite_rows(scores)
    if finite.all():
        return taken, scores
    error = InvalidEvent("no_score", "the model gave no finite score for this event")
    kept = np.flatnonzero(finite).tolist()
    return (
        Intake(
            records=[taken.records[i] for i in kept],
            events=[taken.events[i] for i in kept],
            rows=[taken.rows[i] for i in kept],
            matrix=taken.matrix[finite],
            refused=[*taken.refused, *((taken.records[i], error) for i in np.flatnonzero(~finite).tolist())],
        ),
        scores[finite],
    )
