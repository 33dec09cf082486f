"""Are the histograms on Kafka those of the scored events?"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks import histogram_checker
from benchmarks.histogram_checker import Scale
from benchmarks.peers.common.work import DUE_EVENTS, Histogram
from benchmarks.peers.outputs import IN_FLIGHT, Events, Outputs
from benchmarks.plain import Row
from schemas.drift import PartialHistogram

_MOST_WORKS: Final = 4
"""A peer may have so many objects `Work`, one for each partition: each keeps to itself what is not yet due."""


def penstock_differences(scales: Sequence[Scale], rows: Iterable[Row], events: Events, outputs: Outputs) -> list[str]:
    """Return how Penstock's partials are not one pass over exactly the events that have a prediction."""
    decode = msgspec.json.Decoder(PartialHistogram).decode
    partials = [decode(row.value or b"") for row in rows]
    seen = outputs.seen
    reached = np.zeros(int(events.partitions.max()) + 1, dtype=np.int64)
    np.maximum.at(reached, events.partitions[seen], events.offsets[seen] + 1)
    committed = {partition: end for partition, end in enumerate(reached.tolist()) if end}
    return [
        *histogram_checker.count_differences(scales, partials, [column[seen] for column in events.columns]),
        *histogram_checker.cover_differences(partials, committed),
    ]


def peer_differences(
    scales: Sequence[Scale], rows: Iterable[Row], events: Events, outputs: Outputs, *, partial: bool
) -> list[str]:
    """Return how a peer's histograms are not of these events.

    No cell may have more than one pass over all events gives. Each column has `n` values: those of the events that have
    a prediction, but for what was not yet due. Of a contestant that was stopped before its end (`partial`) the last of
    either may be missing.
    """
    decode = msgspec.json.Decoder(Histogram).decode
    counted = [decode(row.value or b"") for row in rows]
    n, seen = sum(each.n for each in counted), len(outputs.seen)
    slack = IN_FLIGHT * len(np.unique(events.partitions)) if partial else 0
    right = seen - DUE_EVENTS * _MOST_WORKS - slack <= n <= min(seen + slack, len(events))
    found = [] if right else [f"the histograms are of {n} events, and {seen} have a prediction"]
    for place, scale in enumerate(scales):
        try:
            cells = _sum([each.cells[place] for each in counted], len(scale.edges) + 1)
        except (IndexError, ValueError):
            found.append(f"{scale.name}: a histogram has other cells than the baseline")
            continue
        missing = sum(each.missing[place] for each in counted)
        true, _ = histogram_checker.count(scale, events.columns[place])
        if too_many := int(((cells - true.cells) > 0).sum()) + (missing > true.missing):
            found.append(f"{scale.name}: {too_many} cells have more values than numpy.histogram gives")
        if cells.sum() + missing != n:
            found.append(f"{scale.name}: {cells.sum() + missing} values were counted of {n} events")
    return found


def _sum(cells: Sequence[Sequence[int]], length: int) -> NDArray[np.int64]:
    """Return the sum, shape (length,). Raises ValueError when one has another length."""
    if any(len(each) != length for each in cells):
        raise ValueError("these are the cells of something else")
    summed: NDArray[np.int64] = np.array(cells, dtype=np.int64).reshape(-1, length).sum(axis=0)
    return summed
