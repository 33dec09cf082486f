"""A model that learns from samples as they come: a fold of the samples, the same however they are cut into pieces."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import msgspec
import numpy as np

from ml.errors import ModelParametersInvalid, ModelPayloadInvalid
from ml.learning.comparison import Comparison, Standing
from ml.learning.samples import Samples
from ml.learning.strategies import Clock, Settings, rule
from ml.models.protocol import Labels, Learner, Scores
from ml.models.registry import learner_type

__all__ = ["OnlineLearner", "Samples", "Settings", "Snapshot", "Standing", "Update", "open_learner"]

HEADER = b"penstock online learner 1\n"  # then the CRC-32 of the state in 4 bytes, then the state as MessagePack


@dataclass(frozen=True)
class Update:
    """Samples that waited were learnt, for `reason`; `event_time_ms` is the newest of their event times."""

    reason: str
    samples: int
    first_offset: int
    last_offset: int
    event_time_ms: int


@dataclass(frozen=True)
class Snapshot:
    """The model after it has learnt all samples before `next_offset`, `learnt` of them."""

    payload: bytes
    memory_bytes: int
    learnt: int
    next_offset: int


class _State(msgspec.Struct, frozen=True):
    """All there is to an OnlineLearner. `waiting` are the columns of its buffer, `model` its dumped model."""

    settings: Settings
    clock: Clock
    comparison: Comparison
    learnt: int
    next_offset: int
    waiting: list[bytes]
    model: bytes


class OnlineLearner:
    """A model, the samples that wait to be learnt, and what is known of its quality.

    With the strategy "incremental" nothing waits, and there are no updates to tell of. With the others the reasons
    are those of `strategies`, and "manual". Nothing here looks at the wall clock.
    """

    def __init__(self, model: Learner, settings: Settings, comparison: Comparison) -> None:
        self.model = model
        self.settings = settings
        self.comparison = comparison
        self.learnt = 0
        self._next_offset = 0
        self._rule = rule(settings, Clock())
        self._buffer: list[Samples] = []

    @property
    def waiting(self) -> int:
        """The number of samples that came and are not learnt yet."""
        return sum(map(len, self._buffer))

    @property
    def next_offset(self) -> int:
        """The offset before which everything is learnt: of the oldest waiting sample, else after the newest one."""
        return int(self._buffer[0].offsets[0]) if self._buffer else self._next_offset

    def take(self, samples: Samples) -> list[Update]:
        """Take the next samples of the log, learn what is due, and return the updates in their order.

        Raises ModelInputInvalid when the model refuses them; the learner must be opened again then.
        """
        if not len(samples):
            return []
        self._next_offset = int(samples.offsets[-1]) + 1
        if self._rule is None:
            self._learn(samples)
            return []
        updates, position = [], 0
        while position < len(samples):
            rest = samples.between(position, len(samples))
            count, reason = self._rule.admit(self.waiting, rest.event_time_ms, partial(self._hits, rest))
            if count:
                self._buffer.append(rest.between(0, count))
                position += count
            if reason is not None:
                updates.append(self._update(reason))
        return updates

    def trigger(self) -> list[Update]:
        """Learn what waits, because somebody wants it; nothing happens when nothing waits."""
        return [self._update("manual")] if self._buffer else []

    def change(self, settings: Settings) -> None:
        """Go on by other rules, with nothing waiting."""
        self.trigger()
        newest_ms = None if self._rule is None else self._rule.clock.newest_ms
        self.settings = settings
        self._rule = rule(settings, Clock(newest_ms=newest_ms, updated_ms=newest_ms))

    def standing(self) -> Standing | None:
        """Return how the model compares with the version that serves; None while too few mature samples are known."""
        return self.comparison.standing()

    def snapshot(self) -> Snapshot:
        return Snapshot(self.model.dump(), self.model.memory_bytes, self.learnt, self.next_offset)

    def dump(self) -> bytes:
        """Return everything as bytes: the model, at most `max_buffer` samples, and about 30 KB at most beside them."""
        body = msgspec.msgpack.encode(self._state(self.model.dump()))
        return HEADER + zlib.crc32(body).to_bytes(4) + body

    def canonical(self) -> bytes:
        """Return bytes that are the same exactly when the models and everything else that is kept are the same."""
        return msgspec.msgpack.encode(self._state(self.model.canonical()))

    @classmethod
    def load(cls, algorithm: str, n_features: int, classes: int, dumped: bytes) -> Self:
        """Return the learner in `dumped`, which `dump` made.

        Raises ModelPayloadInvalid when it is damaged or of another format.
        """
        body = dumped[len(HEADER) :]
        if not dumped.startswith(HEADER) or zlib.crc32(body[4:]).to_bytes(4) != body[:4]:
            raise ModelPayloadInvalid(f"this is not a whole online learner: it is to begin with {HEADER!r}")
        try:
            state = msgspec.msgpack.decode(body[4:], type=_State)
        except msgspec.DecodeError as error:
            raise ModelPayloadInvalid(f"this online learner is of another format ({error})") from error
        learner = cls(learner_type(algorithm).load(state.model), state.settings, state.comparison)
        learner.learnt, learner._next_offset = state.learnt, state.next_offset
        learner._rule = rule(state.settings, state.clock)
        waiting = _samples(state.waiting, n_features, classes)
        learner._buffer = [waiting] if len(waiting) else []
        return learner

    def _state(self, model: bytes) -> _State:
        waiting = Samples.joined([Samples.none(self.model.n_features, self.model.classes), *self._buffer])
        return _State(
            settings=self.settings,
            clock=Clock() if self._rule is None else self._rule.clock,
            comparison=self.comparison,
            learnt=self.learnt,
            next_offset=self._next_offset,
            waiting=[column.tobytes() for column in waiting.columns()],
            model=model,
        )

    def _update(self, reason: str) -> Update:
        samples = Samples.joined(self._buffer)
        self._buffer = []
        self._learn(samples)
        if self._rule is not None:
            self._rule.updated(len(samples))
        first, last = int(samples.offsets[0]), int(samples.offsets[-1])
        return Update(reason, len(samples), first, last, int(samples.event_time_ms.max()))

    def _learn(self, samples: Samples) -> None:
        scores = self.model.learn(samples.matrix, samples.labels, samples.weights)
        self.comparison.add(samples, scores)
        self.learnt += len(samples)

    def _hits(self, samples: Samples, count: int) -> int:
        scores = self.model.predict(samples.matrix[:count])
        return int(np.count_nonzero(_classes(scores, self.settings.threshold) == samples.labels[:count]))


def open_learner(
    algorithm: str,
    n_features: int,
    classes: int,
    parameters: Mapping[str, Any],
    settings: Settings,
    *,
    compare_samples: int = 1000,
    maturity_ms: int = 0,
    start_from: bytes | None = None,
    dumped: bytes | None = None,
) -> OnlineLearner:
    """Return a learner: the one in `dumped`, or a new one, whose model goes on from `start_from` if that is given.

    `classes` is the number of score columns. `parameters` are the algorithm's own. Its `standing` is over
    `compare_samples` samples that are mature by `maturity_ms`. All arguments can be pickled, for a process of its own.
    Settings that have changed since `dumped` was made hold from then on, and what waited is learnt at once.

    Raises ModelUnknown when `algorithm` does not exist or cannot learn, ModelParametersInvalid when it does not
    take `parameters` or the strategy, ModelPayloadInvalid when `start_from` or `dumped` cannot be used or are of
    another shape.
    """
    kind = learner_type(algorithm)
    if settings.strategy == "incremental" and not kind.by_row:
        raise ModelParametersInvalid(f"{algorithm} learns from batches: it cannot learn by the strategy 'incremental'")
    if dumped is not None:
        learner = OnlineLearner.load(algorithm, n_features, classes, dumped)
        learner.model.retune(**parameters)
        learner.comparison.wanted, learner.comparison.maturity_ms = compare_samples, maturity_ms
        if learner.settings != settings:
            learner.change(settings)
    else:
        if start_from is None:
            model = kind(n_features, classes, **parameters)
        else:
            model = kind.load(start_from)
            model.retune(**parameters)
        learner = OnlineLearner(model, settings, Comparison(compare_samples, maturity_ms))
    shape = (learner.model.n_features, learner.model.classes)
    if shape != (n_features, classes):
        raise ModelPayloadInvalid(
            f"this {algorithm} model takes {shape[0]} features and gives {shape[1]} scores; "
            f"{n_features} features and {classes} scores are needed"
        )
    return learner


def _samples(columns: list[bytes], n_features: int, classes: int) -> Samples:
    """Return the samples whose columns, of known types and shapes, are in the bytes."""
    likes = Samples.none(n_features, classes).columns()
    try:
        arrays = [
            np.frombuffer(column, like.dtype).reshape(-1, *like.shape[1:])
            for column, like in zip(columns, likes, strict=True)
        ]
    except ValueError as error:
        raise ModelPayloadInvalid(
            f"the waiting samples of this online learner are of another shape ({error})"
        ) from error
    return Samples(*arrays)


def _classes(scores: Scores, threshold: float) -> Labels:
    """Return the class that each row's scores speak for."""
    classes: Labels = (scores >= threshold).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
    return classes
