"""What a CSV file holds: the head of it tells what its columns are; its rows come in pieces, as texts or numbers."""

import csv
import gzip
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SettingsError

_MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})
_DELIMITERS: Final = ",;\t|"
_EPOCH_RANGES: Final = ((1e8, 5e9), (1e11, 5e12))  # in seconds, in milliseconds: from 1973 to 2128
_PIECE_ROWS: Final = 10_000
_DATE: Final = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}\b")
_QUOTED: Final = re.compile(r'"[^"]*"')
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


@dataclass(frozen=True)
class Column:
    """One column: its name, how many rows were read, and how often each value comes (missing ones left out)."""

    name: str
    rows: int
    counts: Counter[str]

    @property
    def missing_share(self) -> float:
        """The share of rows without a value."""
        return 1 - self.counts.total() / self.rows

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value, and no two rows have the same."""
        return len(self.counts) == self.rows

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of the name in lower case: customer and id for `customer_id` and for `customerId`."""
        return frozenset(word.lower() for word in _WORD.findall(self.name))

    @cached_property
    def numbers(self) -> list[float] | None:
        """The different values as numbers; None when there is none, or one is not a finite number."""
        try:
            numbers = [_number(text) for text in self.counts]
        except ValueError:
            return None
        return numbers if numbers and all(map(math.isfinite, numbers)) else None

    @cached_property
    def is_local_time(self) -> bool:
        """Whether some values are ISO 8601 dates or times that do not say in which zone."""
        times = map(_iso_time, self.counts) if self.numbers is None else ()
        return any(time.tzinfo is None for time in times if time is not None)

    @cached_property
    def is_other_time(self) -> bool:
        """Whether all values look like dates, but are written in another way than ISO 8601."""
        return bool(self.counts) and not self.is_time and all(map(_DATE.match, self.counts))

    @cached_property
    def is_time(self) -> bool:
        """Whether all values are ISO 8601 dates or times, or could be seconds or milliseconds since the epoch."""
        if self.numbers is not None:
            low, high = min(self.numbers), max(self.numbers)
            return any(first <= low and high <= last for first, last in _EPOCH_RANGES)
        return bool(self.counts) and None not in map(_iso_time, self.counts)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a file, one after the other; the first of them is row `first`, counted from 1 without the header."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    first: int

    def columns(self) -> list[Column]:
        """Return all columns, as these rows show them."""
        return [
            Column(name, len(self.rows), Counter(text for row in self.rows if (text := _value(row[place]))))
            for place, name in enumerate(self.header)
        ]

    def texts(self, name: str) -> list[str]:
        """Return the values of a column without blanks around them; a missing one is empty. Raises SettingsError."""
        place = self._place(name)
        return [_value(row[place]) for row in self.rows]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return the values of a column, shape (rows,), a missing one as NaN.

        Raises SettingsError for a column that is not there, and a value that is no number or infinite in 32 bits.
        """
        place = self._place(name)
        try:
            numbers = np.array([_number(row[place]) for row in self.rows], dtype=np.float64)
        except ValueError:
            numbers = np.array([self._number(i, place) for i in range(len(self.rows))], dtype=np.float64)
        with np.errstate(over="ignore"):
            infinite = np.flatnonzero(np.isinf(numbers.astype(np.float32)))
        if infinite.size:
            i = int(infinite[0])
            beyond = "is infinite, or beyond the range of a 32-bit float"
            raise SettingsError(f"{self.where(i, name)}: {self.rows[i][place].strip()!r} {beyond}")
        return numbers

    def times_ms(self, name: str) -> NDArray[np.int64]:
        """Return the times of a column in milliseconds since the epoch, shape (rows,).

        They are ISO 8601, in UTC unless they say otherwise, or seconds or milliseconds since the epoch. Raises
        SettingsError for anything else, or a row without one.
        """
        times = [_time_ms(text) for text in self.texts(name)]
        if None in times:
            i = times.index(None)
            raise SettingsError(
                f"{self.where(i, name)}: {self.texts(name)[i]!r} is no ISO 8601 time, such as 2025-01-31T09:30:00Z, "
                "and no seconds or milliseconds since 1970"
            )
        return np.array(times, dtype=np.int64)

    def where(self, i: int, name: str) -> str:
        """Return in words where value `i` of a column is."""
        return f"{self.path}: row {self.first + i}, column {name!r}"

    def _number(self, i: int, place: int) -> float:
        text = self.rows[i][place]
        try:
            return _number(text)
        except ValueError:
            if not _value(text):
                return math.nan
            where = self.where(i, self.header[place])
            raise SettingsError(f"{where}: {text.strip()!r} is not a number") from None

    def _place(self, name: str) -> int:
        try:
            return self.header.index(name)
        except ValueError:
            has = ", ".join(self.header)
            raise SettingsError(f"{self.path} has no column {name!r}; its header has {has}") from None


def read_columns(path: Path, rows: int) -> list[Column]:
    """Read the header and the first `rows` rows of a CSV file: UTF-8, separated by , ; tab or |, gzipped if *.gz.

    Raises SettingsError when the file cannot be read, has no header or no row, or a row does not fit the header.
    """
    return next(read_pieces(path, rows)).columns()


def read_pieces(path: Path, rows: int = _PIECE_ROWS) -> Iterator[Piece]:
    """Yield all rows of a file as for `read_columns`, at most `rows` at a time; there is one piece at least.

    Raises SettingsError, as `read_columns` does.
    """
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        raise SettingsError(f"{path} is empty")
    header = [name.strip() for name in header]
    _check_header(path, header)
    first = 1
    while lines_read := list(islice(lines, rows)):
        yield Piece(path, header, lines_read, first)
        first += len(lines_read)
    if first == 1:
        raise SettingsError(f"{path} has a header, but no rows")


def read_matrix(path: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the columns called `names` of all rows of a CSV file, as float32 of shape (rows, names); missing is NaN.

    The file is as for `read_columns`; columns with other names are left out. Raises SettingsError also when a column is
    not there, and for a value that is no number, or infinite as one of 32 bits. About 5 µs per row of ten columns.
    """
    pieces = [
        np.stack([piece.numbers(name).astype(np.float32) for name in names], axis=1) for piece in read_pieces(path)
    ]
    return np.concatenate(pieces)


def _value(text: str) -> str:
    """Return `text` without blanks around it; nothing where it says that the value is missing."""
    text = text.strip()
    return "" if text.lower() in _MISSING else text


def _lines(path: Path) -> Iterator[list[str]]:
    """Yield the fields of the header, then those of each row; empty lines are left out.

    Raises SettingsError when the file cannot be read as CSV, or a row does not fit the header.
    """
    try:
        with _open(path) as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            lines = filter(None, csv.reader(file, delimiter=delimiter))
            if (header := next(lines, None)) is None:
                return
            yield header
            for number, line in enumerate(lines, start=1):
                if len(line) != len(header):
                    raise SettingsError(
                        f"{path}: row {number} has {len(line)} fields, but the header has {len(header)}, "
                        f"separated by {delimiter!r}"
                    )
                yield line
    except (OSError, EOFError) as error:
        raise SettingsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not text in UTF-8") from error
    except csv.Error as error:
        raise SettingsError(f"{path} is not a CSV file: {error}") from error


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _delimiter(header: str) -> str:
    """Return what separates the names of a header; what stands within quotes separates nothing."""
    return max(_DELIMITERS, key=_QUOTED.sub("", header).count)


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Raise SettingsError for a header that is none."""
    if any(map(_is_number, header)):
        raise SettingsError(f"{path} has no header: its first line has the number {next(filter(_is_number, header))}")
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise SettingsError(f"{path} has {repeated[0]!r} as the name of more than one column")


def _number(text: str) -> float:
    """Return a text as a number. Raises ValueError, for Python's `1_000`, too."""
    if "_" in text:
        raise ValueError
    return float(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(_number(text))
    except ValueError:
        return False


def _iso_time(text: str) -> datetime | None:
    """Return a time, without a zone where it says none."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _time_ms(text: str) -> int | None:
    """Return a time in milliseconds since the epoch; None when `text` is none, or one before 1970."""
    if _is_number(text):
        number = float(text)
        for (first, last), unit_ms in zip(_EPOCH_RANGES, (1_000, 1), strict=True):
            if first <= number <= last:
                return round(number * unit_ms)
    if (moment := _iso_time(text)) is None:
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(zoned.timestamp() * 1_000) if zoned.timestamp() >= 0 else None
