"""Counts over the real numbers, in sparse bins: mergeable, and the same however they were added up.

A number's bin is its place in the order of all float64 numbers (its bits, read as an integer), without the lowest
`level` bits. So bins are narrow where numbers are small, whatever their range. When more than `max_bins` would be
occupied, the level goes up by as much as is needed, which merges neighbours: the uniform collapse of UDDSketch
(Epicoco, Melle, Cafaro, Pulimeno, Morleo, "UDDSketch: accurate tracking of quantiles in data streams", IEEE Access
2020), on bits in place of logarithms. The level that is reached follows from the set of numbers alone, not from their
order or their batches.
"""

import zlib

import msgspec
import numpy as np
from numpy.typing import NDArray

FINE_LEVEL = 20  # 32 of the 52 bits behind the leading one are kept: equal to a relative 2^-32
_PENDING = 8192  # rows that wait before they are sorted in, which costs about 1 ms

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def ordered_keys(values: Floats | Ints) -> Ints:
    """Return integers in the order of `values`, which are finite; 0.0 and -0.0 are the same."""
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.int64)
    keys: Ints = bits ^ ((bits >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))
    return keys


def probability_keys(values: Floats) -> Ints:
    """Return integers in the order of `values`, as fine near 1 as near 0: above ½ they mirror those of 1 - value."""
    half = ordered_keys(np.array([0.5]))[0]
    above = values > 0.5
    keys = ordered_keys(np.where(above, 1.0 - values, values))
    return np.where(above, 2 * half - keys, keys)


class HistogramState(msgspec.Struct, frozen=True, array_like=True):
    """A Histogram at rest; `packed` holds its bins and counts."""

    level: int
    bins: int
    packed: bytes


class Histogram:
    """Counts in `columns` (say, one per class) by key. At most `max_bins` bins, of 8 bytes and 8 for each column.

    Counts may be negative where something is taken back; a bin once occupied stays so.
    """

    def __init__(self, columns: int, level: int = FINE_LEVEL, max_bins: int = 8192) -> None:
        self._columns = columns
        self._level = level
        self._max_bins = max_bins
        self._keys: Ints = np.zeros(0, dtype=np.int64)
        self._counts: Ints = np.zeros((0, columns), dtype=np.int64)
        self._waiting: list[tuple[Ints, Ints]] = []
        self._rows = 0

    @property
    def level(self) -> int:
        """How many low bits of the keys are dropped."""
        self._settle()
        return self._level

    @property
    def bins(self) -> int:
        """The number of occupied bins."""
        self._settle()
        return len(self._keys)

    def add(self, keys: Ints, counts: Ints) -> None:
        """Add `counts` of shape (n, columns) at full-width `keys` of shape (n,); about 0.2 µs a row."""
        self._waiting.append((keys, counts))
        self._rows += len(keys)
        if self._rows >= _PENDING:
            self._settle()

    def merge(self, other: "Histogram") -> None:
        """Add everything that `other` counts."""
        self._settle()
        keys, counts = other.counted()
        self._coarsen(max(self._level, other._level))
        self._put(keys >> (self._level - other._level), counts)

    def counted(self) -> tuple[Ints, Ints]:
        """Return the occupied bins in order, shape (bins,), and their counts, shape (bins, columns)."""
        self._settle()
        return self._keys, self._counts

    def quantile(self, share: float) -> float | None:
        """Return the smallest of the `ordered_keys` numbers that at least `share` of all are not above, in column 0.

        The middle of its bin stands for it: at level 46 that is within 1/128 of the number. None without numbers.
        """
        keys, counts = self.counted()
        upto = np.cumsum(counts[:, 0])
        if not len(upto) or upto[-1] <= 0:
            return None
        place = int(np.searchsorted(upto, max(1, int(np.ceil(share * int(upto[-1]))))))
        edges = np.array([keys[place], keys[place] + 1], dtype=np.int64) << self._level
        low, high = (edges ^ ((edges >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))).view(np.float64)
        return round(float(low + high) / 2, 3) + 0.0

    def dump(self) -> HistogramState:
        """Return the state, mostly 2 to 6 bytes a bin. Bytes of one place stand together, so that they compress."""
        keys, counts = self.counted()
        columns = np.column_stack([np.diff(keys, prepend=0), counts]).astype("<i8")
        packed = zlib.compress(
            columns.view(np.uint8).reshape(len(keys), columns.itemsize * columns.shape[1]).T.tobytes(), 1
        )
        return HistogramState(self._level, len(keys), packed)

    def load(self, state: HistogramState) -> None:
        """Take over what `dump` of a histogram of as many columns gave."""
        raw = np.frombuffer(zlib.decompress(state.packed), dtype=np.uint8)
        places = raw.reshape(8 * (1 + self._columns), state.bins)
        columns = np.ascontiguousarray(places.T).view("<i8").astype(np.int64)
        self._level, self._keys, self._counts = state.level, np.cumsum(columns[:, 0]), columns[:, 1:]
        self._waiting, self._rows = [], 0

    def _settle(self) -> None:
        if self._waiting:
            keys = np.concatenate([keys for keys, _ in self._waiting])
            counts = np.concatenate([counts for _, counts in self._waiting])
            self._waiting, self._rows = [], 0
            self._put(keys >> self._level, counts)

    def _put(self, keys: Ints, counts: Ints) -> None:
        """Sort in what is keyed at this level, then make the bins as few as they may be."""
        self._keys, self._counts = _summed(np.concatenate([self._keys, keys]), np.concatenate([self._counts, counts]))
        excess = len(self._keys) - self._max_bins
        if excess > 0:
            apart = np.sort(self._keys[1:] ^ self._keys[:-1])  # bins merge once the highest differing bit is dropped
            self._coarsen(self._level + int(apart[excess - 1]).bit_length())

    def _coarsen(self, level: int) -> None:
        if level > self._level:
            self._keys, self._counts = _summed(self._keys >> (level - self._level), self._counts)
            self._level = level


def _summed(keys: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Return the distinct keys in order and the sums of their counts."""
    if not len(keys):
        return keys, counts
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(counts[order], first, axis=0)
