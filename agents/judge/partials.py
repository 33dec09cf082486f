"""From records of `<s>.histograms` to partials, and from those to counts."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.baselines import prediction_columns
from agents.join.clock import SLACK_MS
from ml.drift.counting import Counts
from schemas.events import ColumnCounts, PartialHistogram
from schemas.streams import StreamSpec
from schemas.wire import decode_each, decoder
from stream.batches import Record
from stream.screening import without

LAST_MS: Final = 32_503_680_000_000  # up to the year 3000, as every TimeMs

log = logging.getLogger("penstock.judge")


@dataclass(frozen=True, slots=True)
class Partial:
    """A partial and its place in the log.

    `head_ms` is its newest event time; one further ahead of Kafka's timestamp than SLACK_MS is believed to be so far
    ahead and no more, as the join does: one wrong clock out there must not close what others still count into.
    """

    offset: int
    head_ms: int
    event: PartialHistogram

    @property
    def from_the_future(self) -> bool:
        """Whether not even its oldest event time can be believed."""
        return self.event.from_time_ms > self.head_ms


class PartialReader:
    """Reads the partials of one stream."""

    def __init__(self, spec: StreamSpec) -> None:
        self._stream = spec.name
        self._columns = len(spec.features) + len(prediction_columns(spec))
        self._decode = decoder(PartialHistogram).decode

    def read(self, records: Sequence[Record]) -> tuple[list[Partial], int]:
        """Return the partials, and how many records are none of this stream; those are logged and left out.

        20 µs per column of a thousand values, most of them in cells of their own; 2 µs of a few values.
        """
        events, bad = decode_each(self._decode, [record.value for record in records])
        problems = {position: str(error) for position, error in bad.items()}
        found = []
        good = (position for position in range(len(records)) if position not in bad)
        for position, record, event in zip(good, without(records, bad), events, strict=True):
            if problem := self._problem(event):
                problems[position] = problem
            else:
                head_ms = min(event.to_time_ms, record.timestamp + SLACK_MS)
                found.append(Partial(record.offset, head_ms, event))
        for position, problem in sorted(problems.items()):
            offset = records[position].offset
            log.warning("the record at offset %d of %s.histograms is skipped: %s", offset, self._stream, problem)
        return found, len(problems)

    def _problem(self, event: PartialHistogram) -> str:
        """Return what makes this no partial of the stream, whatever its baseline is; empty if nothing does."""
        if event.stream != self._stream:
            return f"it is of stream {event.stream!r}"
        if not 0 <= event.from_time_ms <= event.to_time_ms <= LAST_MS:
            return f"its event times {event.from_time_ms} to {event.to_time_ms} are none"
        if len(event.columns) != self._columns:
            return f"it has {len(event.columns)} columns, but the stream has {self._columns}"
        if event.n < 1 or not all(_adds_up(column, event.n) for column in event.columns):
            return f"its columns do not add up to {event.n} events"
        return ""


def _adds_up(column: ColumnCounts, n: int) -> bool:
    """Whether the cells are ascending and hold, with what is missing, `n` values; and every sum is a number."""
    cells, counts = column.cells, column.counts
    return (
        len(cells) == len(counts)
        and column.missing >= 0
        and sum(counts) + column.missing == n
        and (not cells or (cells[0] >= 0 and min(counts) > 0))
        and len(set(cells)) == len(cells)
        and sorted(cells) == list(cells)
        and all(map(math.isfinite, (*column.sums, column.below, column.above)))
    )


def add_partial(counts: Counts, event: PartialHistogram, starts: NDArray[np.int64]) -> bool:
    """Add a partial up; return False, and add nothing, where it has cells that the baseline has not.

    `starts` (columns + 1) are where each column's cells begin in `counts`, as the baseline's layout says.
    """
    columns = event.columns
    widths = np.diff(starts).tolist()
    if any(column.cells and column.cells[-1] >= width for column, width in zip(columns, widths, strict=True)):
        return False
    cells = np.fromiter(chain.from_iterable(column.cells for column in columns), dtype=np.int64)
    cells += np.repeat(starts[:-1], [len(column.cells) for column in columns])
    # No cell is there twice, so that all can be added at once.
    counts.cells[cells] += np.fromiter(chain.from_iterable(column.counts for column in columns), dtype=np.int64)
    counts.missing += [column.missing for column in columns]
    counts.sums += [column.sums for column in columns]
    counts.outside += [(column.below, column.above) for column in columns]
    counts.n += event.n
    return True
