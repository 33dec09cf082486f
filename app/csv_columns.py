"""What a CSV file holds: the head of it tells what its columns are, and columns of numbers become a matrix."""

import csv
import gzip
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
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
            numbers = [float(text) for text in self.counts]
        except ValueError:
            return None
        return numbers if numbers and all(map(math.isfinite, numbers)) else None

    @cached_property
    def is_time(self) -> bool:
        """Whether all values are ISO 8601 dates or times, or could be seconds or milliseconds since the epoch."""
        if self.numbers is not None:
            low, high = min(self.numbers), max(self.numbers)
            return any(first <= low and high <= last for first, last in _EPOCH_RANGES)
        return bool(self.counts) and all(map(_is_iso_time, self.counts))


def read_columns(path: Path, rows: int) -> list[Column]:
    """Read the header and the first `rows` rows of a CSV file: UTF-8, separated by , ; tab or |, gzipped if *.gz.

    Raises SettingsError when the file cannot be read, has no header or no row, or a row does not fit the header.
    """
    lines = list(islice(_lines(path), rows + 1))
    if not lines:
        raise SettingsError(f"{path} is empty")
    header, body = lines[0], [line for line in lines[1:] if line]
    _check(path, header, body)
    return [
        Column(name, len(body), Counter(text for line in body if (text := line[i].strip()).lower() not in _MISSING))
        for i, name in enumerate(header)
    ]


def read_matrix(path: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the columns called `names` of all rows of a CSV file, as float32 of shape (rows, names); missing is NaN.

    The file is as for `read_columns`; columns with other names are left out. Raises SettingsError also when a column is
    not there, and for a value that is no number, or infinite as one of 32 bits. About 2 µs per row of ten columns.
    """
    lines = _lines(path)
    header = [name.strip() for name in next(lines, [])]
    if absent := [name for name in names if name not in header]:
        raise SettingsError(f"{path} has no column {absent[0]!r}; its header has {', '.join(header) or 'nothing'}")
    places = [header.index(name) for name in names]
    rows = (line for line in lines if line)
    pieces, first = [np.empty((0, len(names)), dtype=np.float32)], 1
    while piece := list(islice(rows, _PIECE_ROWS)):
        _check(path, header, piece, first)
        pieces.append(np.stack([_numbers(path, header, piece, place, first) for place in places], axis=1))
        first += len(piece)
    return np.concatenate(pieces)


def _numbers(
    path: Path, header: Sequence[str], lines: Sequence[Sequence[str]], place: int, first: int
) -> NDArray[np.float32]:
    texts = [line[place].strip() for line in lines]
    numbers = np.empty(len(texts), dtype=np.float64)
    for i, text in enumerate(texts):
        try:
            numbers[i] = math.nan if text.lower() in _MISSING else float(text)
        except ValueError as error:
            where = f"{path}: row {first + i}, column {header[place]!r}"
            raise SettingsError(f"{where}: {text!r} is not a number") from error
    with np.errstate(over="ignore"):
        column = numbers.astype(np.float32)
    if (bad := np.flatnonzero(np.isinf(column))).size:
        where = f"{path}: row {first + bad[0]}, column {header[place]!r}"
        raise SettingsError(f"{where}: {texts[bad[0]]!r} is infinite, or beyond the range of a 32-bit float")
    return column


def _lines(path: Path) -> Iterator[list[str]]:
    """Yield the fields of every line. Raises SettingsError when the file cannot be read as CSV."""
    try:
        with _open(path) as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            yield from csv.reader(file, delimiter=delimiter)
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
    return max(_DELIMITERS, key=header.count)


def _check(path: Path, header: Sequence[str], body: Sequence[Sequence[str]], first: int = 1) -> None:
    """Raise SettingsError for a header that is none, and for rows, numbered from `first`, that do not fit it."""
    if any(map(_is_number, header)):
        raise SettingsError(f"{path} has no header: its first line has the number {next(filter(_is_number, header))}")
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise SettingsError(f"{path} has {repeated[0]!r} as the name of more than one column")
    if not body:
        raise SettingsError(f"{path} has a header, but no rows")
    for number, line in enumerate(body, start=first):
        if len(line) != len(header):
            raise SettingsError(f"{path}: row {number} has {len(line)} fields, but the header has {len(header)}")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_iso_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
