"""A world: one way that history went, or would have gone, and all that the stream's code would have told of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.judge.references import OpenBaseline
from agents.replay.drifting import Drifting, Measured
from agents.replay.evaluating import Evaluating
from agents.replay.events import ServedEvents
from ml.evaluation.columns import Columns
from ml.models.protocol import Scores
from schemas.events import Alert, Deployment, RetrainRequest
from schemas.experiments import CHAMPION
from schemas.streams import DriftSpec, StreamSpec
from stream.intake import Intake

Measure = Callable[[str], Awaitable[Measured]]
"""Returns a registered model as a champion, with what its events are counted against, by its id."""


@dataclass(slots=True)
class Told:
    """What people and trainers would have been told, in the order of the history."""

    alerts: list[Alert] = field(default_factory=list)
    requests: list[RetrainRequest] = field(default_factory=list)

    def add(self, told: tuple[list[Alert], list[RetrainRequest]]) -> None:
        """Append what was told."""
        self.alerts += told[0]
        self.requests += told[1]


class World:
    """Counts events and samples as one stream's declaration says. `drift` leaves nothing open.

    The champion of an event is that of the deployment under which it was served, unless `champion` is the id of one for
    all, or an answer names it.
    """

    def __init__(
        self,
        spec: StreamSpec,
        drift: DriftSpec,
        open_baseline: OpenBaseline,
        measure: Measure,
        deployments: Mapping[int, Deployment],
    ) -> None:
        self.spec = spec
        self.told = Told()
        self.evaluating = Evaluating(spec)
        self._drifting = Drifting(spec, drift, open_baseline)
        self._measure = measure
        self._deployments = deployments

    @property
    def drift_windows(self) -> int:
        """How many windows were judged."""
        return self._drifting.windows

    async def open(self) -> None:
        """Begin."""
        await self._drifting.open()

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
        await self._drifting.count(partition, taken, scores[part], await self._measure(champion), champions)

    async def judge(self, written_ms: int) -> None:
        """Judge the drift of what was counted by now; `written_ms` is when the newest of it was written."""
        self.told.add(await self._drifting.judge(written_ms))

    def label(self, samples: Columns) -> None:
        """Evaluate samples."""
        self.told.add(self.evaluating.take(samples))


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where runs of equal values begin and end."""
    if not len(values):
        return []
    borders = (np.flatnonzero(np.diff(values)) + 1).tolist()
    return list(zip([0, *borders], [*borders, len(values)], strict=True))
