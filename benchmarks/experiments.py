"""Is a verdict on an experiment right, however often one looks?

Simulated experiments go through the product's monitor, which looks after every 100 labels. A verdict of `better` or
`worse` at any look of an experiment whose variants are the same is false; a z-test is false when its p-value is at most
0.05 at any look from which a verdict could come. All of it has the defaults of a plan: 1,000 mature samples of each
variant before a verdict, and an alpha of 0.05.

`same`: every event is another entity's and its label is there at once; `same_early` begins at 100 samples of each.
`clustered`: 20 events of an entity are alike (correlation ½), wrong predictions are known later than right ones, all
get better with time, and the challenger's share goes from 10 to 50 %.
`late_positives`: models that are right equally often, the challenger more often with positives, whose labels come late;
the second figure is what happens when samples count as soon as they have a label.
`lift`: accuracy 0.35 against 0.30, at 50/50. Labels until the winner is found stand beside a z-test with a fixed number
of labels.

A rate beyond its limit ends the benchmark with exit code 1.
"""

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
from scipy import special

from benchmarks import machine
from benchmarks.experiment_worlds import BASE, LIFT, worlds
from ml.experiments.assignment import bucket_counts, buckets_of, expanded, initial_table
from ml.experiments.monitor import Look, Monitor

LABELS: Final = 20_000
LIFT_LABELS: Final = 10_000
_LOOK: Final = 100
_ALPHA: Final = 0.05
_ASSIGNED: Final = 1_000
_LIMITS: Final = {
    "aa_false": (0.0, 0.05),
    "aa_false_clustered": (0.0, 0.05),
    "z_false": (0.20, 1.0),
    "found": (0.90, 1.0),
    "wrong": (0.0, 0.05),
    "assign_us": (0.0, 0.3),
}


class Told(NamedTuple):
    """What one simulated experiment told. `labels` is how many were mature at the first verdict, or None.

    `z_false` says whether a z-test was significant at any look at which a verdict could come, `z_any` at any at all,
    `z_last` at the last one.
    """

    verdict: str
    labels: int | None
    z_false: bool
    z_any: bool
    z_last: bool


def add_command(commands: Any) -> None:
    """Add `experiments` to the benchmarks that can be asked for."""
    parser = commands.add_parser("experiments", help="how often a verdict on an experiment is false, or found")
    parser.add_argument("--experiments", type=int, default=1_000, help="simulated of each kind")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when a limit is broken."""
    result = measure(arguments.experiments, arguments.processes, arguments.seed)
    broken = beyond_limits(result)
    result |= {"broken": broken, "experiments": arguments.experiments, "machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if broken else 0


def beyond_limits(result: dict[str, Any]) -> list[str]:
    """Return the figures that are not within their limits."""
    return [name for name, (least, most) in _LIMITS.items() if not least <= result[name] <= most]


def measure(experiments: int, processes: int, seed: int) -> dict[str, Any]:
    """Simulate all worlds; return the figures."""
    some = max(experiments // 10, 1)
    plan = {
        "same": (experiments, LABELS),
        "clustered": (experiments, LABELS),
        "lift": (experiments, LIFT_LABELS),
        "same_early": (max(experiments // 4, 1), LABELS),
        "late_positives": (some, LABELS),
        "late_positives_at_once": (some, LABELS),
    }
    told: dict[str, list[Told]] = {}
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        print(f"{'world':24}{'n':>6}{'better':>9}{'worse':>9}{'z-test':>9}{'seconds':>9}", flush=True)
        for name, (n, labels) in plan.items():
            began = time.perf_counter()
            chunk = max(1, min(20, n // (2 * processes)))
            told[name] = list(pool.map(partial(simulate, name, labels), range(seed, seed + n), chunksize=chunk))
            rates = [_share(told[name], verdict) for verdict in ("better", "worse")]
            rates.append(sum(each.z_false for each in told[name]) / n)
            print(f"{name:24}{n:6}" + "".join(f"{rate:9.3f}" for rate in rates), end="")
            print(f"{time.perf_counter() - began:9.0f}", flush=True)
    return _figures(told) | {"assign_us": round(assign_us(), 3)}


def _share(told: Sequence[Told], *verdicts: str) -> float:
    return sum(each.verdict in verdicts for each in told) / len(told)


def _figures(told: dict[str, list[Told]]) -> dict[str, Any]:
    false = {name: _share(each, "better", "worse") for name, each in told.items()}
    same, clustered, lift = told["same"], told["clustered"], told["lift"]
    at = sorted(each.labels for each in lift if each.verdict == "better" and each.labels is not None)
    middle = at[len(at) // 2] if at else 0
    return {
        "aa_false": false["same"],
        "aa_false_clustered": false["clustered"],
        "z_false": sum(each.z_false for each in same) / len(same),
        "found": _share(lift, "better"),
        "wrong": _share(lift, "worse"),
        "aa_false_from_100_samples": false["same_early"],
        "z_false_from_the_first_look": sum(each.z_any for each in same) / len(same),
        "z_false_clustered": sum(each.z_false for each in clustered) / len(clustered),
        "z_false_clustered_one_look": sum(each.z_last for each in clustered) / len(clustered),
        "late_positives_false": false["late_positives"],
        "late_positives_false_at_once": false["late_positives_at_once"],
        "labels_until_found": {"p10": at[len(at) // 10], "p50": middle, "p90": at[len(at) * 9 // 10]} if at else None,
        "z_power_at_10000": sum(each.z_last for each in lift) / len(lift),
        "z_power_at_p50": round(z_power(middle), 3),
        "z_labels_for_power": {str(power): z_labels(power) for power in (0.8, 0.9, 0.99)},
    }


def simulate(name: str, labels: int, seed: int) -> Told:
    """Run one experiment of this world to so many mature labels."""
    world = worlds()[name]
    outcomes, tables = world.draw(np.random.default_rng([seed, *name.encode()[:4]]), labels)
    monitor = Monitor(world.rules, tables)
    verdict, at, z_false, z_any, z_last = "", None, False, False, False
    for start in range(0, len(outcomes), _LOOK):
        monitor.take(outcomes.take(np.arange(start, min(start + _LOOK, len(outcomes)))))
        look = monitor.look()
        if look.samples > labels:
            break
        z_last = z_significant(look)
        z_any |= z_last
        z_false |= z_last and look.verdict != "too_early"
        if not verdict and look.verdict in ("better", "worse"):
            verdict, at = look.verdict, look.samples
    return Told(verdict, at, z_false, z_any, z_last)


def z_significant(look: Look) -> bool:
    """Return whether the z-test that stands beside the confidence sequence is significant."""
    p_value = look.contrasts[0].fixed.get("two_proportion_z")
    return p_value is not None and p_value <= _ALPHA


def z_power(labels: int) -> float:
    """Return the chance that a z-test of so many labels, half of each variant, finds the lift."""
    p = np.array([BASE, BASE + LIFT])
    pooled, apart = 2 * p.mean() * (1 - p.mean()), (p * (1 - p)).sum()
    quantile = float(special.ndtri(1 - _ALPHA / 2))
    return float(special.ndtr((LIFT * math.sqrt(labels / 2) - quantile * math.sqrt(pooled)) / math.sqrt(apart)))


def z_labels(power: float) -> int:
    """Return how many labels a z-test needs for this power, in steps of 100."""
    return next(labels for labels in range(100, 1_000_000, 100) if z_power(labels) >= power)


def assign_us() -> float:
    """Return the median time to assign an event to a variant, in batches of 1,000."""
    table = expanded(initial_table(bucket_counts([0.4, 0.3, 0.2, 0.1])))
    taken = []
    for batch in range(500):
        keys = [f"entity-{batch}-{number}".encode() for number in range(_ASSIGNED)]
        began = time.perf_counter()
        table[buckets_of(keys, "simulated/assigned")]
        taken.append(time.perf_counter() - began)
    return 1e6 * median(taken) / _ASSIGNED
