"""The drift of a replayed history: what its events are counted as, and what the judge makes of that.

It is the very code of the stream: `Counting` on each partition, and the judge on what that writes. Partials are cut
where blocks of history end, as a worker cuts them where it commits; counts add up, so that matters only to which events
lie in which window of a number of events.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.baselines import Yardstick
from agents.counting import Counting
from agents.judge.references import OpenBaseline
from agents.judge.stage import Judge
from agents.replay.events import ServedEvents
from ml.models.protocol import Scores
from schemas.events import Alert, Checkpoint, Deployment, ModelVersion, RetrainRequest
from schemas.experiments import CHAMPION
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


Measure = Callable[[str], Awaitable[Measured]]
"""Returns a registered model as a champion, with what its events are counted against, by its id."""


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
    """Counts the events of every partition and judges the windows. `drift` leaves nothing open.

    The champion of an event is that of the deployment under which it was served, unless one is named.
    """

    def __init__(
        self,
        spec: StreamSpec,
        drift: DriftSpec,
        open_baseline: OpenBaseline,
        measure: Measure,
        deployments: Mapping[int, Deployment],
    ) -> None:
        topics, metrics = StreamTopics(spec.name), Metrics()
        self._source = TopicPartition(topics.histograms, 0)
        self._topics = topics
        self._counting = [Counting(spec, drift, partition, metrics) for partition in range(spec.partitions)]
        self._judge = Judge(spec, drift, open_baseline, Forgetful(), metrics)
        self._measure = measure
        self._deployments = deployments
        self._next_offset = _FIRST
        self.windows = 0

    async def open(self) -> None:
        """Begin."""
        await self._judge.open({self._source: _FIRST})

    async def serve(self, events: ServedEvents, scores: Scores, champion: str = "") -> None:
        """Count predictions with these scores, whose rows are all finite, of `champion`, or of whoever was it then."""
        for partition, start, stop in events.parts:
            rows = np.arange(start, stop)
            if champion:
                await self._count(partition, events, scores, rows, champion, None)
                continue
            revisions = np.array([event.deployment_revision for event in events.events[start:stop]], dtype=np.int64)
            for first, last in _runs(revisions):
                await self._served(partition, events, scores, rows[first:last])

    async def _served(self, partition: int, events: ServedEvents, scores: Scores, rows: NDArray[np.int64]) -> None:
        """Count predictions of one deployment."""
        here = events.events[rows[0] : rows[-1] + 1]
        champions = np.array([event.variant == CHAMPION for event in here], dtype=np.bool_)
        deployment = self._deployments.get(here[0].deployment_revision)
        champion = deployment.champion if deployment is not None else here[int(champions.argmax())].model_id
        await self._count(partition, events, scores, rows, champion, None if champions.all() else champions)

    async def _count(
        self,
        partition: int,
        events: ServedEvents,
        scores: Scores,
        rows: NDArray[np.int64],
        champion: str,
        champions: NDArray[np.bool_] | None,
    ) -> None:
        if not len(rows):
            return
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        taken = Intake(events.records[part], events.events[part], (), events.matrix[part], ())
        measured = await self._measure(champion)
        await self._counting[partition].take(taken, scores[part], measured, champions)

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


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where runs of equal values begin and end."""
    if not len(values):
        return []
    borders = (np.flatnonzero(np.diff(values)) + 1).tolist()
    return list(zip([0, *borders], [*borders, len(values)], strict=True))
