"""The archive's stage: chunks, checkpoints, restarts, and a store that is away."""

import asyncio
import time
from pathlib import Path

import pytest

from agents.samplelog import TRIGGER_KEY
from tests.archiving import DAY_MS, NOON_MS, PATIENCE_S, Bench, Killed, Store, chunks_of, entry, spec_of
from tests.support import Entry
from tests.workers import eventually


def archived_total(bench: Bench) -> float | None:
    return bench.metrics.registry.get_sample_value("ml_samples_archived_total", {"stream": "s"})


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def until(bench: Bench, attempts: int) -> None:
    """Wait until so many attempts to write have failed."""
    await eventually(lambda: len(bench.pauses) >= attempts)


async def test_a_full_chunk_is_archived_by_event_date_and_the_rest_waits() -> None:
    log = [entry(i, event_time_ms=NOON_MS + (i % 2) * DAY_MS) for i in range(25)]
    bench = await Bench(spec_of(samples=10), log, Store()).open(0)
    await bench.take(log[:7])
    await bench.take(log[7:])
    await bench.archived(20)
    assert [(file.first, file.stop, str(file.date)) for file in bench.files()] == [
        (0, 10, "2023-11-15"),
        (0, 10, "2023-11-16"),
        (10, 20, "2023-11-15"),
        (10, 20, "2023-11-16"),
    ]
    assert bench.store.read(bench.files()[1:2])["offset"].to_pylist() == [1, 3, 5, 7, 9]
    assert bench.offset == 20
    assert archived_total(bench) == 20
    await bench.stage.close()


async def test_a_chunk_ends_when_kafka_s_time_is_in_another_span() -> None:
    times = [0, 59_000, 60_000, 61_000, 59_999, 120_000, 240_000]
    log = [entry(i, timestamp=NOON_MS + time_ms) for i, time_ms in enumerate(times)]
    bench = await Bench(spec_of(minutes=1), log, Store()).open(0)
    await bench.take(log)
    await bench.archived(6)
    assert chunks_of(bench.files()) == [(0, 2), (2, 5), (5, 6)]
    await bench.stage.close()


async def test_a_log_is_known_by_the_time_of_its_first_record_and_another_gets_files_of_its_own() -> None:
    store = Store()
    first = [entry(i) for i in range(10)]
    second = [entry(i, timestamp=NOON_MS + 5_000 + i) for i in range(5)]  # the topic was made anew
    found = []
    for log in (first, second):
        bench = await Bench(spec_of(samples=5), log, store).open(0)
        await bench.take(log)
        await bench.archived(len(log))
        await bench.stage.close()
        found.append((bench.log_name, bench.offsets()))
    assert found == [("20231115T120000000", list(range(10))), ("20231115T120005000", list(range(5)))]
    assert [file.stop for file in store.files("s", "20231115T120000000")] == [5, 10]


async def test_what_is_not_archived_is_read_again_by_the_next_worker() -> None:
    log = [entry(i) for i in range(30)]
    bench = await Bench(spec_of(samples=10), log, Store()).open(0)
    await bench.take(log[:17])
    await bench.archived(10)
    await bench.stage.close()
    successor = await Bench(bench.spec, log, bench.store, bench.memory).open(17)
    await successor.take(log[17:19])
    await successor.take(log[19:])
    await successor.archived(30)
    assert successor.offsets() == list(range(30))
    assert chunks_of(successor.files()) == [(0, 10), (10, 20), (20, 30)]
    assert (archived_total(bench), archived_total(successor)) == (10, 20)
    await successor.stage.close()


async def test_a_worker_killed_between_two_files_of_a_chunk_leaves_nothing_that_is_not_written_again(
    tmp_path: Path,
) -> None:
    log = [entry(i, event_time_ms=NOON_MS + (i % 3) * DAY_MS) for i in range(10)]
    bench = await Bench(spec_of(samples=10), log, Store(tmp_path)).open(0)
    bench.store.files_left = 2
    await bench.take(log)
    with pytest.raises(Killed):
        await bench.archived(10)
    await bench.stage.close()
    left = contents(tmp_path)
    assert len(left) == 2
    part = min(left).with_name(".what-a-kill-left.part")
    part.write_bytes(b"half")
    bench.store.files_left = -1
    successor = await Bench(bench.spec, log, bench.store, bench.memory).open(10)
    await successor.archived(10)
    assert successor.offsets() == list(range(10))
    assert len(successor.files()) == 3
    now = contents(tmp_path)
    assert {path: now[path] for path in left} == left
    assert part not in now
    await successor.stage.close()


async def test_files_that_a_killed_worker_cut_by_other_settings_are_replaced() -> None:
    log = [entry(i) for i in range(30)]
    bench = await Bench(spec_of(samples=10), log, Store()).open(0)
    await bench.take(log)
    await eventually(lambda: len(bench.store.files("s", "20231115T120000000")) == 3)
    await bench.stage.close()  # nothing was committed
    successor = await Bench(spec_of(samples=15), log, bench.store).open(30)
    await successor.archived(15)
    await successor.archived(30)
    assert chunks_of(successor.files()) == [(0, 15), (15, 30)]
    assert successor.offsets() == list(range(30))
    await successor.stage.close()


async def test_triggers_and_what_is_no_sample_are_passed_over_but_count_as_records() -> None:
    log = [entry(0), Entry(1, b"{}", TRIGGER_KEY, NOON_MS), Entry(2, b"nonsense", b"s", NOON_MS), entry(3)]
    log += [Entry(offset, b"{}", TRIGGER_KEY, NOON_MS) for offset in range(4, 8)]
    bench = await Bench(spec_of(samples=4), log, Store()).open(0)
    await bench.take(log)
    await bench.archived(8)
    assert bench.offsets() == [0, 3]
    assert chunks_of(bench.files()) == [(0, 4)]
    await bench.stage.close()


async def test_a_store_that_is_away_stops_nothing_and_is_told_once_and_once_when_it_is_back() -> None:
    log = [entry(i) for i in range(100)]
    bench = await Bench(spec_of(samples=10), log, Store()).open(0)
    bench.store.away = True
    for start in range(0, 100, 10):
        await bench.take(log[start : start + 10])
    await until(bench, 7)
    await bench.commit()
    assert bench.pauses[:6] == [1.0, 2.0, 5.0, 10.0, 30.0, 30.0]
    [away] = bench.alerts
    assert (away.kind, away.severity, away.window) == ("archive", "high", "offset 0")
    assert "the disk is full" in away.message
    assert bench.offset == 0
    bench.store.away = False
    await bench.archived(100)
    assert [alert.severity for alert in bench.alerts] == ["high", "low"]
    assert bench.alerts[1].id != away.id
    assert bench.offsets() == list(range(100))
    await bench.stage.close()


async def test_while_the_store_is_away_no_more_is_held_than_there_is_room_for_and_the_log_gives_the_rest() -> None:
    log = [entry(i) for i in range(200)]
    bench = await Bench(spec_of(samples=10), log, Store()).open(0)
    bench.store.away = True
    for start in range(0, 200, 5):
        await bench.take(log[start : start + 5])
    assert bench.stage._held == 20
    await until(bench, 2)
    assert bench.memory.reads == []
    bench.store.away = False
    await bench.archived(200)
    assert [(start, stop) for _, start, stop in bench.memory.reads] == [(19, 200)]
    more = [entry(i) for i in range(200, 210)]
    await bench.take(more)  # it has caught up: nothing is read twice any more
    await bench.archived(210)
    assert len(bench.memory.reads) == 1
    assert bench.offsets() == list(range(210))
    await bench.stage.close()


async def test_an_error_that_is_not_the_store_s_reaches_the_task_that_runs_the_stage() -> None:
    log = [entry(i) for i in range(10)]
    bench = await Bench(spec_of(samples=10), log, Store()).open(0)
    bench.store.files_left = 0
    await bench.take(log)
    await asyncio.wait_for(bench.woken.wait(), PATIENCE_S)
    assert bench.stage.has_news
    with pytest.raises(Killed):
        await bench.commit()
    await bench.stage.close()


async def test_samples_that_wait_in_a_silent_stream_are_told_of_once_before_kafka_forgets_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.archive.stage.LOOK_S", 0.001)
    bench = Bench(spec_of(samples=10, retention_hours=48), [entry(i) for i in range(13)], Store())
    bench.now_ms = NOON_MS + DAY_MS
    await bench.open(0)
    await bench.take(bench.log)
    await bench.archived(10)
    await asyncio.sleep(0.01)
    assert not bench.stage.has_news
    bench.now_ms += 1 + 10
    await eventually(lambda: bench.stage.has_news)
    await bench.commit()
    await asyncio.sleep(0.01)
    assert not bench.stage.has_news
    [alert] = bench.alerts
    assert (alert.kind, alert.window) == ("archive", "offset 10")
    assert "Kafka forgets them from 2023-11-17 12:00 UTC on" in alert.message
    await bench.take([entry(13)])
    await asyncio.sleep(0.01)
    assert not bench.stage.has_news
    await bench.stage.close()


async def test_the_end_of_a_large_chunk_holds_up_the_event_loop_for_less_than_20_ms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[float] = []
    step = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begin = time.thread_time()
        step(handle)
        steps.append(time.thread_time() - begin)

    bench = await Bench(spec_of(samples=500_000), [], Store()).open(0)
    records = [Entry(offset, b"{}", TRIGGER_KEY, NOON_MS) for offset in range(500_000)]
    await bench.take(records)
    records.clear()
    [chunk] = bench.stage._ended
    await asyncio.sleep(0)
    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    await bench.archived(500_000)
    assert max(steps) < 0.02
    assert chunk.records == []  # by the thread, piece by piece, for that takes long
    await bench.stage.close()
