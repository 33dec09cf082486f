"""What a step of the join makes: samples and dead letters, in the order of the records that brought them about."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agents.join.pending import Ints, Table
from schemas.errors import InvalidEvent
from schemas.wire import encode_many
from stream.batches import Outbox, Record, TopicPartition
from stream.deadletters import dead_letter


class Waited(NamedTuple):
    """A label's record as it was read, kept while it waited."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class PlainSample(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A Sample on the wire, made by position, which costs a seventh; what may be left out comes last."""

    event_id: str
    entity_id: str
    revision: int
    event_time_ms: int
    label_time_ms: int
    features: Any
    label: int | str
    weight: float
    score: float
    predicted: int | str
    model_id: str
    variant: str
    deployment_revision: int
    scored_time_ms: int
    latency_ms: int = 0
    scores: Any = None
    shadows: Any = ()
    replaces: int | str | None = None
    assumed: bool = False


class Outcome(NamedTuple):
    """The labels of some rows, by column: what a sample says beside its prediction."""

    event_ids: Sequence[str]
    entity_ids: Sequence[str]
    revisions: Sequence[int]
    times_ms: Sequence[int]
    labels: Sequence[int | str]
    weights: Sequence[float]
    replaces: Sequence[int | str | None]
    assumed: bool = False


class JoinOutput:
    """Collects samples and dead letters. `triggers` are the offsets, in the batch's input, of what caused them."""

    def __init__(self, dead_source: TopicPartition, stage: str, clock_ms: Callable[[], int]) -> None:
        self._source = dead_source
        self._stage = stage
        self._clock_ms = clock_ms
        self._samples: list[bytes] = []
        self._sample_triggers: list[Ints] = []
        self._letters: list[tuple[bytes | None, bytes]] = []
        self._letter_triggers: list[int] = []
        self.reasons: Counter[str] = Counter()

    def samples(
        self,
        triggers: Ints,
        rows: Table,
        outcome: Outcome,
        origins: Iterable[tuple[str, str, int, int | str]],
        shadows: Iterable[Any],
    ) -> None:
        """Add one sample per row; about 1.8 µs each with ten features. NaN is written as null."""
        models, variants, revisions, predicted = zip(*origins, strict=True)
        count = len(rows)
        scores = rows["scores"].tolist() if rows["scores"].shape[1] else [None] * count
        self._sample_triggers.append(triggers)
        self._samples += encode_many(
            map(
                PlainSample,
                outcome.event_ids,
                outcome.entity_ids,
                outcome.revisions,
                rows["event_time"].tolist(),
                outcome.times_ms,
                rows["features"].tolist(),
                outcome.labels,
                outcome.weights,
                rows["score"].tolist(),
                predicted,
                models,
                variants,
                revisions,
                rows["scored_time"].tolist(),
                rows["latency"].tolist(),
                scores,
                shadows,
                outcome.replaces,
                [outcome.assumed] * count,
            )
        )

    def letter(self, trigger: int, record: Record, error: InvalidEvent) -> None:
        """Add the dead letter of a label's record."""
        self.reasons[error.reason] += 1
        self._letters.append(dead_letter(record, self._source, self._stage, error, self._clock_ms()))
        self._letter_triggers.append(trigger)

    def write(self, outbox: Outbox, samples: TopicPartition, key: bytes, letters: TopicPartition) -> int:
        """Put everything into `outbox`, samples under `key`; return the number of samples."""
        if self._samples:
            ordered = _in_order(self._samples, np.concatenate(self._sample_triggers))
            outbox.extend(samples.topic, samples.partition, [(key, value) for value in ordered])
        if self._letters:
            ordered_letters = _in_order(self._letters, np.array(self._letter_triggers))
            outbox.extend(letters.topic, letters.partition, ordered_letters)
        return len(self._samples)


def _in_order(items: list[Any], triggers: Ints) -> list[Any]:
    if (np.diff(triggers) >= 0).all():
        return items
    return [items[i] for i in np.argsort(triggers, kind="stable").tolist()]
