"""Where the samples log is cut depends on the log alone, and every sample is archived once, whatever ends a worker."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.archive.chunks import Chunk, Chunker, ChunkRules
from tests.archiving import DAY_MS, Bench, Killed, Store, chunks_of, entry, spec_of
from tests.support import Entry

SPAN_MS = 10
LOGS = st.lists(st.tuples(st.integers(1, 3), st.integers(-12, 25)), min_size=1, max_size=60)


def log_of(steps: Sequence[tuple[int, int]]) -> list[Entry]:
    """Return records with gaps between their offsets, and times that now and then go back."""
    entries: list[Entry] = []
    offset, time_ms = 0, 1_000
    for gap, step in steps:
        offset, time_ms = offset + gap, max(0, time_ms + step)
        entries.append(Entry(offset, b"x", b"s", time_ms))
    return entries


def cut_into(log: Sequence[Entry], cuts: Sequence[int]) -> Iterator[Sequence[Entry]]:
    places = [0, *sorted({cut % len(log) for cut in cuts}), len(log)]
    return (log[start:stop] for start, stop in pairwise(places) if start < stop)


def chunks(rules: ChunkRules, batches: Iterator[Sequence[Entry]]) -> list[Chunk]:
    chunker = Chunker(rules)
    return [chunk for batch in batches for chunk in chunker.add(batch)]


@given(LOGS, st.integers(1, 8), st.lists(st.integers(0, 1_000)), st.integers(0, 1_000))
def test_batches_and_restarts_do_not_move_the_ends_of_chunks(
    steps: list[tuple[int, int]], records: int, cuts: list[int], restart: int
) -> None:
    log, rules = log_of(steps), ChunkRules(records, SPAN_MS)
    whole = chunks(rules, iter([log]))
    found = chunks(rules, cut_into(log, cuts))
    spans = [(chunk.first, chunk.stop) for chunk in whole]
    assert [(chunk.first, chunk.stop) for chunk in found] == spans
    assert [record for chunk in whole for record in chunk.records] == log[: sum(len(c.records) for c in whole)]
    done = restart % (len(spans) + 1)
    again = [record for record in log if not done or record.offset >= spans[done - 1][1]]
    assert [(chunk.first, chunk.stop) for chunk in chunks(rules, iter([again]))] == spans[done:]


@given(LOGS, st.integers(1, 8))
def test_a_chunk_is_as_large_as_the_rules_allow_and_no_larger(steps: list[tuple[int, int]], records: int) -> None:
    log, rules = log_of(steps), ChunkRules(records, SPAN_MS)
    for chunk in chunks(rules, iter([log])):
        spans = [record.timestamp // SPAN_MS - chunk.records[0].timestamp // SPAN_MS for record in chunk.records]
        assert set(spans) <= {0, -1}
        follower = next((record for record in log if record.offset >= chunk.stop), None)
        if len(chunk.records) < records:
            assert follower is not None
            assert follower.timestamp // SPAN_MS - chunk.records[0].timestamp // SPAN_MS not in (0, -1)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), max_size=8),
    st.integers(2, 9),
    st.lists(st.integers(2, 9), min_size=1, max_size=4),
)
def test_every_sample_is_archived_once_though_workers_are_killed_and_settings_change(
    kills: list[tuple[int, int]], batch_size: int, chunk_sizes: list[int]
) -> None:
    asyncio.run(_live_and_die(kills, batch_size, chunk_sizes))


async def _live_and_die(kills: list[tuple[int, int]], batch_size: int, chunk_sizes: list[int]) -> None:
    """Let each worker write so many files at most and take so many samples before it is killed; then a last one."""
    log = [entry(i, event_time_ms=(i % 3) * DAY_MS) for i in range(60)]
    store = Store()
    bench = Bench(spec_of(samples=chunk_sizes[0]), log, store)
    memory, committed = bench.memory, 0
    for number, (samples, files) in enumerate([*kills, (60, -1)]):
        bench = Bench(spec_of(samples=chunk_sizes[number % len(chunk_sizes)]), log, store, memory)
        store.files_left = files
        await bench.open(committed)
        try:
            for start in range(committed, min(committed + samples, 60), batch_size):
                batch = log[start : min(start + batch_size, committed + samples, 60)]
                await bench.take(batch)
                await asyncio.sleep(0.002 if files else 0)
                await bench.commit()
                committed = batch[-1].offset + 1
            if files < 0:
                size = bench.spec.archive.samples
                await bench.archived(bench.offset + (60 - bench.offset) // size * size)
        except Killed:
            pass
        finally:
            await bench.stage.close()
    if memory.committed is not None:
        assert bench.offsets() == list(range(bench.offset))
        assert all(before[1] == after[0] for before, after in pairwise(chunks_of(bench.files())))
