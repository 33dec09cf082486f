"""What the head of a CSV file tells of its columns."""

import csv
import gzip
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

from schemas.errors import SettingsError

_MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})
_DELIMITERS: Final = ",;\t|"
_EPOCH_RANGES: Final = ((1e8, 5e9), (1e11, 5e12))  # in seconds, in milliseconds: from 1973 to 2128
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
    try:
        with _open(path) as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            lines = list(islice(csv.reader(file, delimiter=delimiter), rows + 1))
    except (OSError, EOFError) as error:
        raise SettingsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not text in UTF-8") from error
    except csv.Error as error:
        raise SettingsError(f"{path} is not a CSV file: {error}") from error
    if not lines:
        raise SettingsError(f"{path} is empty")
    header, body = lines[0], [line for line in lines[1:] if line]
    _check(path, header, body)
    return [
        Column(name, len(body), Counter(text for line in body if (text := line[i].strip()).lower() not in _MISSING))
        for i, name in enumerate(header)
    ]


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _check(path: Path, header: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    if any(map(_is_number, header)):
        raise SettingsError(f"{path} has no header: its first line has the number {next(filter(_is_number, header))}")
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise SettingsError(f"{path} has {repeated[0]!r} as the name of more than one column")
    if not body:
        raise SettingsError(f"{path} has a header, but no rows")
    for number, line in enumerate(body, start=1):
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
