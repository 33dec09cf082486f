"""The drift of a replayed history: what its events are counted as, and what the judge makes of that.

It is the very code of the stream: `Counting`, and the judge on what that writes. A worker cuts partials where it
commits; here they are cut after a share of a window, whatever the blocks of history are. A window of a number of events
holds those that were written one after the other, whichever partitions they are in; where windows are spans of event
time, each partition is counted for itself, since all of them must have passed a span's end.
"""

import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.baselines import Yardstick
from agents.counting import Counting, span_ms
from agents.judge.references import OpenBaseline
from agents.judge.stage import Judge
from agents.replay.evaluating import Told
from agents.replay.events import ServedEvents
from agents.replay.merging import Kept
from ml.models.protocol import Scores
from schemas.events import Checkpoint, Deployment, ModelVersion
from schemas.experiments import CHAMPION
from schemas.streams import DriftSpec, StreamSpec
from stream.batches import Batch, Outbox, TopicPartition
from stream.intake import Intake
from stream.metric_values import Metrics
from topics.specs import StreamTopics

_FIRST: Final = 0
_PARTIALS: Final = 2  # of a window of a number of events


@dataclass(frozen=True, slots=True)
class Measured:
    """The champion of some events, and what they are counted against; None when it has no baseline."""

    version: ModelVersion
    yardstick: Yardstick | None


Measure = Callable[[str], Awaitable[Measured]]
"""Returns a registered model as a champion, with what its events are counted against, by its id."""


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
    """Counts events in the order in which they were written, and judges the windows. `drift` leaves nothing open.

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
        assert drift.window_events is not None
        metrics = Metrics()
        self._source = TopicPartition(StreamTopics(spec.name).histograms, 0)
        self._apart = span_ms(drift) > 0
        counted = range(spec.partitions if self._apart else 1)
        self._counting = [Counting(spec, drift, partition, metrics) for partition in counted]
        self._cut = drift.window_events if self._apart else max(1, drift.window_events // _PARTIALS)
        self._judge = Judge(spec, drift, open_baseline, Forgetful(), metrics)
        self._measure = measure
        self._deployments = deployments
        self._shared = (spec, drift, open_baseline, measure, deployments, metrics)
        self._next_offset = _FIRST
        self._counted = 0
        self._written_ms = 0
        self.windows = 0
        self.told = Told()

    async def open(self) -> None:
        """Begin."""
        await self._judge.open({self._source: _FIRST})

    def fork(self) -> "Drifting":
        """Return another one that has counted and judged the same so far, and goes its own way from here."""
        return copy.deepcopy(self, {id(one): one for one in self._shared})

    async def take(self, events: ServedEvents, scores: Scores, champion: str = "") -> None:
        """Count predictions with these scores, whose rows are all finite, of `champion`, or of whoever was it then."""
        written_ms = np.array([record.timestamp for record in events.records], dtype=np.int64)
        revisions = np.array([event.deployment_revision for event in events.events], dtype=np.int64)
        champions = np.array([event.variant == CHAMPION for event in events.events], dtype=np.bool_)
        start = 0
        while start < len(events):
            rows = events.order[start : start + self._cut - self._counted % self._cut]
            start += len(rows)
            self._counted += len(rows)
            self._written_ms = max(self._written_ms, int(written_ms[rows].max()))
            for partition, its in self._parts(events, rows):
                for name, served in self._by_champion(events, its, revisions, champions, champion):
                    mask = None if champion or champions[served].all() else champions[served]
                    measured = await self._measure(name)
                    await self._counting[partition].take(_intake(events, served), scores[served], measured, mask)
            if not self._counted % self._cut:
                await self.judge()

    def _parts(self, events: ServedEvents, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the rows that are counted together, by partition."""
        if not self._apart:
            yield _FIRST, rows
            return
        for partition, start, stop in events.parts:
            yield partition, rows[(rows >= start) & (rows < stop)]

    def _by_champion(
        self,
        events: ServedEvents,
        rows: NDArray[np.int64],
        revisions: NDArray[np.int64],
        champions: NDArray[np.bool_],
        champion: str,
    ) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield the rows of each champion: of one deployment after the other, which few partitions take up at once."""
        if champion and len(rows):
            yield champion, rows
            return
        for revision in np.unique(revisions[rows]).tolist():
            served = rows[revisions[rows] == revision]
            deployment = self._deployments.get(revision)
            first = served[int(champions[served].argmax())]
            yield deployment.champion if deployment is not None else events.events[first].model_id, served

    async def judge(self) -> None:
        """Judge what was counted since the last time, as if it was written now."""
        counted = Outbox()
        for counting in self._counting:
            counting.save(counted)
        records = [
            Kept(self._next_offset + place, self._written_ms, key, value)
            for place, (key, value) in enumerate(counted.targets.get(self._source, []))
        ]
        if not records:
            return
        self._next_offset += len(records)
        folded = await self._judge.fold(Batch(self._source, records))
        self.windows += len(folded.reports)
        self.told.alerts.extend(alert for _, alert, _ in folded.reports if alert is not None)
        self.told.requests.extend(request for _, _, request in folded.reports if request is not None)


def _intake(events: ServedEvents, rows: NDArray[np.int64]) -> Intake:
    places = rows.tolist()
    records = [events.records[row] for row in places]
    return Intake(records, [events.events[row] for row in places], (), events.matrix[rows], ())
