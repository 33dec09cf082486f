"""How much memory the join needs for predictions that wait for their label, and how fast it comes back.

    python -m benchmarks.join_memory [--pending 10000000] [--json FILE]

Ten features, ids of 36 and 8 characters, one partition, no Kafka: the records come from memory and are made and decoded
as they are on the wire. Then labels for events drawn from all of them must give samples with exactly the features that
were scored, and labels for unknown events none. Fails when that is not so, or when more than 3 GB are resident.
`rebuild_eps` is from another stage that opens with a checkpoint behind the first half million predictions, per second
of processor time and without what making the records takes. It fails below 100,000 events/s.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from agents.join import Join
from schemas.events import Checkpoint, Label, Prediction, Sample
from schemas.streams import JoinSpec, StreamSpec
from schemas.wire import decode, encode
from stream.batches import Batch, Outbox, TopicPartition
from stream.deadletters import DeadLetterGate
from stream.metric_values import Metrics
from stream.placement import Placement
from topics.specs import StreamTopics

LIMIT_BYTES: Final = 3_000_000_000
LIMIT_EPS: Final = 100_000
REBUILT: Final = 500_000
BATCH: Final = 2_000
LABELS: Final = 2_000
UNKNOWN: Final = 500
START_MS: Final = 1_700_000_000_000
STEP_MS: Final = 5  # between events: ten million are in less than the window of a day
SPEC: Final = StreamSpec(
    name="bench",
    features=tuple(f"f{i}" for i in range(10)),
    partitions=1,
    join=JoinSpec(window_minutes=24 * 60, lateness_minutes=60),
)
TOPICS: Final = StreamTopics(SPEC.name)
PREDICTIONS: Final = TopicPartition(TOPICS.predictions, 0)
LABELS_IN: Final = TopicPartition(TOPICS.labels, 0)
SAMPLES: Final = TopicPartition(TOPICS.samples, 0)


class Row:
    """A record; one that was read from Kafka has the same fields."""

    __slots__ = ("key", "offset", "timestamp", "value")

    def __init__(self, offset: int, timestamp: int, key: bytes, value: bytes) -> None:
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value


def ids_of(number: int) -> tuple[str, str]:
    """Return event id and entity id of an event, of 36 and 8 characters."""
    return f"{number:08x}-7c2e-4d1b-9a3f-{number * 2654435761 % 2**48:012x}", f"N{number % 50_000:07d}"


def features_of(batch: int) -> list[tuple[float, ...]]:
    """Return the features of a batch's events: doubles with all their digits, different for each."""
    return [tuple(row) for row in np.random.default_rng(batch).random((BATCH, len(SPEC.features))).tolist()]


def predictions(batch: int) -> list[Row]:
    """Return the records of one batch of predictions."""
    rows = []
    for number, features in enumerate(features_of(batch), start=batch * BATCH):
        event_id, entity_id = ids_of(number)
        at_ms = START_MS + number * STEP_MS
        event = Prediction(
            event_id=event_id,
            entity_id=entity_id,
            event_time_ms=at_ms,
            scored_time_ms=at_ms + 20,
            latency_ms=20,
            model_id="bench-20250101T000000-0123abcd",
            variant="champion",
            deployment_revision=1,
            score=features[0],
            scores=None,
            label=int(features[0] >= 0.5),
            features=features,
            partition=0,
            offset=number,
        )
        rows.append(Row(number, at_ms, entity_id.encode(), encode(event)))
    return rows


def labels(numbers: list[int]) -> list[Row]:
    """Return one label's record for each of the events, ten seconds after its time."""
    rows = []
    for offset, number in enumerate(numbers):
        event_id, entity_id = ids_of(number)
        at_ms = START_MS + number * STEP_MS + 10_000
        event = Label(event_id=event_id, entity_id=entity_id, label=1, label_time_ms=at_ms)
        rows.append(Row(offset, at_ms, entity_id.encode(), encode(event)))
    return rows


class Remembered:
    """A memory from which the predictions can be read again; `making_s` is what making them took."""

    def __init__(self) -> None:
        self.checkpoint: Checkpoint | None = None
        self.making_s = 0.0

    async def newest(self, committed: Mapping[TopicPartition, int]) -> Checkpoint | None:
        """Return the checkpoint that was saved last."""
        return self.checkpoint

    async def read(self, source: TopicPartition, start: int, stop: int) -> AsyncGenerator[Batch, None]:
        """Yield the predictions from `start`, which begins a batch, to `stop`, which ends one."""
        for batch in range(start // BATCH, stop // BATCH) if source == PREDICTIONS else ():
            started = time.process_time()
            rows = predictions(batch)
            self.making_s += time.process_time() - started
            yield Batch(source, rows)

    def save(self, checkpoint: Checkpoint, outbox: Outbox) -> None:
        """Remember the checkpoint."""
        self.checkpoint = checkpoint


def new_join(memory: Remembered) -> Join:
    """Return a stage that has not opened."""
    placement, gate = Placement(LABELS_IN.topic, 0, 1), DeadLetterGate(1.0, 10_000)
    return Join(SPEC, 0, placement, gate, memory, Metrics(), lambda: START_MS, 65_536)


async def fill(join: Join, batches: Iterator[int], total: int) -> None:
    """Let the stage read batches of predictions."""
    shown = time.monotonic()
    for batch in batches:
        await join.process(Batch(PREDICTIONS, predictions(batch)), Outbox())
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{join.pending:,} of {total:,} predictions wait", file=sys.stderr)


async def check(join: Join, total: int) -> None:
    """Label some of the events, and some that do not exist; the samples must be exactly right."""
    chosen = sorted(np.random.default_rng(1).choice(total, min(LABELS, total // 2), replace=False).tolist())
    outbox = Outbox()
    await join.process(Batch(LABELS_IN, labels([*chosen, *range(total, total + UNKNOWN)])), outbox)
    found = [decode(Sample, value) for _, value in outbox.targets[SAMPLES]]
    wanted = [(*ids_of(number), features_of(number // BATCH)[number % BATCH]) for number in chosen]
    if [(sample.event_id, sample.entity_id, sample.features) for sample in found] != wanted:
        raise SystemExit("the samples are not what was scored: the store gave wrong answers")
    if join.pending != total - len(chosen):
        raise SystemExit(f"{join.pending} predictions wait, where {total - len(chosen)} should")


async def rebuild_eps(count: int) -> float:
    """Return how many predictions per second a stage reads again when it opens."""
    memory = Remembered()
    join = new_join(memory)
    await fill(join, iter(range(count // BATCH)), count)
    await join.save(Outbox())
    again = new_join(memory)
    started = time.process_time()
    await again.open({PREDICTIONS: count, LABELS_IN: 0})
    seconds = time.process_time() - started - memory.making_s
    if again.pending != join.pending:
        raise SystemExit(f"{again.pending} predictions wait after the restart, {join.pending} before it")
    return count / seconds


async def measure(total: int) -> dict[str, float]:
    """Return the figures for `total` waiting predictions."""
    eps = await rebuild_eps(min(REBUILT, total))
    process = psutil.Process()
    before = process.memory_info().rss
    join = new_join(Remembered())
    await fill(join, iter(range(total // BATCH)), total)
    pending, resident = join.pending, process.memory_info().rss
    await check(join, total)
    return {
        "pending": pending,
        "rss_bytes": max(resident, process.memory_info().rss),
        "bytes_per_prediction": round((resident - before) / pending, 1),
        "rebuild_eps": round(eps),
    }


def main() -> None:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pending", type=int, default=10_000_000, help="predictions, in whole batches of 2,000")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.pending // BATCH * BATCH))
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures) + "\n")
    if figures["rss_bytes"] > LIMIT_BYTES:
        raise SystemExit(f"{figures['rss_bytes']:,} bytes are resident, more than {LIMIT_BYTES:,}")
    if figures["rebuild_eps"] < LIMIT_EPS:
        raise SystemExit(f"a restart reads {figures['rebuild_eps']:,} events/s, fewer than {LIMIT_EPS:,}")


if __name__ == "__main__":
    main()
