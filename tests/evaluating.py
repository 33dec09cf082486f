"""The evaluate stage on a bench: samples go in, and what it wrote is kept by topic."""

from collections.abc import Iterable, Sequence
from typing import Any

from agents.evaluate import Evaluate
from schemas.events import Alert, Performance, RetrainRequest, Sample, VariantPerformance
from schemas.streams import EvaluationSpec, JoinSpec, StreamSpec
from schemas.wire import decode, encode
from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from tests.support import Entry, LogMemory, memory_blobs, sample_of

SECOND, MINUTE = 1_000, 60_000
DAWN = 1_000 * MINUTE
SOURCE = TopicPartition("s.samples", 0)


def spec_of(**evaluation: Any) -> StreamSpec:
    """Return a stream with windows of ten samples, each event a minute after the one before it."""
    rules = {"window_samples": 10, "min_samples": 5, "maturity_minutes": 60, "reference_windows": 1} | evaluation
    return StreamSpec(name="s", features=("a",), join=JoinSpec(lateness_minutes=0), evaluation=EvaluationSpec(**rules))


def sample(i: int, *, right: bool = True, **given: Any) -> Sample:
    """Return the sample of event `i`, in minute `i`; its label comes a second later, foretold by the score or not."""
    time = DAWN + given.pop("minute", i) * MINUTE
    label = given.pop("label", i % 2)
    fields = {
        "event_time_ms": time,
        "label_time_ms": time + SECOND,
        "label": label,
        "score": 0.9 if (label == 1) == right else 0.1,
        "latency_ms": 20,
    }
    return sample_of(i, **fields | given)


class Bench:
    """The stage with a memory, and what it wrote by topic."""

    def __init__(self, spec: StreamSpec, memory: LogMemory | None = None) -> None:
        self.spec = spec
        self.memory = memory or LogMemory({})
        self.metrics = Metrics()
        self.stage = Evaluate(spec, self.memory, memory_blobs(), self.metrics)
        self.performance: list[Performance] = []
        self.alerts: list[Alert] = []
        self.requests: list[RetrainRequest] = []
        self.offset = 0

    async def open(self, committed: int = 0) -> "Bench":
        await self.stage.open({SOURCE: committed})
        return self

    async def take(self, samples: Iterable[Sample | bytes], key: bytes = b"s", timestamp: int = DAWN) -> None:
        records = []
        for given in samples:
            value = given if isinstance(given, bytes) else encode(given)
            records.append(Entry(self.offset, value, key, timestamp))
            self.offset += 1
        outbox = Outbox()
        await self.stage.process(Batch(SOURCE, records), outbox)
        for target, written in outbox.targets.items():
            assert target.partition == 0
            assert {key for key, _ in written} == {b"s"}
            for _, value in written:
                match target.topic:
                    case "s.performance":
                        self.performance.append(decode(Performance, value))
                    case "s.alerts":
                        self.alerts.append(decode(Alert, value))
                    case "s.retrain":
                        self.requests.append(decode(RetrainRequest, value))

    @property
    def looks(self) -> list[tuple[int, bool]]:
        return [(found.number, found.mature) for found in self.performance]

    @property
    def reports(self) -> list[tuple[int, bool, tuple[VariantPerformance, ...]]]:
        return [(found.number, found.mature, found.variants) for found in self.performance]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"stream": "s", **labels})


async def bench_of(samples: Sequence[Sample], **evaluation: Any) -> Bench:
    """Return a stage that has taken `samples`."""
    bench = await Bench(spec_of(**evaluation)).open()
    await bench.take(samples)
    return bench


async def save(stage: Evaluate, memory: LogMemory) -> None:
    """Let the stage save, and commit that."""
    outbox = Outbox()
    await stage.save(outbox)
    memory.commit(outbox)
