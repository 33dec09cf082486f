"""History that was never in a Kafka: predictions and samples of a made-up stream, as their records would be."""

from collections.abc import Sequence

import numpy as np

from agents.baselines import Yardstick
from agents.replay.drifting import Drifting, Measured
from agents.replay.identity import Identity
from agents.replay.learning import Learning, until_due
from agents.replay.merging import BLOCK, Held, Source, merged
from agents.replay.question import Question
from agents.replay.run import LabelledReplay, LabelledResult, ServedReplay, ServedResult
from agents.replay.scoring import Library, Scorer
from agents.shelf import ModelShelf
from ml.drift.baseline import Baseline
from ml.drift.counting import Counter
from ml.models.protocol import Model
from schemas.errors import PenstockError
from schemas.events import ModelVersion, Prediction, Sample
from schemas.streams import DriftSpec, EvaluationSpec, JoinSpec, StreamSpec
from schemas.wire import encode
from stream.batches import TopicPartition
from tests.support import Entry, version_of
from topics.specs import StreamTopics

DAY_MS = 86_400_000
DAWN_MS = 20_000 * DAY_MS
SPEC = StreamSpec(
    name="shop",
    features=("a", "b"),
    partitions=2,
    join=JoinSpec(window_minutes=1, lateness_minutes=0),
    evaluation=EvaluationSpec(window_samples=100, min_samples=50, reference_windows=1, cooldown_minutes=0),
    drift=DriftSpec(window_events=200, check_seconds=60, threshold=0.05, cooldown_minutes=0),
)
TOPICS = StreamTopics(SPEC.name)
SAMPLES = TopicPartition(TOPICS.samples, 0)


class Linear:
    """A model whose score is `weight` times the first feature, cut to 0 to 1, in 32 bits."""

    algorithm = "linear"
    n_features, classes, memory_bytes = 2, 1, 100

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = np.float32(weight)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return np.clip(self.weight * np.nan_to_num(matrix[:, 0]), 0, 1).astype(np.float32)

    def dump(self) -> bytes:
        raise NotImplementedError

    @classmethod
    def load(cls, payload: bytes, *, threads: int = 1) -> "Linear":
        raise NotImplementedError


def rows_of(n: int, seed: int = 0) -> np.ndarray:
    """Return features of n events, from 0 to 1."""
    return np.random.default_rng(seed).random((n, 2)).astype(np.float32)


def served(number: int, row: Sequence[float], model: Linear, **changes: object) -> Prediction:
    """Return the prediction of an event each second."""
    score = float(model.predict(np.array([row], dtype=np.float32))[0])
    fields = {
        "event_id": f"e{number}",
        "entity_id": f"entity-{number % 50}",
        "event_time_ms": DAWN_MS + 1000 * number,
        "scored_time_ms": DAWN_MS + 1000 * number + 5,
        "model_id": "old",
        "variant": "champion",
        "deployment_revision": 1,
        "score": score,
        "scores": None,
        "label": int(score >= SPEC.threshold),
        "features": tuple(float(value) for value in row),
        "partition": number % SPEC.partitions,
        "offset": number,
    }
    return Prediction(**(fields | changes))  # type: ignore[arg-type]


def labelled(prediction: Prediction, label: int | str, delay_ms: int = 30_000, **changes: object) -> Sample:
    """Return the first sample of a prediction."""
    fields = {
        "event_id": prediction.event_id,
        "entity_id": prediction.entity_id,
        "revision": 0,
        "event_time_ms": prediction.event_time_ms,
        "label_time_ms": prediction.event_time_ms + delay_ms,
        "features": prediction.features,
        "label": label,
        "weight": 1.0,
        "score": prediction.score,
        "predicted": prediction.label,
        "model_id": prediction.model_id,
        "variant": prediction.variant,
        "deployment_revision": prediction.deployment_revision,
        "scored_time_ms": prediction.scored_time_ms,
        "shadows": prediction.shadows,
    }
    return Sample(**(fields | changes))  # type: ignore[arg-type]


def sources_of(predictions: Sequence[Prediction], samples: Sequence[Sample] = ()) -> list[Source]:
    """Return the records of all of them, written when they were scored and labelled."""
    logs: dict[TopicPartition, list[Entry]] = {
        TopicPartition(TOPICS.predictions, number): [] for number in range(SPEC.partitions)
    }
    for prediction in predictions:
        log = logs[TopicPartition(TOPICS.predictions, prediction.partition)]
        log.append(Entry(len(log), encode(prediction), prediction.entity_id.encode(), prediction.scored_time_ms))
    logs[SAMPLES] = [
        Entry(offset, encode(sample), b"shop", sample.label_time_ms) for offset, sample in enumerate(samples)
    ]
    return [Held(source, records) for source, records in logs.items()]


class Registry:
    """Models by id, each opened as if it lay in a store; only those that are given can be."""

    def __init__(self, spec: StreamSpec = SPEC, baseline: Baseline | None = None, **models: Model) -> None:
        self.spec = spec
        self.models = models
        self.foreign: frozenset[str] = frozenset()
        self.identity = Identity()
        self.yardstick = None if baseline is None else Yardstick("0" * 64, baseline, Counter(baseline))
        self.library = Library(spec, self.find, ModelShelf(self._open, 10_000))

    def find(self, model_id: str) -> ModelVersion:
        if model_id not in self.models:
            raise PenstockError(f"stream {self.spec.name} has no model {model_id!r}")
        return version_of(self.spec, model_id)

    def _open(self, version: ModelVersion) -> Model:
        return self.models[version.model_id]

    async def measure(self, model_id: str) -> Measured:
        return Measured(version_of(self.spec, model_id), self.yardstick)

    async def reference(self, sha256: str) -> tuple[Baseline, frozenset[str]]:
        assert self.yardstick is not None
        return self.yardstick.baseline, frozenset(self.models)

    def drifting(self, spec: StreamSpec) -> Drifting:
        return Drifting(spec, spec.drift, self.reference, self.measure, {})


async def replayed(
    question: Question, registry: Registry, scorer: Scorer, sources: Sequence[Source], block: int = BLOCK
) -> tuple[ServedResult, LabelledResult]:
    """Replay in the order in which everything was written."""
    drifting = registry.drifting(question.spec)
    instead = registry.drifting(question.changed) if question.changed.drift != question.spec.drift else None
    of_served = ServedReplay(question, scorer, registry.identity, drifting, instead, registry.foreign)
    of_labelled = LabelledReplay(question, scorer, registry.foreign)
    await of_served.open()
    async for found in merged(sources, block):
        pieces = until_due(found, TOPICS.samples, scorer) if isinstance(scorer, Learning) else [found]
        for piece in pieces:
            await of_served.take(piece.of(TOPICS.predictions))
            for _, records in piece.of(TOPICS.samples).pieces:
                await of_labelled.take(records)
    return await of_served.result(), of_labelled.result()
