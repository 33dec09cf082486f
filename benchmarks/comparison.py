"""The arithmetic of the benchmarks: how fast, how much slower, and whether the outputs are right."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec
import numpy as np

from benchmarks.plain import Row

_SHOWN: Final = 3
_STEADY: Final = (0.1, 0.9)


class OutputsDiffer(Exception):
    """Somebody did not give exactly what was expected; the message says who and what."""


class Steady(NamedTuple):
    """The part of the outputs that counts: `events` were appended from the one time to the other."""

    events: int
    from_ms: int
    to_ms: int

    @property
    def eps(self) -> float:
        """Events per second."""
        return 1000 * self.events / (self.to_ms - self.from_ms)


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


def steady(times_ms: Iterable[int]) -> Steady:
    """Return the part between the 10th and the 90th percent of the outputs: start and end do not count.

    Raises ValueError when that is too short to be measured.
    """
    ordered = np.sort(np.fromiter(times_ms, np.int64))
    first, last = (int(share * len(ordered)) for share in _STEADY)
    if ordered[first] == ordered[last]:
        raise ValueError(f"{len(ordered)} events are too few: they were all written within a millisecond")
    return Steady(last - first, int(ordered[first]), int(ordered[last]))


def turn(rows: Sequence[Row], commit_ms: float | None) -> Turn:
    """Return the rates at which `rows` were appended. Raises ValueError when they are too few."""
    times_ms = [row.time_ms for row in rows]
    return Turn(steady(times_ms).eps, 1000 * len(rows) / (max(times_ms) - min(times_ms)), commit_ms)


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
