"""What is added up of a stream: for the experiment of its newest deployment, and for its shadows."""

from typing import Final

import msgspec

from agents.compare.history import History
from agents.compare.reader import CompareReader
from agents.compare.shadows import ShadowTotal, ShadowTotals
from agents.compare.tracked import Tracked, TrackedState
from schemas.events import Deployment
from schemas.streams import StreamSpec
from stream.batches import Batch
from stream.views import LogView
from topics.specs import StreamTopics


class Totals(msgspec.Struct, frozen=True):
    """All of it at rest."""

    tracked: TrackedState | None
    shadows: list[ShadowTotal]


class Folding:
    """The folds of `<s>.samples` and `<s>.variants`, which do not need each other: see `stage`."""

    def __init__(self, spec: StreamSpec, deployments: LogView[Deployment]) -> None:
        self.history: Final = History(deployments)
        self.shadows: Final = ShadowTotals()
        self.tracked: Tracked | None = None
        self._spec = spec
        self._variants = StreamTopics(spec.name).variants
        self._reader = CompareReader(spec)

    @property
    def has_shadows(self) -> bool:
        """Whether the newest deployment has any."""
        return bool(self.history.newest and self.history.newest.shadows)

    @property
    def rules(self) -> str:
        """What the experiment is judged by, as text: a state added up by other rules is of no use."""
        return "" if self.tracked is None else msgspec.json.encode(self.tracked.rules).decode()

    def refresh(self) -> bool:
        """Take over what is new in the deployments, for the shadows; return whether there is anything."""
        if not self.history.refresh():
            return False
        self.shadows.follow(self.history.shadows())
        return True

    def begin(self, deployment: Deployment | None) -> None:
        """Follow the experiment of a deployment, of which nothing is added up yet; None, or one without: follow none.

        Epochs that came after it are known, too.
        """
        self.tracked = None
        if deployment is not None and deployment.experiment is not None:
            self.tracked = Tracked(self._spec, self._reader, self.history, deployment)

    def follow(self) -> None:
        """Take over what is new in the deployments: an experiment begins or ends, shares change, shadows come and go.

        Of several experiments that came one after the other in the meantime only the last is followed.
        """
        news = self.refresh()
        newest = self.history.newest
        running = newest.experiment.experiment_id if newest is not None and newest.experiment is not None else None
        tracked = None if self.tracked is None else self.tracked.experiment.experiment_id
        if tracked != running:
            self.begin(newest)
        elif self.tracked is not None and news:
            self.tracked.follow()

    def reaches(self, batch: Batch) -> bool:
        """Whether the deployments that the records name are known."""
        return self.history.reach(max(self._reader.revisions(batch.records), default=0))

    def fold(self, batch: Batch) -> None:
        """Add up a batch of either log; about 2 µs per sample of the experiment."""
        if batch.source.topic == self._variants:
            counts = self._reader.counts(batch.records)
            self.shadows.count(counts)
            if self.tracked is not None:
                self.tracked.count(counts)
        elif self.tracked is not None:
            self.tracked.take(self._reader.samples(batch.records))

    def dump(self) -> bytes:
        """Return the state."""
        tracked = None if self.tracked is None else self.tracked.dump()
        return msgspec.msgpack.encode(Totals(tracked, list(self.shadows.totals.values())))

    def load(self, dumped: bytes) -> None:
        """Take over a state; `begin` was called for the experiment that it is of.

        Raises ValueError, msgspec's errors, or what the monitor raises, when that is not possible.
        """
        totals = msgspec.msgpack.decode(dumped, type=Totals)
        if self.tracked is not None:
            if totals.tracked is None:
                raise ValueError("it is of no experiment")
            self.tracked.load(totals.tracked)
        self.shadows.load(totals.shadows)
