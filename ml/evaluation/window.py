"""One window: the tallies of its variants, its span of event time, and which events are in it."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.evaluation.columns import Columns
from ml.evaluation.figures import Figures
from ml.evaluation.histogram import Ints
from ml.evaluation.tally import Scoring, Tally, TallyState

CHAMPION: Final = "champion"
MAX_EVENTS: Final = 65_536  # of a window, whose corrections can be told to be its own
OTHER_BYTES: Final = 100  # of another model of a variant at rest, with both names


class Measured(msgspec.Struct, frozen=True):
    """One variant's figures, and the newest of its models that they are of.

    A variant that serves has the champion's model where that stood in for its own. So where its newest is one of the
    champion's two newest in the window, the one before counts, unless that is one of them, too.
    """

    variant: str
    model_id: str
    figures: Figures


class WindowState(msgspec.Struct, frozen=True, array_like=True):
    """A Window at rest."""

    number: int
    from_ms: int
    to_ms: int
    looked_at: bool
    tallies: dict[str, TallyState]
    events: bytes
    n: int = -1  # as many as the champion scored, where a state is from before others served beside it
    others: dict[str, str] = {}


class Window:
    """The samples of one window. Its event times are in [from_ms, to_ms)."""

    def __init__(self, number: int, scoring: Scoring, span_ms: tuple[int, int] | None = None) -> None:
        self.number = number
        self.from_ms, self.to_ms = span_ms or (0, 0)
        self.looked_at = False
        self.n = 0  # its events, whoever served them
        self.known_events = 0  # how many of its events it can tell
        self._grows = span_ms is None
        self._scoring = scoring
        self._tallies: dict[str, Tally] = {}
        self._others: dict[str, str] = {}  # of variants that serve, the newest model besides that of the tally
        self._events: list[Ints] = []
        self._dump: bytes | None = None
        self._weight_bytes: int | None = None

    @property
    def weight_bytes(self) -> int:
        """What `dump` gives, from above, and from the counts alone."""
        if self._weight_bytes is None:
            self._weight_bytes = sum(tally.weight_bytes for tally in self._tallies.values())
            self._weight_bytes += OTHER_BYTES * len(self._others)
        return 8 * self.known_events + self._weight_bytes

    def add(self, samples: Columns) -> None:
        """Count first samples of events."""
        self._dump = self._weight_bytes = None
        if self._grows:
            first, last = int(samples.event_times_ms.min()), int(samples.event_times_ms.max())
            self.from_ms = min(self.from_ms, first) if self.n else first
            self.to_ms = max(self.to_ms, last + 1)
            told = samples.events[: MAX_EVENTS - self.known_events]
            self._events.append(told)
            self.known_events += len(told)
        self.n += len(samples)
        delays_ms = samples.label_times_ms - samples.event_times_ms
        for variant, scored in samples.variants.items():
            rows = scored.rows
            if variant not in self._tallies:
                self._tallies[variant] = Tally(self._scoring)
            tally = self._tallies[variant]
            if scored.serves:
                self._note_models(variant, tally.model_id, scored.models)
            tally.model_id = scored.models[-1]
            tally.add(
                samples.labels[rows],
                scored.scores,
                delays_ms[rows],
                int(samples.assumed[rows].sum()),
                samples.latencies_ms[rows] if variant == CHAMPION else None,
            )

    def _note_models(self, variant: str, before: str, models: NDArray[np.object_]) -> None:
        """Keep the model that was the newest until the newest came; `before` was so far."""
        different = np.flatnonzero(models != models[-1])
        if len(different):
            self._others[variant] = models[different[-1]]
        elif before not in ("", models[-1]):
            self._others[variant] = before

    def correct(self, samples: Columns) -> None:
        """Count revisions of events that are in this window: their label replaces the one before."""
        self._dump = self._weight_bytes = None
        for variant, scored in samples.variants.items():
            rows = scored.rows
            if variant in self._tallies:
                first = int((samples.revisions[rows] == 1).sum())
                self._tallies[variant].correct(samples.replaced[rows], samples.labels[rows], scored.scores, first)

    def has(self, events: Ints) -> NDArray[np.bool_]:
        """Return which of the events, shape (n,), are known to be in this window."""
        if len(self._events) > 1:
            self._events = [np.concatenate(self._events)]
        return np.isin(events, self._events[0]) if self._events else np.zeros(len(events), dtype=np.bool_)

    def forget_events(self) -> None:
        """Know none of its events any more."""
        self._events = []
        self.known_events = 0
        self._dump = None

    def figures(self) -> list[Measured]:
        """Return the figures of each variant, the champion first."""
        names = sorted(self._tallies, key=lambda name: (name != CHAMPION, name))
        return [Measured(name, self._model_of(name), self._tallies[name].figures()) for name in names]

    def _model_of(self, variant: str) -> str:
        newest, other = self._tallies[variant].model_id, self._others.get(variant)
        if variant == CHAMPION or other is None or CHAMPION not in self._tallies:
            return newest
        champions = (self._tallies[CHAMPION].model_id, self._others.get(CHAMPION))
        return other if newest in champions and other not in champions else newest

    def dump(self) -> bytes:
        """Return the state. It is kept until the window changes: to pack 1,000 samples takes 0.3 ms."""
        if self._dump is None:
            events = np.concatenate([*self._events, np.zeros(0, dtype=np.int64)])
            state = WindowState(
                self.number,
                self.from_ms,
                self.to_ms,
                self.looked_at,
                {name: tally.dump() for name, tally in self._tallies.items()},
                events.astype("<i8").tobytes(),
                self.n,
                self._others,
            )
            self._dump = msgspec.msgpack.encode(state)
        return self._dump

    def looked(self) -> None:
        """Note that its first look is out."""
        self.looked_at = True
        self._dump = None

    @classmethod
    def restored(cls, scoring: Scoring, dumped: bytes, *, grows: bool) -> "Window":
        """Return the window of which `dumped` is the dump."""
        state = msgspec.msgpack.decode(dumped, type=WindowState)
        window = cls(state.number, scoring, None if grows else (state.from_ms, state.to_ms))
        window.from_ms, window.to_ms, window.looked_at = state.from_ms, state.to_ms, state.looked_at
        window._tallies = {name: Tally.restored(scoring, tally) for name, tally in state.tallies.items()}
        window._others = state.others
        champion = window._tallies.get(CHAMPION)
        window.n = state.n if state.n >= 0 else champion.n if champion is not None else 0
        events = np.frombuffer(state.events, dtype="<i8").astype(np.int64)
        window._events, window.known_events = [events], len(events)
        return window
