"""From records of `<s>.histograms` to partials, and from those to counts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.baselines import prediction_columns
from ml.drift.counting import Counts
from schemas.drift import ColumnCounts, PartialHistogram
from schemas.streams import StreamSpec
from schemas.wire import decode_each, decoder
from stream.batches import Record
from stream.screening import without
from stream.timestamps import SLACK_MS

MOST: Final = 2**31  # more than a partial has events, or a baseline cells
LAST_MS: Final = 32_503_680_000_000  # up to the year 3000, as every TimeMs

log = logging.getLogger("penstock.judge")


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells of all columns of a partial, one after the other, and what is in each; shape (cells,) both.

    `lengths` (columns,) tells how many belong to each column.
    """

    places: NDArray[np.int64]
    counts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, columns: Sequence[ColumnCounts]) -> "Cells":
        """Return them, 0.1 µs per cell. Raises OverflowError where a number does not fit."""
        positions = [column.cells or range(len(column.counts)) for column in columns]
        lengths = np.array([len(places) for places in positions], dtype=np.int64)
        places, counts = (
            np.fromiter(chain.from_iterable(rows), dtype=np.int64)
            for rows in (positions, [column.counts for column in columns])
        )
        return cls(places, counts, lengths)


@dataclass(frozen=True, slots=True)
class Partial:
    """A partial, its cells, and its place in the log.

    `head_ms` is its newest event time; one further ahead of Kafka's timestamp (`written_ms`) than SLACK_MS is believed
    to be so far ahead and no more, as the join does: one wrong clock out there must not close what others still count
    into.
    """

    offset: int
    written_ms: int
    head_ms: int
    event: PartialHistogram
    cells: Cells

    @property
    def from_the_future(self) -> bool:
        """Whether not even its oldest event time can be believed."""
        return self.event.from_time_ms > self.head_ms


class PartialReader:
    """Reads the partials of one stream."""

    def __init__(self, spec: StreamSpec) -> None:
        self._stream = spec.name
        self._partitions = spec.partitions
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
            try:
                cells = self._checked(event)
            except ValueError as error:
                problems[position] = str(error)
                continue
            head_ms = min(event.to_time_ms, record.timestamp + SLACK_MS)
            found.append(Partial(record.offset, record.timestamp, head_ms, event, cells))
        for position, problem in sorted(problems.items()):
            offset = records[position].offset
            log.warning("the record at offset %d of %s.histograms is skipped: %s", offset, self._stream, problem)
        return found, len(problems)

    def _checked(self, event: PartialHistogram) -> Cells:
        """Return the cells. Raises ValueError if this is no partial of the stream, whatever its baseline is."""
        if event.stream != self._stream:
            raise ValueError(f"it is of stream {event.stream!r}")
        if not 0 <= event.partition < self._partitions:
            raise ValueError(f"it is of partition {event.partition}, but the stream has {self._partitions}")
        if not 0 <= event.from_time_ms <= event.to_time_ms <= LAST_MS:
            raise ValueError(f"its event times {event.from_time_ms} to {event.to_time_ms} are none")
        if len(event.columns) != self._columns:
            raise ValueError(f"it has {len(event.columns)} columns, but the stream has {self._columns}")
        try:
            cells = Cells.of(event.columns)
            if 0 < event.n < MOST and _adds_up(event, cells):
                return cells
        except OverflowError:
            pass  # a number of more than 64 bits: no baseline has so many cells, and no partial so many events
        raise ValueError(f"its columns do not add up to {event.n} events")


def _adds_up(event: PartialHistogram, cells: Cells) -> bool:
    """Whether in each column the cells ascend and hold, with what is missing, all events; and every sum is a number."""
    columns, places, counts = event.columns, cells.places, cells.counts
    if cells.lengths.tolist() != [len(column.counts) for column in columns]:
        return False
    if not ((places >= 0) & (places < MOST) & (counts >= 0) & (counts <= event.n)).all():
        return False
    missing = np.array([column.missing for column in columns], dtype=np.int64)
    ends = np.cumsum(cells.lengths)
    before = np.concatenate([[0], np.cumsum(counts)])
    rest = np.array([(*column.sums, column.below, column.above) for column in columns])
    # So far apart that what ascends in every column ascends all through.
    apart = places + np.repeat(np.arange(len(columns)) * MOST, cells.lengths)
    return bool(
        (missing >= 0).all()
        and (before[ends] - before[ends - cells.lengths] + missing == event.n).all()
        and (np.diff(apart) > 0).all()
        and np.isfinite(rest).all()
    )


def add_partial(counts: Counts, partial: Partial, starts: NDArray[np.int64]) -> bool:
    """Add a partial up; return False, and add nothing, where it has cells that the baseline has not.

    `starts` (columns + 1) are where each column's cells begin in `counts`, as the baseline's layout says.
    """
    columns, cells = partial.event.columns, partial.cells
    if (cells.places >= np.repeat(np.diff(starts), cells.lengths)).any():
        return False
    # No cell is there twice, so that all can be added at once.
    counts.cells[cells.places + np.repeat(starts[:-1], cells.lengths)] += cells.counts
    counts.missing += [column.missing for column in columns]
    counts.sums += [column.sums for column in columns]
    counts.outside += [(column.below, column.above) for column in columns]
    counts.n += partial.event.n
    return True
