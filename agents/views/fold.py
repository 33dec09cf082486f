"""The fold of five logs of a stream into what Redis shows of it: `penstock views rebuild` uses the one of the worker.

Each log is folded in its order. How the logs stand to each other does not matter.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from agents.views.drift import Alerts, Reports
from agents.views.experiments import ExperimentReports
from agents.views.models import Models
from agents.views.reading import KEPT_MS, Pieces, ReadBack
from agents.views.routing import Routing
from stores.views import View
from stream.batches import Record, TopicPartition
from topics.specs import StreamTopics


class _Part(Protocol):
    """The fold of one log."""

    async def recall(self, pieces: Pieces, oldest_ms: int) -> None:
        """Take what is to be shown of earlier records; nothing older than `oldest_ms` is, save for models."""

    def take(self, records: Sequence[Record]) -> None:
        """Go on with later records."""


class Fold:
    """What one stream's logs have to show. `mark` tells how far in each log it is."""

    def __init__(self, stream: str) -> None:
        topics = StreamTopics(stream)
        self._routing = Routing(stream)
        drift, alerts = Reports(stream), Alerts(stream)
        models, experiments = Models(stream, self._routing), ExperimentReports(stream, self._routing)
        parts: dict[str, _Part] = {  # what is recalled first comes first
            topics.drift: drift,
            topics.alerts: alerts,
            topics.models: models,
            topics.deployments: self._routing,
            topics.experiments: experiments,
        }
        self._parts = {TopicPartition(topic, 0): part for topic, part in parts.items()}
        self._shown = (
            drift,
            alerts,
            experiments,
            models,
        )  # models last: where there are too many, it is they that miss
        self._next = dict.fromkeys(self._parts, 0)

    @property
    def mark(self) -> str:
        """The next offset of each log."""
        return ":".join(map(str, self._next.values()))

    async def recall(self, read_back: ReadBack, stops: Mapping[TopicPartition, int] | None, now_ms: int) -> None:
        """Read what is to be shown of the records before `stops`; None: of all. Once, before anything else.

        Models are read whole, anything else as far back as it is shown at `now_ms`. Raises what `read_back` raises.
        """
        for source, part in self._parts.items():
            stop = None if stops is None else stops.get(source, 0)
            async with aclosing(self._back(read_back, source, stop)) as pieces:
                await part.recall(pieces, now_ms - KEPT_MS)

    async def _back(
        self, read_back: ReadBack, source: TopicPartition, stop: int | None
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Yield the pieces of a log, and note how far it went."""
        self._next[source] = stop or 0
        async with aclosing(read_back(source, stop)) as pieces:
            async for records in pieces:
                self._next[source] = max(self._next[source], records[-1].offset + 1)
                yield records

    def take(self, source: TopicPartition, records: Sequence[Record], next_offset: int) -> None:
        """Go on with later records of one log. What is no event of that log is logged and passed over."""
        self._parts[source].take(records)
        self._next[source] = next_offset

    def view(self) -> View:
        """Return what is to be shown now; later records do not change it. About 0.3 ms for 5,000 models."""
        entries = {key: entry for part in self._shown for key, entry in part.entries().items()}
        return View(self.mark, self._routing.assigning, entries)
