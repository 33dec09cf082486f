"""Score: every feature event becomes one prediction, or one dead letter."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from agents.arms import Answer, Timer, ask_arms, assigned, best_of, labels_of
from agents.counting import Counting
from agents.serving import Served, Serving
from agents.shadows import finite_rows, score_beside
from agents.tallying import Tallying
from schemas.errors import InvalidEvent
from schemas.events import Prediction, ShadowScore
from schemas.experiments import CHAMPION
from schemas.streams import StreamSpec
from schemas.wire import encode_many
from stream import metrics as m
from stream.batches import Batch, Outbox, Record
from stream.deadletters import DeadLetterGate, dead_letter
from stream.delivery import Offsets
from stream.intake import FeatureIntake, Intake
from stream.metric_values import Metrics
from stream.stage import Stage
from topics.specs import StreamTopics

STAGE = "score"

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
        timer: Timer = time.perf_counter_ns,
    ) -> None:
        """`timer` tells how long models take, where some are compared."""
        self._serving = serving
        self._intake = intake
        self._counting = counting
        self._gate = gate
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._timer = timer
        self._spec = serving.spec
        self._tallying = Tallying(serving.spec)
        self._topics = StreamTopics(serving.spec.name)

    async def open(self, committed: Offsets) -> None:
        """Wait for a champion; forget what was counted of events that come again."""
        self._counting.forget()
        self._tallying.forget()
        await self._serving.ready()

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Score the batch with the models that are routed to at this moment."""
        served = await self._serving.ready()
        taken = self._intake.read(batch)
        refused = taken.refused
        if taken.events:
            taken, answer = drop_unscored(taken, self._ask(taken, served))
            refused = taken.refused
            self._write(batch, taken, served, answer, outbox)
            await self._counting.take(taken, answer.scores, served, answer.champions)
        self._refuse(batch, refused, outbox)

    async def save(self, outbox: Outbox) -> None:
        """Write what was counted since the last commit."""
        self._counting.save(outbox)
        self._tallying.save(outbox)

    def _ask(self, taken: Intake, served: Served) -> Answer:
        """Return what the champion makes of the events, or the models of the variants, each of its own."""
        try:
            if served.experiment is None or served.table is None:
                return Answer(np.asarray(served.model.predict(taken.matrix)))
            places = assigned(served.experiment, served.table, [record.key or b"" for record in taken.records])
            return ask_arms(served.arms, places, taken.matrix, self._metrics, self._spec.name, self._timer)
        except Exception:
            self._metrics.count(m.PREDICTION_ERRORS, 1, self._spec.name)
            raise

    def _write(self, batch: Batch, taken: Intake, served: Served, answer: Answer, outbox: Outbox) -> None:
        beside = score_beside(served.shadows, taken.matrix, self._metrics, self._spec.name)
        self._tallying.take(taken, answer, beside, served, batch.source.partition)
        now_ms = self._clock_ms()
        waits_ms = np.maximum(now_ms - np.array([record.timestamp for record in taken.records], dtype=np.int64), 0)
        scored = Scored(answer, beside.rows, now_ms, waits_ms.tolist())
        predictions = predict_events(self._spec, taken, served, scored, batch.source.partition)
        keys = [record.key for record in taken.records]
        outbox.extend(
            self._topics.predictions, batch.source.partition, zip(keys, encode_many(predictions), strict=True)
        )
        self._count(predictions, served)
        self._metrics.observe_many(m.PREDICTION_LATENCY, waits_ms / 1000, self._spec.name)

    def _count(self, predictions: Sequence[Prediction], served: Served) -> None:
        if served.arms:
            seen = Counter([(prediction.model_id, prediction.variant, prediction.label) for prediction in predictions])
        else:  # without an experiment only the labels differ
            labels = Counter([prediction.label for prediction in predictions])
            seen = Counter({(served.version.model_id, CHAMPION, label): count for label, count in labels.items()})
        for (model_id, variant, label), count in seen.items():
            self._metrics.count(m.PREDICTIONS, count, self._spec.name, model_id, variant, str(label))

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
    """What the models made of a batch, row by row."""

    answer: Answer
    shadows: Sequence[tuple[ShadowScore, ...]]
    now_ms: int
    latencies_ms: Sequence[int]


def predict_events(spec: StreamSpec, taken: Intake, served: Served, scored: Scored, partition: int) -> list[Prediction]:
    """Return one Prediction per event."""
    scores, now_ms, revision = scored.answer.scores, scored.now_ms, served.deployment.revision
    places: list[int] = labels_of(spec, scores).tolist()
    labels: Sequence[int | str] = places
    class_scores: Sequence[list[float] | None] = [None] * len(places)
    if spec.task == "multiclass":
        labels = [spec.classes[place] for place in places]
        class_scores = scores.tolist()
    models: Iterable[str] = repeat(served.version.model_id, len(labels))
    variants: Iterable[str] = repeat(CHAMPION, len(labels))
    if served.arms:
        models, variants = scored.answer.models_and_variants(served.arms)
    return [
        Prediction(
            event_id=event.event_id,
            entity_id=event.entity_id,
            event_time_ms=event.event_time_ms,
            scored_time_ms=now_ms,
            model_id=model_id,
            variant=variant,
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
        for event, row, record, model_id, variant, score, all_scores, label, latency_ms, shadows in zip(
            taken.events,
            taken.rows,
            taken.records,
            models,
            variants,
            best_of(scores).tolist(),
            class_scores,
            labels,
            scored.latencies_ms,
            scored.shadows,
            strict=True,
        )
    ]


def drop_unscored(taken: Intake, answer: Answer) -> tuple[Intake, Answer]:
    """Set aside the events to which the champion gave no finite score, nor the model that they are assigned to."""
    finite = finite_rows(answer.scores)
    if finite.all():
        return taken, answer
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
        answer.take(finite),
    )
