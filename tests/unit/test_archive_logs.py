"""Which log an archive is of, and what of it is lost: what the stage notes, and the history reads and tells."""

from collections.abc import Sequence

import msgspec
import pytest

from agents.archive.history import SampleHistory
from stream.timestamps import SLACK_MS
from tests.archiving import DAY_MS, NOON_MS, SAMPLES, Bench, Store, chunks_of, entry, spec_of
from tests.support import Entry

OLD = [entry(i) for i in range(7)]
ANEW_MS = NOON_MS + DAY_MS


def log_of(offsets: Sequence[int]) -> list[Entry]:
    """Return another log, with its records at these offsets: commit markers are between them."""
    return [entry(100 + n, offset, timestamp=ANEW_MS + n) for n, offset in enumerate(offsets)]


async def archived(log: Sequence[Entry] = OLD, stop: int = 5, **spec: int) -> Bench:
    """Return a bench whose worker has archived the log in chunks of five, up to `stop`, and is gone."""
    bench = await Bench(spec_of(samples=5, **spec), list(log), Store()).open(0)
    await bench.take(log)
    await bench.archived(stop)
    await bench.stage.close()
    return bench


async def history_of(bench: Bench, *, oldest: int | None = None) -> SampleHistory:
    """Return the history of what the bench has, in its memory and its store."""
    log = bench.memory.logs[SAMPLES]

    async def bounds() -> tuple[int, int]:
        return log[0].offset if oldest is None else oldest, log[-1].offset + 1

    history = SampleHistory(bench.spec, bench.store, lambda: pytest.fail("Kafka is asked"))
    history._memory = bench.memory
    history._bounds = bounds  # type: ignore[method-assign]
    return history


async def events_of(history: SampleHistory) -> list[str]:
    table = await history.read(columns=["event_id"])
    events: list[str] = table["event_id"].to_pylist()
    return events


@pytest.mark.parametrize("offsets", [range(8), (0, 1, 2, 3, 5, 6, 7, 8)], ids=["a sample", "a marker"])
async def test_a_log_that_was_made_anew_is_archived_from_its_beginning(offsets: Sequence[int]) -> None:
    bench = await archived()
    bench.memory.logs = {SAMPLES: log_of(offsets)}
    assert await events_of(await history_of(bench)) == [f"e{n}" for n in range(100, 108)]
    successor = await Bench(bench.spec, [], bench.store, bench.memory).open(offsets[-1] + 1)
    more = [entry(108 + n, 9 + n, timestamp=ANEW_MS) for n in range(2)]
    bench.memory.logs[SAMPLES] += more
    await successor.take(more)
    await successor.archived(9)
    assert successor.offsets() == [*offsets, 9, 10]
    assert successor.log_name != "20231115T120000000"
    await successor.stage.close()


async def test_the_log_of_the_mark_goes_on_and_so_does_one_whose_mark_is_of_an_earlier_version() -> None:
    bench = await archived()
    assert bench.memory.committed is not None
    for state in (bench.memory.committed.state, msgspec.Raw(b'{"log":"20231115T120000000"}')):
        bench.memory.committed = msgspec.structs.replace(bench.memory.committed, state=state)
        assert await events_of(await history_of(bench)) == [f"e{n}" for n in range(7)]
        successor = await Bench(bench.spec, [], bench.store, bench.memory).open(7)
        assert successor.stage._mark.offset == 5
        await successor.stage.close()


async def test_what_kafka_forgot_before_it_was_archived_is_noted_for_good() -> None:
    bench = await archived()
    later = [entry(n, timestamp=ANEW_MS + n) for n in range(20, 26)]
    bench.memory.logs = {SAMPLES: later}
    history = await history_of(bench)
    assert await history.missing(stop_offset=100, from_ms=0) == 15
    assert await history.missing(stop_offset=8, from_ms=0) == 3
    successor = await Bench(bench.spec, [], bench.store, bench.memory).open(26)
    await successor.archived(25)
    await successor.stage.close()
    assert chunks_of(successor.files()) == [(0, 5), (20, 25)]
    assert await history.missing(stop_offset=100, from_ms=ANEW_MS + 20 + SLACK_MS) == 15
    assert await history.missing(stop_offset=100, from_ms=ANEW_MS + 21 + SLACK_MS) == 0
    assert await history.missing(stop_offset=8, from_ms=0) == 3


async def test_what_kafka_forgot_while_the_store_was_away_is_noted_and_markers_are_not() -> None:
    log = [entry(n, n * 2) for n in range(40)]
    bench = await Bench(spec_of(samples=5), log, Store()).open(0)
    bench.store.away = True
    for start in range(0, 40, 5):
        await bench.take(log[start : start + 5])
    bench.memory.logs = {SAMPLES: log[15:]}
    bench.store.away = False
    await bench.archived(69)
    await bench.stage.close()
    history = await history_of(bench)
    assert await history.missing(stop_offset=100, from_ms=0) == 30 - 19
    again = await archived([entry(n, n * 2) for n in range(12)], stop=19)
    assert await (await history_of(again)).missing(stop_offset=100, from_ms=0) == 0


async def test_without_an_archive_nothing_is_expected_of_what_kafka_forgot() -> None:
    spec = spec_of()
    off = msgspec.structs.replace(spec, archive=msgspec.structs.replace(spec.archive, enabled=False))
    for stream, missing in ((spec, 20), (off, 0)):
        bench = Bench(stream, [entry(n) for n in range(20, 26)], Store())
        assert await (await history_of(bench)).missing(stop_offset=100, from_ms=0) == missing
