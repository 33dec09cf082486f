"""The arithmetic of the benchmarks: how fast, how much slower, and whether the outputs are right."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec
import numpy as np

from benchmarks.plain import Row

_SHOWN: Final = 3


class OutputsDiffer(Exception):
    """Somebody did not give exactly what was expected; the message says who and what."""


class Turn(NamedTuple):
    """What one contestant did in one turn; rates in events per second, commits in milliseconds."""

    steady_eps: float
    overall_eps: float
    commit_ms: float | None


class _Output(msgspec.Struct):
    event_id: str
    score: float


def differences(expected: Mapping[str, float], rows: Iterable[Row]) -> list[str]:
    """Return one sentence for each way in which `rows` are not exactly one right prediction per event."""
    decode = msgspec.json.Decoder(_Output).decode
    seen: set[str] = set()
    twice, unknown, wrong = [], [], []
    for row in rows:
        output = decode(row.value or b"")
        if output.event_id in seen:
            twice.append(output.event_id)
        seen.add(output.event_id)
        if output.event_id not in expected:
            unknown.append(output.event_id)
        elif output.score != expected[output.event_id]:
            wrong.append(f"{output.event_id} got {output.score!r}, expected {expected[output.event_id]!r}")
    missing = sorted(expected.keys() - seen)
    kinds = {"not scored": missing, "scored twice": twice, "never sent": unknown, "scored differently": wrong}
    return [f"{len(ids)} {kind}: {', '.join(ids[:_SHOWN])}" for kind, ids in kinds.items() if ids]


def turn(rows: Sequence[Row], commit_ms: float | None) -> Turn:
    """Return the rates at which `rows` were appended.

    The steady rate is that of the rows between the 10th and the 90th percent: start and end do not count.
    """
    times_ms = np.sort(np.array([row.time_ms for row in rows]))
    first, last = int(0.1 * len(rows)), int(0.9 * len(rows))
    steady_s, overall_s = np.array([times_ms[last] - times_ms[first], times_ms[-1] - times_ms[0]]) / 1000
    if not steady_s:
        raise ValueError(f"{len(rows)} events are too few: they were all written within a millisecond")
    return Turn(float((last - first) / steady_s), float(len(rows) / overall_s), commit_ms)


def summary(turns: Mapping[str, Sequence[Turn]]) -> dict[str, object]:
    """Return the medians by contestant, Penstock's share of the bare loop's rate, and every single turn."""
    eps = {name: median(t.steady_eps for t in taken) for name, taken in turns.items()}
    commits_ms = [t.commit_ms for t in turns["penstock"] if t.commit_ms is not None]
    return {
        **{f"{name}_eps": round(rate) for name, rate in sorted(eps.items(), reverse=True)},
        "ratio": round(eps["penstock"] / eps["bare_aiokafka"], 3),
        "ratio_at_least_once": round(eps["penstock_at_least_once"] / eps["bare_aiokafka"], 3),
        "commit_ms": round(median(commits_ms), 2) if commits_ms else None,
        "runs": {name: [t._asdict() for t in taken] for name, taken in turns.items()},
    }
