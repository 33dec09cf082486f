"""What tests of views share: a Redis made of a dictionary, the stage before it, events of models and experiments."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agents.views import KEPT_MS, Views
from schemas.errors import RetryableError
from schemas.events import Deployment
from schemas.experiments import Experiment, ExperimentPlan, ExperimentReport, Variant
from schemas.streams import StreamSpec
from schemas.wire import encode
from stores.views import Changes, Entry, Value, View
from stream import metrics as m
from stream.batches import Outbox, Record, TopicPartition
from stream.metric_values import Metrics
from tests.support import Entry as LogEntry
from tests.support import batch, deployment_of

SPEC = StreamSpec(name="flights", features=("distance",))
DRIFT, ALERTS, MODELS, DEPLOYMENTS, EXPERIMENTS = (
    TopicPartition(f"flights.{kind}", 0) for kind in ("drift", "alerts", "models", "deployments", "experiments")
)
NOW_MS = 2 * KEPT_MS
Logs = Mapping[TopicPartition, Sequence[LogEntry]]


@dataclass
class MemoryViews:
    """What Redis would hold. `down` makes it refuse, `hung` makes it never answer; `calls` tells which were whole.

    One that is `broken` by being cancelled says that Redis is away instead, as its client sometimes does.
    """

    mark: str = ""
    assigning: str = ""
    entries: dict[str, Entry] = field(default_factory=dict)
    calls: list[bool] = field(default_factory=list)
    down: bool = False
    hung: bool = False
    broken: bool = False

    async def show(self, stream: str, written: View | None, view: View, now_ms: int) -> Changes:
        assert stream == "flights"
        if self.hung or self.broken:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.broken:
                    raise
                raise RetryableError("the connection is closed") from None
        await asyncio.sleep(0.01)
        if self.down:
            raise RetryableError("Redis is away")
        whole = written is None or self.mark != written.mark
        if whole or written is None or written.mark != view.mark:
            self.calls.append(whole)
            self.mark, self.assigning = view.mark, view.assigning
            living = {key: entry for key, entry in view.entries.items() if (entry.until_ms or now_ms + 1) > now_ms}
            before = {} if whole or written is None else written.entries
            changed = {key: entry for key, entry in living.items() if before.get(key) != entry}
            self.entries = {key: entry for key, entry in self.entries.items() if key in living} | changed
        return Changes(len(self.entries), 0)

    def flush(self) -> None:
        self.mark, self.entries = "", {}

    def value(self, key: str) -> Any:
        """What stands at a key: a document, or a hash."""
        value: Value = self.entries[key].value
        return msgspec.json.decode(value) if isinstance(value, bytes) else value

    def ids(self, prefix: str) -> list[str]:
        """What follows `prefix` in the keys that begin with it."""
        return [key.removeprefix(prefix) for key in self.entries if key.startswith(prefix)]


@dataclass
class Scene:
    """A stage before logs and views in memory."""

    stage: Views
    views: MemoryViews
    metrics: Metrics

    async def take(self, source: TopicPartition, entries: Iterable[LogEntry]) -> None:
        outbox = Outbox()
        await self.stage.process(batch(source, list(entries)), outbox)
        assert not outbox.targets

    def failures(self) -> float:
        return self.metrics.registry.get_sample_value(m.VIEW_FAILURES.name, {"stream": "flights"}) or 0.0


def scene(logs: Logs | None = None) -> Scene:
    views, metrics = MemoryViews(), Metrics()
    return Scene(Views(SPEC, Reader(logs or {}), views, metrics, lambda: NOW_MS), views, metrics)


@dataclass
class Reader:
    """Reads logs in memory back, in pieces of three records."""

    logs: Logs
    read: list[TopicPartition] = field(default_factory=list)

    async def __call__(self, source: TopicPartition, stop: int | None) -> AsyncGenerator[Sequence[Record], None]:
        entries = [entry for entry in self.logs.get(source, []) if stop is None or entry.offset < stop]
        while entries:
            self.read.append(source)
            yield entries[-3:]
            entries = entries[:-3]


def entries(*events: msgspec.Struct, first: int = 0, timestamp: int = NOW_MS) -> list[LogEntry]:
    return [LogEntry(number, encode(event), timestamp=timestamp) for number, event in enumerate(events, first)]


def experiment_of(experiment_id: str, *shares: int, epoch: int = 0) -> Experiment:
    """Return an experiment of the champion "m1" and others, "v1" with "m2" and so on; `shares` are in per cent."""
    names = ["champion", *(f"v{number}" for number in range(1, len(shares)))]
    variants = [
        Variant(name=name, model_id=f"m{number}", buckets=100 * share)
        for number, (name, share) in enumerate(zip(names, shares, strict=True), 1)
    ]
    return Experiment(
        experiment_id=experiment_id,
        kind="experiment",
        plan=ExperimentPlan(metric="accuracy"),
        salt=f"flights/{experiment_id}",
        variants=tuple(variants),
        table=tuple((number, variant.buckets) for number, variant in enumerate(variants)),
        epoch=epoch,
    )


def routed(revision: int, experiment: Experiment | None = None, **changes: Any) -> Deployment:
    """Return a deployment whose champion is "m1"."""
    return msgspec.structs.replace(deployment_of(SPEC, "m1", revision), experiment=experiment, **changes)


def told_of(experiment_id: str, number: int, **changes: Any) -> ExperimentReport:
    """Return report `number` of an experiment, of which nothing is known yet."""
    fields: dict[str, Any] = {
        "stream": "flights",
        "experiment_id": experiment_id,
        "kind": "experiment",
        "deployment_revision": 1,
        "epoch": 0,
        "number": number,
        "to_time_ms": 1_000 * number,
        "plan": None,
        "samples": 0,
        "ripening": 0,
        "variants": (),
        "contrasts": (),
        "guardrails": (),
        "shadows": (),
        "sample_ratio_p": None,
        "verdict": "too_early",
        "winner": "",
        "step": "none",
        "why": "there are too few samples",
    }
    return ExperimentReport(**(fields | changes))
