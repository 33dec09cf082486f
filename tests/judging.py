"""What tests of the judge share: baselines, partial histograms of made-up events, and a judge that can crash."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.judge import Judge
from ml.drift.baseline import Baseline, make_baseline
from ml.drift.counting import Counter
from schemas.drift import ColumnCounts, DriftReport, PartialHistogram
from schemas.errors import PenstockError
from schemas.events import Alert, RetrainRequest
from schemas.streams import DriftSpec, StreamSpec
from schemas.wire import decode, encode
from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from tests.support import Entry, LogMemory

SOURCE = TopicPartition("s.histograms", 0)
MINUTE = 60_000
DAWN = 1_000_000 * MINUTE
SPEC = StreamSpec(name="s", features=("a", "b"), partitions=1)
OLD, NEW, LOST = "0" * 64, "1" * 64, "f" * 64


def events_of(n: int, seed: int, features: int = 2) -> NDArray[np.float64]:
    """Return features and scores of `n` events, all standard normal, shape (n, features + 1)."""
    return np.random.default_rng(seed).standard_normal((n, features + 1))


def baseline_of(seed: int = 0, names: tuple[str, ...] = SPEC.features, n: int = 2_000) -> Baseline:
    """Return a baseline of such events."""
    events = events_of(n, seed, len(names))
    return make_baseline(events[:, :-1], names, {"score": events[:, -1]})


BASELINES = {OLD: baseline_of(1), NEW: baseline_of(2)}
COUNTERS = {sha256: Counter(baseline) for sha256, baseline in BASELINES.items()}


def drift_of(**changes: Any) -> DriftSpec:
    """Return rules that leave nothing open: windows of a hundred events."""
    fields: dict[str, Any] = {"window_events": 100, "check_seconds": 60, "lateness_minutes": 5, "threshold": 0.05}
    return DriftSpec(**(fields | changes))


def partial_of(events: NDArray[np.float64] | int, minute: float = 0, **changes: Any) -> PartialHistogram:
    """Return the partial of some events, or of so many usual ones, at one time. `baseline` and the like can be given.

    The cells are those of OLD where the baseline is not known.
    """
    if isinstance(events, int):
        events = events_of(events, seed=events)
    sha256 = changes.get("baseline", OLD)
    counts = COUNTERS.get(sha256, COUNTERS[OLD]).count(events[:, :-1], [events[:, -1]])
    rest = zip(counts.missing.tolist(), counts.sums.tolist(), counts.outside.tolist(), strict=True)
    columns = []
    for column, (missing, sums, (below, above)) in enumerate(rest):
        cells, counted = counts.sparse()[column]
        columns.append(
            ColumnCounts(missing=missing, cells=cells, counts=counted, sums=tuple(sums), below=below, above=above)
        )
    time_ms = DAWN + int(minute * MINUTE)
    fields: dict[str, Any] = {
        "stream": "s",
        "baseline": sha256,
        "model_id": "m1",
        "partition": 0,
        "from_offset": 0,
        "to_offset": len(events),
        "from_time_ms": time_ms,
        "to_time_ms": time_ms,
        "n": len(events),
        "columns": tuple(columns),
    }
    return PartialHistogram(**(fields | changes))


class Bench:
    """A judge on a log, which can be left alone with what is committed and be opened again."""

    def __init__(
        self,
        drift: DriftSpec,
        spec: StreamSpec = SPEC,
        baselines: Mapping[str, Baseline | Exception] = BASELINES,
    ) -> None:
        self.drift = drift
        self.spec = spec
        self.baselines = dict(baselines)
        self.opened: list[str] = []
        self.entries: list[Entry] = []
        self.memory = LogMemory({SOURCE: self.entries})
        self.committed = 0
        self.metrics = Metrics()
        self.reports: list[DriftReport] = []
        self.alerts: list[Alert] = []
        self.requests: list[RetrainRequest] = []

    async def _open_baseline(self, sha256: str) -> tuple[Baseline, frozenset[str]]:
        self.opened.append(sha256)
        found = self.baselines.get(sha256, PenstockError(f"there is no {sha256[:4]}"))
        if isinstance(found, Exception):
            raise found
        return found, frozenset({"m1"})

    async def open(self) -> "Bench":
        """Forget what is not committed, as after a crash."""
        self.judge = Judge(self.spec, self.drift, self._open_baseline, self.memory, self.metrics)
        self._outboxes: list[Outbox] = []
        self._reached = self.committed
        await self.judge.open({SOURCE: self.committed})
        return self

    def write(self, partials: Iterable[PartialHistogram | bytes], timestamp: int = DAWN * 2, pace_ms: int = 0) -> None:
        """Append to the log, with a commit marker behind each record; each is so much later than the one before."""
        for i, partial in enumerate(partials):
            value = partial if isinstance(partial, bytes) else encode(partial)
            self.entries.append(Entry(2 * len(self.entries), value, b"s", timestamp + i * pace_ms))

    async def step(self, records: int) -> bool:
        """Process so many more records, if there are any."""
        batch = [entry for entry in self.entries if entry.offset >= self._reached][:records]
        if batch:
            self._outboxes.append(Outbox())
            await self.judge.process(Batch(SOURCE, batch), self._outboxes[-1])
            self._reached = batch[-1].offset + 1
        return bool(batch)

    async def commit(self) -> None:
        """Save, and make all that was processed visible."""
        saved = Outbox()
        await self.judge.save(saved)
        self.memory.commit(saved)
        self.committed = self._reached
        for outbox in self._outboxes:
            self._read(outbox)
        self._outboxes = []

    def _read(self, outbox: Outbox) -> None:
        for target, written in outbox.targets.items():
            assert target.partition == 0
            for key, value in written:
                assert key == b"s"
                match target.topic:
                    case "s.drift":
                        self.reports.append(decode(DriftReport, value))
                    case "s.alerts":
                        self.alerts.append(decode(Alert, value))
                    case "s.retrain":
                        self.requests.append(decode(RetrainRequest, value))
                    case topic:
                        raise AssertionError(topic)

    async def take(self, partials: Sequence[PartialHistogram | bytes], timestamp: int = DAWN * 2) -> "Bench":
        """Write, process in one batch, and commit."""
        self.write(partials, timestamp)
        await self.step(len(partials))
        await self.commit()
        return self

    @property
    def windows(self) -> list[tuple[int, int]]:
        """What was judged: number and events."""
        return [(report.number, report.n) for report in self.reports]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"stream": "s", **labels})


async def judged(partials: Sequence[PartialHistogram | bytes], **drift: Any) -> Bench:
    """Return a bench after these partials."""
    return await (await Bench(drift_of(**drift)).open()).take(partials)
