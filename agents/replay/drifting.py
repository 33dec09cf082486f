"""The drift of a replayed history: what its events are counted as, and what the judge makes of that.

It is the very code of the stream: `Counting` on each partition, and the judge on what that writes. Partials are cut
where blocks of history end, as a worker cuts them where it commits; counts add up, so that matters only to which events
lie in which window of a number of events.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.baselines import Yardstick
from agents.counting import Counting
from agents.judge.references import OpenBaseline
from agents.judge.stage import Judge
from ml.models.protocol import Scores
from schemas.events import Alert, Checkpoint, ModelVersion, RetrainRequest
from schemas.streams import DriftSpec, StreamSpec
from schemas.wire import decode
from stream.batches import Batch, Outbox, TopicPartition
from stream.intake import Intake
from stream.metrics import Metrics
from topics.specs import StreamTopics

_FIRST: Final = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """The champion of some events, and what they are counted against; None when it has no baseline."""

    version: ModelVersion
    yardstick: Yardstick | None


@dataclass(frozen=True, slots=True)
class _Partial:
    """A record of `<s>.histograms` that nobody wrote."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes


class Forgetful:
    """The memory of a stage that begins with nothing and is never restarted."""

    async def newest(self, committed: Mapping[TopicPartition, int]) -> Checkpoint | None:
        """Return None."""
        return None

    async def read(self, source: TopicPartition, start: int, stop: int) -> AsyncGenerator[Batch, None]:
        """Yield nothing."""
        nothing: tuple[Batch, ...] = ()
        for batch in nothing:
            yield batch

    def save(self, checkpoint: Checkpoint, outbox: Outbox) -> None:
        """Do nothing."""


class Drifting:
    """Counts the events of every partition and judges the windows. `drift` leaves nothing open."""

    def __init__(self, spec: StreamSpec, drift: DriftSpec, open_baseline: OpenBaseline) -> None:
        topics, metrics = StreamTopics(spec.name), Metrics()
        self._source = TopicPartition(topics.histograms, 0)
        self._topics = topics
        self._counting = [Counting(spec, drift, partition, metrics) for partition in range(spec.partitions)]
        self._judge = Judge(spec, drift, open_baseline, Forgetful(), metrics)
        self._next_offset = _FIRST
        self.windows = 0

    async def open(self) -> None:
        """Begin."""
        await self._judge.open({self._source: _FIRST})

    async def count(
        self,
        partition: int,
        taken: Intake,
        scores: Scores,
        measured: Measured,
        champions: NDArray[np.bool_] | None,
    ) -> None:
        """Count scored events of one partition; see Counting."""
        await self._counting[partition].take(taken, scores, measured, champions)

    async def judge(self, written_ms: int) -> tuple[list[Alert], list[RetrainRequest]]:
        """Judge what was counted since the last call, as if it was written at that time; return what is told."""
        counted, told = Outbox(), Outbox()
        for counting in self._counting:
            counting.save(counted)
        records = [
            _Partial(self._next_offset + place, written_ms, key, value)
            for place, (key, value) in enumerate(counted.targets.get(self._source, []))
        ]
        if not records:
            return [], []
        self._next_offset += len(records)
        await self._judge.process(Batch(self._source, records), told)
        self.windows += len(_values(told, self._topics.drift))
        return (
            [decode(Alert, value) for value in _values(told, self._topics.alerts)],
            [decode(RetrainRequest, value) for value in _values(told, self._topics.retrain)],
        )


def _values(outbox: Outbox, topic: str) -> list[bytes]:
    return [value for _, value in outbox.targets.get(TopicPartition(topic, 0), [])]
