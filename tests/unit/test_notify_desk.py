"""What waits for sinks: it stays small and each sink's own, and it comes to an end, whatever happens meanwhile."""

import asyncio
import base64
import logging
import time
from dataclasses import replace

import msgspec
import pytest

from agents.notify.desk import ALL_WAITING, SEEN, WAITING
from agents.notify.queue import NotifyState, Waiting
from agents.notify.stage import ID_BYTES
from schemas.errors import FatalError
from schemas.events import Alert, Checkpoint
from schemas.wire import decode, encode
from stores.sinks import LaterError, Undeliverable
from stream.batches import Batch, Outbox
from tests.notifying import ALERTS, CHECKPOINTS, ScriptedSink, Worker, World, alert_of, broker_away, in_world
from tests.support import now
from topics import MAX_MESSAGE_BYTES

AWAY = LaterError("the sink is away")
CLOSED = LaterError("the sink is closed", 3_600.0)
DAY_S = 86_400.0


@in_world
async def test_a_sink_that_is_full_takes_nothing_from_the_others(world: World) -> None:
    world.sink("full", CLOSED)
    healthy = world.sink("healthy", per_minute=100_000)
    worker = Worker(world)
    for first in range(0, WAITING + 20, 60):
        world.raise_alerts(*map(alert_of, range(first, first + 60)))
        await asyncio.sleep(10.0)
    count = len(world.kafka.logs[ALERTS])
    assert len(healthy.got) == count
    assert worker.waiting("full") == WAITING
    assert {letter.message for letter in world.letters} == {"sink full: 1,000 alerts wait for it already"}
    assert len(world.letters) == count - WAITING == worker.count("full", "undeliverable")
    assert worker.count("healthy", "undeliverable") == 0
    await worker.end()


@in_world
async def test_a_storm_holds_the_loop_only_shortly(world: World) -> None:
    for name in ("a", "b", "c"):
        world.sink(name, *[1_000.0] * 9)
    stage = Worker(world).stage
    await asyncio.sleep(1.0)
    world.raise_alerts(*map(alert_of, range(4_000)))
    held, storm = [], asyncio.create_task(stage.process(Batch(ALERTS, world.kafka.logs[ALERTS]), Outbox()))
    while not storm.done():
        began = time.perf_counter()
        await asyncio.sleep(0)
        held.append(time.perf_counter() - began)
    assert len(held) > 4_000 / 64
    assert sum(held) < 3.0  # it is 0.4 s; with the state copied for each alert it was minutes
    assert [len(lane) for lane in stage.state.lanes.values()] == [WAITING] * 3


def test_what_overflows_is_logged_in_one_line_for_many(caplog: pytest.LogCaptureFixture) -> None:
    @in_world
    async def scenario(world: World) -> None:
        world.sink("ops", CLOSED)
        world.raise_alerts(*map(alert_of, range(WAITING + 200)))
        await until(world, 400.0)

    caplog.set_level(logging.INFO, "penstock.notify")
    scenario()
    told = [record for record in caplog.records if "dead letters" in record.message]
    assert 1 <= len(told) < 200


def test_the_largest_state_fits_into_a_message_and_what_waits_for_three_sinks_is_small() -> None:
    times = [1_700_000_000_000 + number for number in range(WAITING)]
    lane = tuple(Waiting(10_000_000 + number, time, "critical", 10, time) for number, time in enumerate(times))
    seen = {"x" * (ID_BYTES - 8) + f"{number:06}": times[0] for number in range(SEEN)}
    largest = NotifyState({f"sink{number}": lane for number in range(ALL_WAITING // WAITING)}, seen)
    assert len(encode(largest)) < MAX_MESSAGE_BYTES / 2
    assert len(encode(NotifyState(dict.fromkeys("abc", lane)))) < 200_000


@in_world
async def test_the_ids_that_are_kept_are_few_however_many_alerts_there_were(world: World) -> None:
    sink = world.sink("ops", per_minute=100_000)
    worker = Worker(world)
    for first in range(0, 1_500, 500):
        world.raise_alerts(*map(alert_of, range(first, first + 500)))
        await asyncio.sleep(200.0)
    assert len(sink.got) == 1_500
    assert (world.state.lanes, len(world.state.seen)) == ({}, SEEN)
    await worker.end()


@in_world
async def test_an_alert_that_comes_again_within_a_day_is_counted_and_after_that_it_is_news(world: World) -> None:
    sink = world.sink("ops")
    worker = Worker(world)
    for hours, news in ((0, 1), (1, 1), (23, 1), (25, 2), (26, 2), (1_000, 3)):
        await asyncio.sleep(max(0.0, 3_600.0 * hours - now()))
        world.raise_alerts(alert_of(1))
        await asyncio.sleep(5.0)
        assert len(sink.got) == news
    assert worker.count("ops", "duplicate") == 3
    await worker.end()


@in_world
async def test_a_broker_that_is_away_for_a_commit_makes_no_second_delivery(world: World) -> None:
    sink = world.sink("ops")
    away = iter([True, True])

    async def wait(point: str) -> None:
        if point == "commit" and sink.got and next(away, False):
            raise broker_away()

    world.raise_alerts(alert_of(1))
    worker = Worker(world, wait)
    await asyncio.sleep(60.0)
    assert (sink.got, world.state.lanes) == (["a1"], {})
    assert next(away, None) is None
    assert worker.count("ops", "delivered") == 1
    await worker.end()


@in_world
async def test_what_was_given_up_stays_so_with_its_letter_also_if_the_commit_fails(world: World) -> None:
    sink = world.sink("mail", Undeliverable("refused one; all other recipients have it"))
    failures = iter([True, True])

    async def wait(point: str) -> None:
        if point == "commit" and sink.tried and next(failures, False):
            raise broker_away()

    world.raise_alerts(alert_of(1))
    worker = Worker(world, wait)
    await asyncio.sleep(30.0)
    assert next(failures, None) is None
    assert (len(sink.tried), world.state.lanes) == (1, {})
    assert [letter.message for letter in world.letters] == ["sink mail: refused one; all other recipients have it"]
    assert worker.count("mail", "undeliverable") == 1
    labels = {"stream": "flights", "stage": "notify", "reason": "refused"}
    assert worker.metrics.registry.get_sample_value("ml_dead_letters_total", labels) == 1
    await worker.end()


@pytest.mark.parametrize("change", [{"format": 2}, {"state": msgspec.Raw(b'{"lanes":7}')}])
def test_a_checkpoint_that_cannot_be_read_ends_the_worker_or_is_given_up_where_no_sink_is_left(change: object) -> None:
    @in_world
    async def scenario(world: World) -> None:
        sink = world.sink("ops", *[AWAY] * 9)
        world.raise_alerts(alert_of(1))
        await until(world, 2.0)
        written = world.kafka.written[CHECKPOINTS]
        written.append(encode(msgspec.structs.replace(decode(Checkpoint, written[-1]), **change)))  # type: ignore[arg-type]
        worker = Worker(world)
        await asyncio.sleep(2.0)
        [error] = worker.fatal
        assert isinstance(error, FatalError)
        assert "the checkpoint of the alerts that wait for sinks cannot be read" in str(error)
        assert "take the sinks of the stream out of penstock.toml once" in str(error)
        worker.fatal.clear()
        await worker.end()
        world.sinks.clear()
        await until(world, 2.0)
        assert len(sink.tried) == 2
        world.sinks["ops"] = ScriptedSink()
        world.raise_alerts(alert_of(2))
        await until(world, 2.0)  # and none was fatal
        assert world.sinks["ops"].got == ["a2"]

    scenario()


@in_world
async def test_when_the_last_sink_goes_what_waits_is_reported_and_never_delivered_later(world: World) -> None:
    sink = world.sinks["ops"] = world.sink("ops", *[AWAY] * 2)
    world.raise_alerts(alert_of(1), alert_of(2))
    await until(world, 0.8)
    world.sinks.clear()
    await until(world, 0.8)
    assert ids(world) == ["a1", "a2"]
    assert {letter.reason for letter in world.letters} == {"no_sink"}
    world.raise_alerts(alert_of(3))  # which nobody waits for
    await until(world, 0.8)
    world.sinks["ops"] = sink
    await asyncio.sleep(60 * DAY_S)
    await until(world, 30.0)
    assert (sink.got, world.state.lanes) == ([], {})


@in_world
async def test_what_has_waited_for_longer_than_its_sink_wants_is_a_dead_letter(world: World) -> None:
    sink = world.sink("ops", AWAY)
    closed = world.sink("closed", LaterError("closed", 3_590.0), max_age_minutes=30)
    world.raise_alerts(alert_of(1))
    await until(world, 0.5)
    await asyncio.sleep(2 * 3_600.0)
    await until(world, 5.0)
    assert (sink.got, closed.got) == ([], [])
    assert {(letter.reason, letter.message) for letter in world.letters} == {
        ("too_old", "sink ops: it has waited for longer than max_age_minutes, 60"),
        ("too_old", "sink closed: it has waited for longer than max_age_minutes, 30"),
    }


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"value": b'{"id":"a1"}'}, "it cannot be read"),
        ({"timestamp": 7_777}, "its record is not in the log of alerts any more"),
        (None, "its record is not in the log of alerts any more"),
    ],
)
def test_what_waits_and_is_no_longer_readable_is_a_dead_letter_and_stops_nobody(
    record: dict[str, object] | None, message: str
) -> None:
    @in_world
    async def scenario(world: World) -> None:
        sink = world.sink("ops", AWAY, AWAY)
        world.raise_alerts(alert_of(1), alert_of(2))
        await until(world, 0.8)
        log = world.kafka.logs[ALERTS]
        log[:1] = [replace(log[0], **record)] if record else []  # type: ignore[arg-type]
        await until(world, 30.0)
        [letter] = world.letters
        assert (letter.offset, letter.reason) == (0, "unreadable")
        assert message in letter.message
        assert sink.got == ["a2"]

    scenario()


@in_world
async def test_after_a_restart_the_log_is_read_once_for_all_that_waits(world: World) -> None:
    sinks = [world.sink(name, *[AWAY] * 60, per_minute=1_000) for name in ("a", "b")]
    world.raise_alerts(*map(alert_of, range(50)))
    await until(world, 0.9)
    assert world.readings == 0
    await until(world, 900.0)
    assert [len(sink.got) for sink in sinks] == [50, 50]
    assert world.readings == 1


@in_world
async def test_alerts_that_find_no_room_in_memory_are_read_from_the_log(world: World) -> None:
    sink = world.sink("ops", 5.0, per_minute=1_000)
    world.raise_alerts(*(alert_of(number, message="x" * 60_000) for number in range(90)))
    await until(world, 300.0)
    assert sink.got == [f"a{number}" for number in range(90)]
    assert world.readings > 0


@in_world
async def test_a_sink_with_a_long_queue_costs_a_healthy_one_no_reading_of_it(world: World) -> None:
    closed, healthy = world.sink("closed", CLOSED), world.sink("healthy", per_minute=1_000)
    worker = Worker(world)
    for number in range(200):
        world.raise_alerts(alert_of(number, message="x" * 60_000))
        await asyncio.sleep(1.0)
    assert (len(healthy.got), world.readings) == (200, 0)
    world.raise_alerts(*(alert_of(number, message="x" * 60_000) for number in range(200, 203)))
    await asyncio.sleep(5.0)
    assert len(healthy.got) == 203
    assert world.readings <= 3
    assert world.records_read <= 12  # of 203: each reading ends at the alert that it is for
    assert len(closed.tried) == 1
    await worker.end()


@in_world
async def test_a_long_queue_is_worked_off_with_few_readings(world: World) -> None:
    sink = world.sink("ops", LaterError("closed", 60.0), per_minute=1_000)
    world.raise_alerts(*(alert_of(number, message="x" * 60_000) for number in range(400)))
    worker = Worker(world)
    await asyncio.sleep(300.0)
    assert len(sink.got) == 400
    assert world.readings < 10  # 4 MiB of 24 at a time
    await worker.end()


@in_world
async def test_one_reading_tells_of_all_that_is_gone_from_the_log(world: World) -> None:
    world.sink("ops", CLOSED)
    world.raise_alerts(*map(alert_of, range(50)))
    await until(world, 5.0)
    del world.kafka.logs[ALERTS][:49]
    world.sinks["ops"] = sink = ScriptedSink()
    await until(world, 30.0)
    assert (sink.got, len(world.letters), world.readings) == (["a49"], 49, 1)


@in_world
async def test_a_clock_that_is_set_back_makes_nothing_wait_for_a_day(world: World) -> None:
    sink = world.sink("ops", AWAY)
    await asyncio.sleep(10 * DAY_S)
    world.raise_alerts(alert_of(1))
    worker = Worker(world)
    await asyncio.sleep(0.5)
    world.clock_off_s = -DAY_S
    world.raise_alerts(alert_of(2))
    await asyncio.sleep(10.0)
    assert sink.got == ["a2", "a1"] or sink.got == ["a1", "a2"]
    await worker.end()


@in_world
async def test_the_most_severe_that_is_due_goes_first(world: World) -> None:
    sink = world.sink("ops", per_minute=1)
    worker = Worker(world)
    world.raise_alerts(alert_of(1, severity="medium"), alert_of(2, severity="medium"), alert_of(3, severity="high"))
    await asyncio.sleep(30.0)
    world.raise_alerts(alert_of(4, severity="critical"))
    await asyncio.sleep(300.0)
    assert sink.got == ["a3", "a4", "a1", "a2"]
    await worker.end()


async def until(world: World, seconds: float) -> None:
    """Let a worker live for a while."""
    worker = Worker(world)
    await asyncio.sleep(seconds)
    await worker.end()


def ids(world: World) -> list[str]:
    """Return the ids of the alerts in the dead letters."""
    return sorted(decode(Alert, base64.b64decode(letter.original_base64)).id for letter in world.letters)
