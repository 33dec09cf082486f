"""What the head of a CSV file tells of its columns."""

import csv
import gzip
import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

from schemas.errors import SettingsError

_MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
_DELIMITERS: Final = ",;\t|"
_EPOCH_RANGES: Final = ((1e8, 5e9), (1e11, 5e12))  # seconds, milliseconds: 1973 to 2128


@dataclass(frozen=True)
class Column:
    """One column: its name and how often each value comes; missing ones (empty, NA, null, …) apart."""

    name: str
    rows: int
    counts: Counter[str]

    @property
    def missing_share(self) -> float:
        """Return the share of rows without a value."""
        return 1 - self.counts.total() / self.rows

    @property
    def words(self) -> frozenset[str]:
        """Return the lower-case words of the name: `customerId` and `customer_id` are {customer, id}."""
        spaced = "".join(f" {c}" if c.isupper() and not up else c for c, up in _with_previous(self.name))
        return frozenset("".join(c if c.isalnum() else " " for c in spaced).lower().split())

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value that no other row has."""
        return len(self.counts) == self.rows

    @cached_property
    def numbers(self) -> list[float] | None:
        """Return the different values as numbers, or None when there is none or one is not a finite number."""
        try:
            found = [float(text) for text in self.counts if "_" not in text]
        except ValueError:
            return None
        return found if found and len(found) == len(self.counts) and all(map(math.isfinite, found)) else None

    @cached_property
    def is_time(self) -> bool:
        """Whether every value is an ISO 8601 date or time, or could be seconds or milliseconds since the epoch."""
        if self.numbers is not None:
            low, high = min(self.numbers), max(self.numbers)
            return any(start <= low and high <= end for start, end in _EPOCH_RANGES)
        return bool(self.counts) and all(map(_is_iso_time, self.counts))


def read_columns(path: Path, rows: int) -> list[Column]:
    """Read the first `rows` rows of a CSV file in UTF-8 (gzipped if it ends in .gz), separated by , ; tab or |.

    Raises SettingsError with a sentence when there is no such file, no header, no row, or a row that does not fit.
    """
    try:
        with gzip.open(path, "rt", **_TEXT) if path.suffix == ".gz" else path.open("r", **_TEXT) as file:
            header, *body = list(islice(_reader(file, path), rows + 1))
    except (OSError, EOFError) as error:
        raise SettingsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not text in UTF-8") from error
    except csv.Error as error:
        raise SettingsError(f"{path} is not a CSV file: {error}") from error
    return []
