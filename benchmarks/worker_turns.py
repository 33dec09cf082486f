"""What a group of workers did in one turn of scoring, and the medians of several turns."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.comparison import steady
from benchmarks.plain import Row
from benchmarks.usage import Usage

BROKER: Final = "broker"
"""The name of the broker among the processes whose usage is sampled; all others are workers."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a group of workers did, between the first and the last tenth of the predictions.

    Processor times are µs per event, of all workers together and of the broker (None: it is somebody else's).
    `peak_mb` is the largest resident size of each worker; `imbalance` is the largest share of the events that one
    worker scored over the mean share, as partitions are not of equal size.
    """

    workers: int
    layout: str
    eps: float
    cpu_us: float
    broker_cpu_us: float | None
    cores: float
    peak_mb: list[float]
    imbalance: float


def turn_of(rows: Sequence[Row], usage: Usage, layout: str, done: Sequence[float]) -> Turn:
    """Return the figures of a turn: `rows` are its predictions, stamped by the broker; `done` what each worker made."""
    part = steady(row.time_ms for row in rows)
    from_s, to_s, events = part.from_ms / 1000, part.to_ms / 1000, part.events
    names = [name for name in usage.samples if name != BROKER]
    cpu_s = sum(usage.cpu_s(name, from_s, to_s) for name in names)
    broker_s = usage.cpu_s(BROKER, from_s, to_s) if BROKER in usage.samples else None
    return Turn(
        workers=len(names),
        layout=layout,
        eps=round(part.eps),
        cpu_us=round(1e6 * cpu_s / events, 2),
        broker_cpu_us=None if broker_s is None else round(1e6 * broker_s / events, 2),
        cores=round((cpu_s + (broker_s or 0.0)) / (to_s - from_s), 2),
        peak_mb=[round(usage.peak_mb(name), 1) for name in names],
        imbalance=round(max(done) * len(done) / max(sum(done), 1), 2),
    )


def summary(turns: Sequence[Turn]) -> dict[str, dict[str, float | None]]:
    """Return the medians by layout and number of workers, and how many times the rate of the fewest workers that is."""
    found: dict[str, dict[str, float | None]] = {}
    for layout in dict.fromkeys(turn.layout for turn in turns):
        counts = sorted({turn.workers for turn in turns if turn.layout == layout})
        fewest = 0.0
        for count in counts:
            alike = [turn for turn in turns if (turn.layout, turn.workers) == (layout, count)]
            eps = statistics.median(turn.eps for turn in alike)
            fewest = fewest or eps
            broker = [turn.broker_cpu_us for turn in alike if turn.broker_cpu_us is not None]
            found[f"{layout}-{count}"] = {
                "eps": eps,
                "times": round(eps / fewest, 2),
                "cpu_us": statistics.median(turn.cpu_us for turn in alike),
                "broker_cpu_us": statistics.median(broker) if broker else None,
                "cores": statistics.median(turn.cores for turn in alike),
                "peak_mb": statistics.median(max(turn.peak_mb) for turn in alike),
            }
    return found
