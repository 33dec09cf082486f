"""The judge is a fold: wherever batches end and whenever it crashes, it says the same, once."""

import asyncio
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.judge import windows
from schemas.drift import DriftReport, PartialHistogram
from schemas.events import Alert, RetrainRequest
from schemas.streams import StreamSpec
from tests.judging import LOST, NEW, OLD, Bench, drift_of, events_of, partial_of

KINDS: list[dict[str, Any]] = [
    {},
    {"window_minutes": 3},
    {"sliding": True, "check_seconds": 90},
    {"sliding": True, "check_seconds": 90, "window_minutes": 6},
]
RECORDS = 120
SPEC = StreamSpec(name="s", features=("a", "b"), partitions=2)
Said = tuple[list[DriftReport], list[Alert], list[RetrainRequest]]


def _log(seed: int) -> list[PartialHistogram | bytes]:
    """Return partials of three baselines, in turns, out of order by some minutes; of what comes later more drifts.

    They are of two partitions, of which one is silent for a while and far behind when it speaks again.
    """
    random = np.random.default_rng(seed)
    found: list[PartialHistogram | bytes] = []
    for i in range(RECORDS):
        n = int(random.integers(1, 60))
        moved = events_of(n, seed + i) + random.choice([0.0, 0.7 * (i > 30), 1.5 * (i > 80)], 3)
        baseline = str(random.choice([OLD, NEW, LOST], p=(0.7, 0.25, 0.05) if i % 50 < 30 else (0.1, 0.9, 0.0)))
        partition = int(random.integers(2)) * (not 40 < i < 80)
        minute = i / 4 + random.normal(0, 1) - 8 * (partition and i > 40)
        partial = partial_of(moved, minute, baseline=baseline, partition=partition)
        found.append(b"rubbish" if random.random() < 0.03 else partial)
    return found


def _said(bench: Bench) -> Said:
    return bench.reports, bench.alerts, bench.requests


async def _whole(log: list[PartialHistogram | bytes], drift: dict[str, Any]) -> Said:
    return await _in_pieces(log, drift, [(RECORDS, "commit")])


async def _in_pieces(log: list[PartialHistogram | bytes], drift: dict[str, Any], steps: list[tuple[int, str]]) -> Said:
    """Process so many records, then commit, crash, or go on; again and again until all is read."""
    bench = await Bench(drift_of(cooldown_minutes=10, **drift), SPEC).open()
    bench.write(log, pace_ms=30_000)
    for records, then in steps:
        await bench.step(records)
        if then == "commit":
            await bench.commit()
        elif then == "crash":
            await bench.open()
    while await bench.step(7):
        await bench.commit()
    await bench.commit()
    return _said(bench)


@pytest.mark.parametrize("drift", KINDS)
@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 1_000),
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["commit", "crash", "go on"])), max_size=20),
)
def test_what_is_said_does_not_depend_on_batches_commits_and_crashes(
    drift: dict[str, Any], seed: int, steps: list[tuple[int, str]]
) -> None:
    log = _log(seed)
    with patch.object(windows, "MAX_IDLE_OFFSETS", 30), patch.object(windows, "MAX_BASELINES", 2):
        whole = asyncio.run(_whole(log, drift))
        pieces = asyncio.run(_in_pieces(log, drift, steps))
    assert len(whole[0]) > 3
    assert len(whole[1]) > 0
    assert pieces == whole
