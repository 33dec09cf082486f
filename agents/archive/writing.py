"""A chunk of the samples log becomes files, and nothing else that an interrupted writer may have left remains."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Final

import numpy as np
import pyarrow as pa

from agents.archive.chunks import Chunk
from agents.archive.mark import Mark
from agents.archive.rows import schema_of, table_of
from schemas.streams import StreamSpec
from stores.archive import Archive, ArchiveFile

READ_AT_ONCE: Final = 512  # in a thread; so the event loop waits for the interpreter 4 ms at most


class ChunkWriter:
    """Writes the chunks of one log in their order. Everything here blocks: it is called from a thread.

    A chunk that is written again replaces its own files. Files of other offsets that are not below what was committed
    come from a writer that was killed, and cut the log elsewhere because it had other settings: as soon as a chunk has
    their samples, they go.
    """

    def __init__(self, spec: StreamSpec, archive: Archive, mark: Mark) -> None:
        """`mark` is how far the archive was complete before."""
        self._spec = spec
        self._archive = archive
        self._mark = mark
        self._leftovers: list[ArchiveFile] | None = None

    def write(self, chunk: Chunk) -> int:
        """Write the chunk; return how many samples it has. About 10 µs each, and a disk's flush for each date.

        Raises ArtifactUnavailable; what was written by then does no harm.
        """
        if self._leftovers is None:
            self._archive.sweep(self._spec.name, self._mark.log)
            found = self._archive.files(self._spec.name, self._mark.log)
            self._leftovers = [file for file in found if file.stop > self._mark.offset]
        table = self._table_of(chunk)
        written = []
        for day, rows in _by_date(table):
            file = ArchiveFile(self._spec.name, self._mark.log, chunk.first, chunk.stop, day)
            self._archive.write(file, rows)
            written.append(file)
        self._archive.remove([file for file in self._leftovers if file.first < chunk.stop and file not in written])
        self._leftovers = [file for file in self._leftovers if file.first >= chunk.stop]
        return int(table.num_rows)

    def _table_of(self, chunk: Chunk) -> pa.Table:
        records = chunk.records
        starts = range(0, len(records), READ_AT_ONCE)
        tables = [table_of(self._spec, records[start : start + READ_AT_ONCE]) for start in starts]
        return pa.concat_tables([schema_of(self._spec).empty_table(), *tables])


def log_name(timestamp_ms: int) -> str:
    """Return what a log is called whose first archived record Kafka took at this time: the time, in UTC."""
    taken = datetime.fromtimestamp(max(timestamp_ms, 0) / 1000, UTC)
    return f"{taken:%Y%m%dT%H%M%S}{taken.microsecond // 1000:03d}"


def _by_date(table: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """Yield the rows of each event date (UTC), by date; within one in the order of the log."""
    days = table["event_time"].to_numpy().astype("datetime64[D]")
    for day in np.unique(days):
        yield day.item(), table.filter(pa.array(days == day))
