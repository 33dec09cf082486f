"""What tests of the comparison share: experiments, samples and counts of them, and a stage that can crash."""

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from agents.blobs import Blobs
from agents.compare import INLINE_BYTES, Compare
from ml.experiments.assignment import bucket_counts, buckets_of, expanded, initial_table, reshared
from schemas.events import Alert, Command, Deployment, Sample
from schemas.experiments import (
    Experiment,
    ExperimentPlan,
    ExperimentReport,
    ServedCount,
    ShadowCount,
    Variant,
    VariantCounts,
)
from schemas.streams import EvaluationSpec, JoinSpec, StreamSpec
from schemas.wire import decode, encode
from stores.artifacts import ArtifactStore
from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from stream.views import LogView
from tests.support import Entry, LogMemory, sample_of

SAMPLES, VARIANTS = TopicPartition("s.samples", 0), TopicPartition("s.variants", 0)
SECOND, MINUTE = 1_000, 60_000
DAWN = 1_000 * MINUTE
SPEC = StreamSpec(
    name="s",
    features=("a",),
    join=JoinSpec(window_minutes=10, lateness_minutes=0),
    evaluation=EvaluationSpec(maturity_minutes=0),
)
Event = Sample | VariantCounts | bytes


def experiment_of(
    experiment_id: str = "x", challengers: dict[str, str] | None = None, share: float = 0.5, **plan: Any
) -> Experiment:
    """Return an experiment at epoch 0: each challenger, by name, has its model and `share`. With steps, a rollout."""
    challengers = {"b": "m2"} if challengers is None else challengers
    counts = bucket_counts((1 - share * len(challengers), *[share] * len(challengers)))
    names = {"champion": "m1"} | challengers
    rules: dict[str, Any] = {"metric": "accuracy", "min_samples": 50} | plan
    return Experiment(
        experiment_id=experiment_id,
        kind="rollout" if "steps" in plan else "experiment",
        plan=ExperimentPlan(**rules),
        salt=f"s/{experiment_id}",
        variants=tuple(
            Variant(name=name, model_id=model_id, buckets=n)
            for (name, model_id), n in zip(names.items(), counts, strict=True)
        ),
        table=initial_table(counts),
    )


def reshared_to(experiment: Experiment, share: float) -> Experiment:
    """Return the next epoch of an experiment with one challenger, which has `share` now."""
    counts = bucket_counts((1 - share, share))
    variants = tuple(
        msgspec.structs.replace(variant, buckets=n) for variant, n in zip(experiment.variants, counts, strict=True)
    )
    table = reshared(experiment.table, counts)
    return msgspec.structs.replace(experiment, variants=variants, table=table, epoch=experiment.epoch + 1)


def deployment_of(revision: int, experiment: Experiment | None = None, **changes: Any) -> Deployment:
    """Return a deployment of the champion m1."""
    fields: dict[str, Any] = {"champion": "m1", "experiment": experiment}
    return Deployment(
        stream="s",
        revision=revision,
        changed_time_ms=0,
        changed_by="somebody",
        correlation_id=f"command-{revision}",
        **fields | changes,
    )


def sample_in(i: int, deployment: Deployment, *, right: bool = True, **changes: Any) -> Sample:
    """Return the sample of event `i`, one in each second, of an entity of its own, in the variant that this has."""
    experiment = deployment.experiment
    entity = f"N{i}"
    variant = experiment.variants[0] if experiment else Variant(name="champion", model_id="m1", buckets=10_000)
    if experiment:
        place = expanded(experiment.table)[buckets_of([entity.encode()], experiment.salt)[0]]
        variant = experiment.variants[place]
    time_ms = DAWN + i * SECOND
    fields = {
        "entity_id": entity,
        "event_time_ms": time_ms,
        "label_time_ms": time_ms + 10,
        "label": i % 2,
        "score": 0.9 if (i % 2 == 1) == right else 0.1,
        "predicted": i % 2 if right else 1 - i % 2,
        "variant": variant.name,
        "model_id": variant.model_id,
        "deployment_revision": deployment.revision,
    }
    return sample_of(i, **fields | changes)


def counts_of(
    revision: int, shadows: Sequence[ShadowCount] = (), to_time_ms: int = DAWN, **served: int | ServedCount
) -> VariantCounts:
    """Return what was counted of variants, by name: how many events, or more of it."""
    variants = tuple(
        ServedCount(variant=name, model_id="m", n=n) if isinstance(n, int) else n for name, n in served.items()
    )
    return VariantCounts(
        stream="s",
        partition=0,
        from_offset=0,
        to_offset=1,
        to_time_ms=to_time_ms,
        deployment_revision=revision,
        variants=variants,
        shadows=tuple(shadows),
    )


def shadow_of(n: int, disagreements: int = 0, model_id: str = "m9", variant: str = "nine") -> ShadowCount:
    """Return what was counted of a shadow."""
    return ShadowCount(variant=variant, model_id=model_id, n=n, disagreements=disagreements, distance=n / 4)


class Bench:
    """The stage on its logs, which can be left alone with what is committed and be opened again.

    `coming` are deployments that are in their log, and not in the view yet.
    """

    def __init__(self, *deployments: Deployment, spec: StreamSpec = SPEC) -> None:
        self.spec = spec
        self.logs: dict[TopicPartition, list[Entry]] = {SAMPLES: [], VARIANTS: []}
        self.memory = LogMemory(self.logs)
        self.committed = {SAMPLES: 0, VARIANTS: 0}
        self.view: LogView[Deployment] = LogView("s.deployments", Deployment)
        self.view.events.extend(deployments)
        self.coming: list[Deployment] = []
        self.waited = 0
        self.metrics = Metrics()
        self.store = ArtifactStore(f"memory://{secrets.token_hex(4)}")
        self.save_records = 100_000
        self.checkpoints = 0
        self.reports: list[ExperimentReport] = []
        self.commands: list[Command] = []
        self.alerts: list[Alert] = []

    async def _caught_up(self) -> None:
        self.waited += 1
        self.view.events.extend(self.coming)
        self.coming = []

    async def open(self, spec: StreamSpec | None = None) -> "Bench":
        """Forget what is not committed, as after a crash."""
        self.spec = spec or self.spec
        blobs = Blobs(self.store, "tests", INLINE_BYTES)
        self.stage = Compare(self.spec, self.view, self._caught_up, self.memory, blobs, self.metrics, self.save_records)
        self.memory.reads.clear()
        self._reached = dict(self.committed)
        await self.stage.open(self.committed)
        return self

    def deploy(self, *deployments: Deployment) -> None:
        """Make deployments known."""
        self.view.events.extend(deployments)

    def write(self, events: Iterable[Event], key: bytes = b"s", timestamp: int = 0) -> None:
        """Append each event to its log, and rubbish to both, with a commit marker behind."""
        for event in events:
            value = event if isinstance(event, bytes) else encode(event)
            sources = [SAMPLES, VARIANTS] if isinstance(event, bytes) else [source_of(event)]
            for source in sources:
                self.logs[source].append(Entry(2 * len(self.logs[source]), value, key, timestamp))

    async def step(self, source: TopicPartition, records: int) -> bool:
        """Process so many more records of a log, if there are any."""
        batch = [entry for entry in self.logs[source] if entry.offset >= self._reached[source]][:records]
        if batch:
            outbox = Outbox()
            await self.stage.process(Batch(source, batch), outbox)
            assert not outbox.targets
            self._reached[source] = batch[-1].offset + 1
        return bool(batch)

    async def commit(self) -> None:
        """Save, and make all that was processed visible."""
        saved = Outbox()
        await self.stage.save(saved)
        before = self.memory.committed
        self.memory.commit(saved)
        self.checkpoints += self.memory.committed is not before
        self.committed = dict(self._reached)
        for target, written in saved.targets.items():
            assert target.partition == 0
            for key, value in written:
                assert key == b"s"
                self._read(target.topic, value)

    def _read(self, topic: str, value: bytes) -> None:
        match topic:
            case "s.experiments":
                self.reports.append(decode(ExperimentReport, value))
            case "s.commands":
                self.commands.append(decode(Command, value))
            case "s.alerts":
                self.alerts.append(decode(Alert, value))
            case _:
                raise AssertionError(topic)

    async def take(self, *events: Event, timestamp: int = 0) -> "Bench":
        """Write, process each log in one batch, and commit."""
        self.write(events, timestamp=timestamp)
        for source in (SAMPLES, VARIANTS):
            await self.step(source, len(self.logs[source]))
        await self.commit()
        return self

    def reads(self, source: TopicPartition) -> list[tuple[int, int]]:
        """Return what was read again of a log since it was opened: from, to."""
        return [(start, stop) for read, start, stop in self.memory.reads if read == source and start < stop]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"stream": "s", **labels})


def source_of(event: Sample | VariantCounts) -> TopicPartition:
    """Return the log that an event belongs to."""
    return SAMPLES if isinstance(event, Sample) else VARIANTS


async def bench_of(*deployments: Deployment, spec: StreamSpec = SPEC) -> Bench:
    """Return an open bench whose view has these deployments."""
    return await Bench(*deployments, spec=spec).open()
