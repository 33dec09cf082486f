"""History in one order: several logs merged as their records were written, and cut into blocks.

The order is that of Kafka's timestamps, then of the logs as they are given, then of their offsets; within a log nothing
overtakes: a timestamp that goes back counts as the newest before it. Where blocks end follows from the records alone,
not from how they were fetched, so that two replays are the same.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.batches import Record, TopicPartition

BLOCK: Final = 8192
_AT_ONCE: Final = 16_384


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that no broker gave."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """n records in a row.

    `pieces` are what each log has of them, in the order of the logs; those that have nothing are left out. `places`
    (n,) are, in the merged order, the numbers of the pieces that the records are in.
    """

    pieces: Sequence[tuple[TopicPartition, Sequence[Record]]]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def of(self, topic: str) -> "Block":
        """Return the records of one topic."""
        mine = [place for place, (source, _) in enumerate(self.pieces) if source.topic == topic]
        return self._numbered(self.places[np.isin(self.places, mine)], [self.pieces[place][1] for place in mine], mine)

    def split(self, count: int) -> tuple["Block", "Block"]:
        """Return the first `count` records, and the others."""
        first, rest = self.places[:count], self.places[count:]
        borders = np.bincount(first, minlength=len(self.pieces)).tolist()
        numbers = range(len(self.pieces))
        both = list(zip(self.pieces, borders, strict=True))
        return (
            self._numbered(first, [records[:border] for (_, records), border in both], numbers),
            self._numbered(rest, [records[border:] for (_, records), border in both], numbers),
        )

    def _numbered(
        self, places: NDArray[np.int64], records: Sequence[Sequence[Record]], numbers: Sequence[int]
    ) -> "Block":
        """Return what is left of the pieces of these numbers, numbered anew."""
        left = [(number, its) for number, its in zip(numbers, records, strict=True) if its]
        anew = np.zeros(len(self.pieces), dtype=np.int64)
        anew[[number for number, _ in left]] = np.arange(len(left))
        return Block([(self.pieces[number][0], its) for number, its in left], anew[places])


class Source(Protocol):
    """A log, or a part of one."""

    @property
    def source(self) -> TopicPartition:
        """Whose records these are."""

    async def more(self) -> Sequence[Record]:
        """Return the next records, as many as there are at hand; none at the end."""


class Chained:
    """Sources of one log, one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """There must be at least one."""
        self._sources = list(sources)

    @property
    def source(self) -> TopicPartition:
        return self._sources[-1].source

    async def more(self) -> Sequence[Record]:
        while True:
            if found := await self._sources[0].more():
                return found
            if len(self._sources) == 1:
                return []
            del self._sources[0]


class Held:
    """Records that are in memory already."""

    def __init__(self, source: TopicPartition, records: Sequence[Record]) -> None:
        self.source = source
        self._records = records
        self._given = 0

    async def more(self) -> Sequence[Record]:
        found = self._records[self._given : self._given + _AT_ONCE]
        self._given += len(found)
        return found


class _Lane:
    """A source, what was read of it and not given on yet, and when that was written."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.ended = False
        self._records: list[Record] = []
        self.written_ms: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._newest_ms = 0

    @property
    def tp(self) -> TopicPartition:
        return self._source.source

    async def extend(self) -> None:
        """Read on."""
        records = await self._source.more()
        if not records:
            self.ended = True
            return
        written_ms = np.array([record.timestamp for record in records], dtype=np.int64)
        written_ms = np.maximum(np.maximum.accumulate(written_ms), self._newest_ms)
        self._newest_ms = int(written_ms[-1])
        self._records += records
        self.written_ms = np.concatenate([self.written_ms, written_ms])

    def take(self, count: int) -> Sequence[Record]:
        """Give the first `count` records away."""
        taken, self._records = self._records[:count], self._records[count:]
        self.written_ms = self.written_ms[count:]
        return taken


async def merged(sources: Sequence[Source], block: int = BLOCK) -> AsyncGenerator[Block, None]:
    """Yield the records of all sources in blocks of `block`; the last may be smaller. About 0.2 µs per record.

    Holds of each source what must be read to know what comes next: at most its share of a block where all were written
    at the same pace, more of one that is far behind.
    """
    lanes = [_Lane(source) for source in sources]
    while lanes:
        order = _order(lanes)
        ready = _known(lanes, order)
        whole = ready // block * block
        if not whole and all(lane.ended for lane in lanes):
            if len(order):
                yield _cut(lanes, order)
            return
        for start in range(0, whole, block):
            yield _cut(lanes, order[start : start + block])
        for lane in _hindmost(lanes):
            await lane.extend()


def _order(lanes: Sequence[_Lane]) -> NDArray[np.int64]:
    """Return the number of the lane of each record that is held, in the merged order."""
    numbers = np.repeat(np.arange(len(lanes)), [len(lane.written_ms) for lane in lanes])
    written_ms = np.concatenate([lane.written_ms for lane in lanes])
    return numbers[np.argsort(written_ms, kind="stable")]  # stable: of one time, the lanes in their order


def _known(lanes: Sequence[_Lane], order: NDArray[np.int64]) -> int:
    """Return how many of the first records in this order nothing that is still to be read can come before."""
    open_lanes = [lane for lane in lanes if not lane.ended]
    if not open_lanes:
        return len(order)
    horizon_ms = min((int(lane.written_ms[-1]) if len(lane.written_ms) else -1) for lane in open_lanes)
    return sum(int(np.searchsorted(lane.written_ms, horizon_ms)) for lane in lanes)


def _hindmost(lanes: Sequence[_Lane]) -> list[_Lane]:
    """Return the lanes that keep the others waiting: those whose newest record is the oldest."""
    open_lanes = [lane for lane in lanes if not lane.ended]
    heads_ms = [int(lane.written_ms[-1]) if len(lane.written_ms) else -1 for lane in open_lanes]
    return [lane for lane, head_ms in zip(open_lanes, heads_ms, strict=True) if head_ms == min(heads_ms)]


def _cut(lanes: Sequence[_Lane], order: NDArray[np.int64]) -> Block:
    counts = np.bincount(order, minlength=len(lanes))
    pieces = [(lane.tp, lane.take(count)) for lane, count in zip(lanes, counts.tolist(), strict=True) if count]
    return Block(pieces, (np.cumsum(counts > 0) - 1)[order])
