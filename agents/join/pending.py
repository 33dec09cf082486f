"""Rows that wait for their other half: columnar, found by identity, and gone when their time is over.

The identity of an event is (event_id, entity_id). There is no Python object per row: a row is a record of a numpy
array, its texts lie in a bytearray, and an open-addressing table finds it by 64 bits of hash. The texts are compared
before a match counts, so a match is never false.

Rows are kept in segments, in order of insertion. A segment has a fixed size and a table of its own, and is dropped
whole when its last row is removed: nothing is ever rehashed or moved, and no pause grows with the number of rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import add
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Table = NDArray[np.void]
"""A structured array; its fields are the row type's."""

NO_OFFSET: Final = np.iinfo(np.int64).max
SMALLEST: Final = 4_096
LARGEST: Final = 1 << 20  # rows of a segment; at 10 million rows some ten tables are looked through
_REMOVED: Final = -1  # as an expiry; alive is what expires later than a moment, and moments are at least -1
_TAG: Final = -(1 << 32)  # the upper half of a table entry: bits of the hash; the lower half is the position plus 1
_POSITION: Final = (1 << 32) - 1
_SPARSE: Final = 4  # table entries per row: then few look-ups meet another row's entry, and none meets many
_PLACE: Final = np.dtype([("start", "i8"), ("event", "u2"), ("identity", "u2"), ("extra", "u4")])


class Text(NamedTuple):
    """The texts of a row: its identity and whatever else was given with it."""

    event_id: str
    entity_id: str
    extra: bytes


@dataclass(frozen=True, slots=True)
class Keys:
    """Identities to add or to look up. A text is both ids in one, in UTF-8, at most 65,535 bytes.

    `lengths` are the characters of the event ids: they tell where the entity id begins. `hashes` have 64 bits.
    """

    hashes: Ints
    texts: Sequence[bytes]
    lengths: Ints

    @classmethod
    def of(cls, event_ids: Sequence[str], entity_ids: Sequence[str], hasher: Callable[[tuple[str, str]], int]) -> Self:
        """Return the keys of these identities; 0.3 µs each."""
        hashes = np.array(list(map(hasher, zip(event_ids, entity_ids, strict=True))), dtype=np.int64)
        texts = list(map(str.encode, map(add, event_ids, entity_ids)))
        return cls(hashes, texts, np.array(list(map(len, event_ids))))

    def take(self, positions: Ints) -> "Keys":
        """Return the keys at `positions`, in that order."""
        return Keys(self.hashes[positions], [self.texts[i] for i in positions.tolist()], self.lengths[positions])


class _Segment:
    """`capacity` rows with the ids from `base` on, and the table that finds them."""

    def __init__(self, base: int, capacity: int, row_type: np.dtype[np.void]) -> None:
        self.base = base
        self.count = 0
        self.alive = 0
        self.rows = np.empty(capacity, dtype=row_type)  # the system gives pages as they are written
        self.expiry = np.empty(capacity, dtype=np.int64)
        self.label_offset = np.empty(capacity, dtype=np.int64)
        self.arena = bytearray()
        self._places = np.empty(capacity, dtype=_PLACE)
        self._mask = _SPARSE * capacity - 1
        self._table = np.zeros(_SPARSE * capacity, dtype=np.int64)
        self._first = 0  # no row before it is alive
        self._earliest = NO_OFFSET  # no row alive expires before it
        self._label_bound = NO_OFFSET  # no row alive needs a label before it
        self._stale = False  # the bounds hold, but may be too low

    @property
    def room(self) -> int:
        return len(self.rows) - self.count

    def add(
        self, keys: Keys, rows: Table, extras: Sequence[bytes], expiry: Ints, label_offset: Ints, entered: Flags
    ) -> None:
        start, stop = self.count, self.count + len(rows)
        self.rows[start:stop] = rows
        self.expiry[start:stop] = expiry
        self.label_offset[start:stop] = label_offset
        self._write_texts(keys, extras, self._places[start:stop])
        self.enter(np.arange(start, stop)[entered], keys.hashes[entered])
        self.count = stop
        self.alive += len(rows)
        self._earliest = min(self._earliest, int(expiry.min()))
        self._label_bound = min(self._label_bound, int(label_offset.min()))

    def _write_texts(self, keys: Keys, extras: Sequence[bytes], places: Table) -> None:
        places["event"] = keys.lengths
        places["identity"] = lengths = np.array(list(map(len, keys.texts)))
        places["extra"] = more = np.array(list(map(len, extras)))
        ends = len(self.arena) + (lengths + more).cumsum()
        places["start"] = ends - lengths - more
        self.arena += b"".join(chain.from_iterable(zip(keys.texts, extras, strict=True)))

    def enter(self, positions: Ints, hashes: Ints) -> None:
        """Linear probing (Knuth, TAOCP 3, 6.4, algorithm L), all rows at once: who loses a slot tries the next."""
        entries = (hashes & _TAG) | (positions + 1)
        slots = hashes & self._mask
        while entries.size:
            free = self._table[slots] == 0
            self._table[slots[free]] = entries[free]
            lost = self._table[slots] != entries
            entries, slots = entries[lost], (slots[lost] + 1) & self._mask

    def find(self, keys: Keys, wanted: Ints, moments: Ints, found: Ints) -> None:
        """Put into `found` the id of a row alive for each of the positions `wanted` that has one here."""
        hashes = keys.hashes[wanted]
        slots = hashes & self._mask
        while wanted.size:
            entries = self._table[slots]
            ended = entries == 0
            alike = np.flatnonzero(((entries ^ hashes) & _TAG == 0) & ~ended)
            if alike.size:
                rows = (entries[alike] & _POSITION) - 1
                same = self._same(keys, wanted[alike], moments, rows)
                found[wanted[alike[same]]] = rows[same] + self.base
                ended[alike[same]] = True
            left = np.flatnonzero(~ended)
            wanted, hashes, slots = wanted[left], hashes[left], (slots[left] + 1) & self._mask

    def _same(self, keys: Keys, wanted: Ints, moments: Ints, rows: Ints) -> Ints:
        """Return which of `rows` are alive and truly the wanted ones."""
        places = self._places[rows]
        alike = np.flatnonzero((self.expiry[rows] > moments[wanted]) & (places["event"] == keys.lengths[wanted]))
        starts = places["start"][alike]
        bounds = zip(starts.tolist(), (starts + places["identity"][alike]).tolist(), strict=True)
        arena, texts = self.arena, keys.texts
        same = [arena[a:b] == texts[i] for (a, b), i in zip(bounds, wanted[alike].tolist(), strict=True)]
        chosen: Ints = alike[np.array(same, dtype=bool)]
        return chosen

    def texts(self, positions: Ints) -> list[Text]:
        places = self._places[positions]
        middles = places["start"] + places["identity"]
        bounds = np.stack([places["start"], middles, middles + places["extra"], places["event"]], axis=1).tolist()
        identities = [self.arena[start:middle].decode() for start, middle, _, _ in bounds]
        return [
            Text(identity[:length], identity[length:], bytes(self.arena[middle:stop]))
            for identity, (_, middle, stop, length) in zip(identities, bounds, strict=True)
        ]

    def has_extras(self, positions: Ints) -> bool:
        return bool(self._places["extra"][positions].any())

    def need_labels(self, positions: Ints, offsets: Ints) -> None:
        np.minimum.at(self.label_offset, positions, offsets)
        self._label_bound = min(self._label_bound, int(offsets.min()))

    def expired(self, moment: int) -> Ints:
        if self._earliest > moment:
            return np.empty(0, dtype=np.int64)
        expiry = self.expiry[self._first : self.count]
        return np.flatnonzero((expiry <= moment) & (expiry != _REMOVED)) + self._first

    def remove(self, positions: Ints) -> None:
        self.expiry[positions] = _REMOVED
        self.alive -= positions.size
        self._stale = True

    def refresh(self) -> None:
        """Tighten the bounds after removals; 3 ms for a million rows."""
        if not self._stale:
            return
        self._stale = False
        alive = self.expiry[self._first : self.count] != _REMOVED
        self._first += int(alive.argmax()) if self.alive else len(alive)
        alive = self.expiry[self._first : self.count] != _REMOVED
        self._earliest = int(self.expiry[self._first : self.count][alive].min(initial=NO_OFFSET))
        self._label_bound = int(self.label_offset[self._first : self.count][alive].min(initial=NO_OFFSET))

    @property
    def label_bound(self) -> int:
        self.refresh()
        return self._label_bound

    @property
    def first(self) -> Any:
        """The oldest row that is alive; there must be one."""
        self.refresh()
        return self.rows[self._first]


class Pending:
    """Rows with an identity and a moment at which they expire. An id is an integer and never used again.

    `row_type` is the structured type of a row. Beside it a row takes 64 bytes and its texts. A new segment is
    as large as the number of rows alive, within `smallest` and `largest` (powers of 2). So there are few segments,
    and at most about one of them is filled with rows that are gone.
    """

    def __init__(self, row_type: np.dtype[np.void], smallest: int = SMALLEST, largest: int = LARGEST) -> None:
        self.row_type = row_type
        self.alive = 0
        self._smallest = smallest
        self._largest = largest
        self._segments: list[_Segment] = []
        self._bases = np.empty(0, dtype=np.int64)
        self._next_id = 0

    def add(
        self,
        keys: Keys,
        rows: Table,
        extras: Sequence[bytes],
        expiry: Ints,
        label_offset: Ints,
        entered: Flags | None = None,
    ) -> Ints:
        """Add one row per key; return their ids, which grow. About 0.7 µs per row in batches of 2,000.

        `entered` says which of them can be found by their keys; the others not before `enter`. Rows of one
        identity should not all be: each would be looked at whenever one is looked for.
        """
        entered = np.ones(len(rows), dtype=bool) if entered is None else entered
        ids = np.arange(self._next_id, self._next_id + len(rows))
        done = 0
        while done < len(rows):
            segment = self._open_segment()
            part = np.arange(done, min(len(rows), done + segment.room))
            span = slice(done, done + part.size)
            ids[span] = np.arange(part.size) + segment.base + segment.count
            chosen = keys if part.size == len(rows) else keys.take(part)
            segment.add(chosen, rows[span], extras[span], expiry[span], label_offset[span], entered[span])
            done += part.size
        self.alive += len(rows)
        return ids

    def _open_segment(self) -> _Segment:
        if not self._segments or not self._segments[-1].room:
            capacity = min(max(1 << max(self.alive, 1).bit_length() - 1, self._smallest), self._largest)
            self._segments.append(_Segment(self._next_id, capacity, self.row_type))
            self._next_id += capacity
            self.tidy()
        return self._segments[-1]

    def enter(self, ids: Ints, hashes: Ints) -> None:
        """Let rows that were not entered be found from now on; `hashes` are those of their keys."""
        for segment, positions, chosen in self._by_segment(ids):
            segment.enter(positions, hashes[chosen])

    def find(self, keys: Keys, moments: Ints) -> Ints:
        """Return for each key the id of a row with its identity that expires after the key's moment, or -1.

        About 0.5 µs per key and 0.1 µs per segment looked through, the newest first, in batches of 2,000.
        """
        found = np.full(len(keys.hashes), -1, dtype=np.int64)
        wanted = np.arange(len(found))
        for segment in reversed(self._segments):
            segment.find(keys, wanted, moments, found)
            wanted = wanted[found[wanted] < 0]
            if not wanted.size:
                break
        return found

    def rows(self, ids: Ints) -> Table:
        """Return a copy of the rows, shape (len(ids),)."""
        parts = list(self._by_segment(ids))
        if len(parts) == 1:
            segment, positions, _ = parts[0]
            return segment.rows[positions]
        rows = np.empty(len(ids), dtype=self.row_type)
        for segment, positions, chosen in parts:
            rows[chosen] = segment.rows[positions]
        return rows

    def expiry(self, ids: Ints) -> Ints:
        """Return when each row expires."""
        return self._column("expiry", ids)

    def label_offset(self, ids: Ints) -> Ints:
        """Return the lowest offset of a label that each row needs; NO_OFFSET if it needs none."""
        return self._column("label_offset", ids)

    def _column(self, name: str, ids: Ints) -> Ints:
        values = np.empty(len(ids), dtype=np.int64)
        for segment, positions, chosen in self._by_segment(ids):
            values[chosen] = getattr(segment, name)[positions]
        return values

    def texts(self, ids: Ints) -> list[Text]:
        """Return the texts of each row; about 0.5 µs per row."""
        texts: list[Text] = [Text("", "", b"")] * len(ids)
        for segment, positions, chosen in self._by_segment(ids):
            for i, text in zip(chosen.tolist(), segment.texts(positions), strict=True):
                texts[i] = text
        return texts

    def has_extras(self, ids: Ints) -> bool:
        """Whether any of the rows has a text beside its identity."""
        return any(segment.has_extras(positions) for segment, positions, _ in self._by_segment(ids))

    def update(self, ids: Ints, label_offsets: Ints, **columns: Ints) -> None:
        """Write columns of the rows, and note that they need the labels at `label_offsets`.

        Where an id is there more than once, the last values stand, and the lowest offset.
        """
        for segment, positions, chosen in self._by_segment(ids):
            for name, values in columns.items():
                segment.rows[name][positions] = values[chosen]
            segment.need_labels(positions, label_offsets[chosen])

    def expired(self, moment: int) -> Ints:
        """Return the ids of the rows that expire at `moment` or before, ascending; 1 ms per million rows looked at."""
        found = [segment.expired(moment) + segment.base for segment in self._segments]
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def remove(self, ids: Ints) -> None:
        """Take rows out: they are not found again, but can be read until `tidy`."""
        for segment, positions, _ in self._by_segment(ids):
            segment.remove(positions)
        self.alive -= ids.size

    def tidy(self) -> None:
        """Give back the memory of the segments in which no row is left."""
        last = self._segments[-1:]
        self._segments = [segment for segment in self._segments[:-1] if segment.alive] + last
        self._bases = np.array([segment.base for segment in self._segments], dtype=np.int64)

    def oldest(self) -> Any:
        """Return the oldest row, or None."""
        return next((segment.first for segment in self._segments if segment.alive), None)

    def label_bound(self) -> int:
        """Return the lowest offset of a label that any row needs; NO_OFFSET if there is none."""
        return min((segment.label_bound for segment in self._segments), default=NO_OFFSET)

    def _by_segment(self, ids: Ints) -> Iterator[tuple[_Segment, Ints, Ints]]:
        """Yield each segment that holds some of `ids`, the positions in it, and where these stand in `ids`."""
        if not ids.size:
            return
        homes = np.searchsorted(self._bases, ids, side="right") - 1
        for home in np.unique(homes).tolist():
            chosen = np.flatnonzero(homes == home)
            segment = self._segments[home]
            yield segment, ids[chosen] - segment.base, chosen
