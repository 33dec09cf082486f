"""History in one order: however it is fetched, the blocks are the same, and nothing overtakes."""

import asyncio
import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from agents.replay.merging import Block, Chained, Held, merged
from stream.batches import Record, TopicPartition
from tests.support import Entry


class Fetched:
    """A source that gives its records in pieces of some sizes."""

    def __init__(self, source: TopicPartition, records: Sequence[Record], sizes: Sequence[int]) -> None:
        self.source = source
        self._records = list(records)
        self._sizes = list(sizes)

    async def more(self) -> Sequence[Record]:
        size = self._sizes.pop() if self._sizes else 3
        found, self._records = self._records[:size], self._records[size:]
        return found


def blocks_of(logs: Sequence[Sequence[int]], sizes: Sequence[Sequence[int]], block: int) -> list[Block]:
    """Return the blocks of logs whose records were written at these times."""

    async def read() -> list[Block]:
        sources = [
            Fetched(TopicPartition("log", place), [Entry(at, timestamp=ms) for at, ms in enumerate(log)], size)
            for place, (log, size) in enumerate(zip(logs, sizes, strict=True))
        ]
        return [found async for found in merged(sources, block)]

    return asyncio.run(read())


def flat(blocks: Sequence[Block]) -> list[list[tuple[int, int]]]:
    return [
        [(source.partition, record.offset) for source, records in block.pieces for record in records]
        for block in blocks
    ]


LOGS = st.lists(st.lists(st.integers(0, 20), max_size=25), min_size=1, max_size=4)
SIZES = st.lists(st.integers(1, 9), max_size=10)


@given(LOGS, st.data(), st.integers(1, 12))
def test_blocks_do_not_depend_on_how_the_logs_were_fetched(
    logs: list[list[int]], data: st.DataObject, block: int
) -> None:
    sizes = [data.draw(SIZES) for _ in logs]
    whole = blocks_of(logs, [[1000]] * len(logs), block)
    assert flat(blocks_of(logs, sizes, block)) == flat(whole)
    assert [len(one) for one in whole[:-1]] == [block] * (len(whole) - 1)


@given(LOGS, st.integers(1, 12))
def test_every_record_comes_once_in_its_log_s_order_and_none_before_one_that_was_written_earlier(
    logs: list[list[int]], block: int
) -> None:
    blocks = flat(blocks_of(logs, [[]] * len(logs), block))
    for place, log in enumerate(logs):
        assert [at for one in blocks for number, at in one if number == place] == list(range(len(log)))
    written = [[max(logs[place][: at + 1]) for place, at in one] for one in blocks]
    for earlier, later in itertools.pairwise(written):
        assert max(earlier) <= min(later)


@given(st.lists(st.integers(0, 9), max_size=9), st.lists(st.integers(0, 9), max_size=9))
def test_what_was_archived_comes_before_what_the_log_holds(archived: list[int], held: list[int]) -> None:
    async def read() -> list[Block]:
        source = TopicPartition("log", 0)
        records = [Entry(at, timestamp=ms) for at, ms in enumerate([*archived, *held])]
        split = len(archived)
        return [b async for b in merged([Chained([Held(source, records[:split]), Held(source, records[split:])])], 4)]

    assert [at for one in flat(asyncio.run(read())) for _, at in one] == list(range(len(archived) + len(held)))
