"""The archive: samples as Parquet files in the model store, for training and for people.

A file is `<root>/archive/<stream>/log=<log>/date=<date>/<first>-<stop>.parquet`: of the offsets [first, stop) of one
log, the rows of one date. A topic that was made anew is another log, with the same offsets again: each has a folder.
All of this does file or network I/O and blocks: call it from a thread.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from schemas.errors import SettingsError
from stores.artifacts import ArtifactCorrupted
from stores.files import PART, place_of, working, write_whole

_NAME: Final = re.compile(r"log=([^/]+)/date=(\d{4}-\d\d-\d\d)/(\d{20})-(\d{20})\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class ArchiveFile:
    """The rows of one date among those of the offsets [first, stop) of a log of `<stream>.samples`."""

    stream: str
    log: str
    first: int
    stop: int
    date: date

    @property
    def name(self) -> str:
        """Where it is below the archive's root."""
        return f"{self.stream}/log={self.log}/date={self.date}/{self.first:020d}-{self.stop:020d}.parquet"


class Archive:
    """The archive below `root`, which is a folder or an fsspec URL: `model_storage_dir`.

    Every call raises ArtifactUnavailable when the store does not answer, refuses, or is full.
    """

    def __init__(self, root: str) -> None:
        """Raise SettingsError when nothing installed can open such a URL. Nothing is read or written yet."""
        try:
            self._files, path = url_to_fs(root)
        except (ImportError, ValueError) as error:
            raise SettingsError(f"model_storage_dir {root!r} cannot be used: {error}") from error
        self._root = f"{path}/archive"

    def write(self, file: ArchiveFile, table: pa.Table) -> None:
        """Write `table` as `file`, in place of one that is there. The same table gives the same bytes.

        The name appears only when every byte is written: a crash leaves at most a hidden `.part` file.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(table.combine_chunks(), sink, compression="zstd")
        path = self._path(file)
        with self._working(path):
            write_whole(self._files, path, sink.getvalue())

    def files(self, stream: str, log: str) -> list[ArchiveFile]:
        """Return the files of a log by offset, then by date. About 10 µs for each in a folder."""
        return sorted(file for path in self._found(stream, log) if (file := _file_of(stream, path)) is not None)

    def read(self, files: Sequence[ArchiveFile], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of `files`, at least one, in their order.

        The table has the columns of every file, or those of `columns` that any of them has: null where a file lacks
        one. Raises ArtifactCorrupted when a file is no Parquet, or has another type for a column than the others.
        """
        tables = [self._read(file, columns) for file in files]
        try:
            return pa.concat_tables(tables, promote_options="default")
        except pa.ArrowException as error:
            raise ArtifactCorrupted(
                f"the archived samples of {files[0].stream} are not of one kind ({error}); move those of an earlier "
                "task out of the archive"
            ) from error

    def remove(self, files: Sequence[ArchiveFile]) -> None:
        """Delete `files`, as far as they are there."""
        for file in files:
            path = self._path(file)
            with self._working(path), contextlib.suppress(FileNotFoundError):
                self._files.rm_file(path)

    def sweep(self, stream: str, log: str) -> None:
        """Delete what writers that were killed have left half done. Nobody else may write meanwhile."""
        for path in self._found(stream, log):
            if path.endswith(PART):
                with self._working(path), contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(path)

    def _found(self, stream: str, log: str) -> list[str]:
        folder = f"{self._root}/{stream}/log={log}"
        with self._working(folder):
            self._files.invalidate_cache()
            found: list[str] = self._files.find(folder)
        return found

    def _read(self, file: ArchiveFile, columns: Sequence[str] | None) -> pa.Table:
        path = self._path(file)
        with self._working(path):
            try:
                with self._files.open(path, "rb") as opened, pq.ParquetFile(opened) as parquet:
                    return parquet.read(columns=None if columns is None else list(columns))
            except pa.ArrowException as error:
                raise ArtifactCorrupted(
                    f"{self._where(path)} is no Parquet file any more ({error}); restore it from a backup, or delete "
                    "it to go on without its samples"
                ) from error

    def _path(self, file: ArchiveFile) -> str:
        return f"{self._root}/{file.name}"

    def _where(self, path: str) -> str:
        return place_of(self._files, path)

    def _working(self, path: str) -> contextlib.AbstractContextManager[None]:
        return working(self._files, path, "the archive")


def _file_of(stream: str, path: str) -> ArchiveFile | None:
    """Return which file is at `path`; None of what no archive writes."""
    matched = re.search(rf"/archive/{re.escape(stream)}/{_NAME.pattern}$", path)
    if matched is None:
        return None
    log, day, first, stop = matched.groups()
    return ArchiveFile(stream, log, int(first), int(stop), date.fromisoformat(day))
