"""The notify stage: alerts reach the sinks that want them, each once, whatever the sinks and the worker do."""

import asyncio
import base64
import itertools

import pytest

from agents.notify.queue import LONGEST_PAUSE_MS, pause_ms
from schemas.events import Alert
from schemas.wire import encode
from stores.sinks import LaterError, Undeliverable
from tests.notifying import ALERTS, ScriptedSink, Worker, World, alert_of, broker_away, in_world
from tests.support import now

AWAY = LaterError("the sink is away")
REFUSES = Undeliverable("the sink refused it")


@in_world
async def test_every_sink_gets_the_alerts_of_its_severity_and_streams_the_most_severe_first(world: World) -> None:
    everything = world.sink("everything", min_severity="low")
    critical = world.sink("critical", min_severity="critical", streams=("flights",))
    birds = world.sink("birds", streams=("birds",))
    severities = ["low", "critical", "medium", "high"]
    world.raise_alerts(*(alert_of(n, severity=severity) for n, severity in enumerate(severities)))
    worker = Worker(world)
    await asyncio.sleep(5.0)
    assert (everything.got, critical.got, birds.got) == (["a1", "a3", "a2", "a0"], ["a1"], [])
    assert (worker.count("everything", "delivered"), worker.waiting("everything")) == (4, 0)
    labels = {"stream": "flights", "sink": "critical"}
    assert worker.metrics.registry.get_sample_value("ml_notification_delay_seconds_count", labels) == 1
    await worker.end()
    assert worker.waiting("everything") is None


@in_world
async def test_an_alert_that_comes_twice_is_delivered_once_also_by_another_worker(world: World) -> None:
    sink = world.sink("ops")
    world.raise_alerts(alert_of(1), alert_of(2), alert_of(1))
    for _ in range(2):
        worker = Worker(world)
        await asyncio.sleep(5.0)
        await worker.end()
        world.raise_alerts(alert_of(2), alert_of(1))
    assert sink.got == ["a1", "a2"]


@in_world
async def test_a_sink_that_hangs_or_fails_delays_no_other_and_not_the_log(world: World) -> None:
    world.sink("hangs", *[30.0] * 3)
    world.sink("fails", *[AWAY] * 9)
    quick = world.sink("quick")
    worker = Worker(world)
    for number in range(3):
        world.raise_alerts(alert_of(number))
        await asyncio.sleep(1.0)
    assert quick.got == ["a0", "a1", "a2"]
    assert (worker.waiting("hangs"), worker.waiting("fails")) == (3, 3)
    assert world.kafka.offsets[ALERTS] == 3
    await worker.end(0.0)


@in_world
async def test_attempts_are_ever_further_apart_until_one_succeeds(world: World) -> None:
    sink = world.sink("ops", AWAY, AWAY, RuntimeError("a mistake of ours"))
    world.raise_alerts(alert_of(1))
    worker = Worker(world)
    await asyncio.sleep(30.0)
    times = [time for time, _ in sink.tried]
    assert [round(b - a) for a, b in itertools.pairwise(times)] == [1, 2, 4]
    assert (sink.got, world.letters) == (["a1"], [])
    assert worker.count("ops", "failed") == 3
    await worker.end()


def test_the_pause_doubles_and_ends_at_five_minutes() -> None:
    assert [pause_ms(attempts) for attempts in (1, 2, 3, 9, 10, 100)] == [1000, 2000, 4000, 256_000, *[300_000] * 2]
    assert LONGEST_PAUSE_MS == 300_000


@in_world
async def test_after_its_last_attempt_an_alert_is_a_dead_letter_that_says_which_sink_and_why(world: World) -> None:
    world.sink("ops", *[AWAY] * 3, attempts=3)
    other = world.sink("other")
    alert = alert_of(1)
    world.raise_alerts(alert_of(0, severity="low"), alert)
    worker = Worker(world)
    await asyncio.sleep(60.0)
    [letter] = world.letters
    assert (letter.topic, letter.partition, letter.offset) == ("flights.alerts", 0, 1)
    assert (letter.stage, letter.reason) == ("notify", "exhausted")
    assert letter.message == "sink ops: the sink is away; that was attempt 3, the last"
    assert base64.b64decode(letter.original_base64) == encode(alert)
    assert (other.got, worker.count("ops", "undeliverable"), worker.waiting("ops")) == (["a1"], 1, 0)
    await worker.end()


@in_world
async def test_what_is_refused_is_a_dead_letter_at_once(world: World) -> None:
    sink = world.sink("ops", REFUSES)
    world.raise_alerts(alert_of(1), alert_of(2))
    worker = Worker(world)
    await asyncio.sleep(1.0)
    assert [(letter.reason, letter.message) for letter in world.letters] == [
        ("refused", "sink ops: the sink refused it")
    ]
    assert sink.got == ["a2"]
    await worker.end()


@in_world
async def test_an_alert_that_fails_lets_later_ones_pass(world: World) -> None:
    sink = world.sink("ops", AWAY)
    world.raise_alerts(alert_of(1), alert_of(2), alert_of(3))
    worker = Worker(world)
    await asyncio.sleep(5.0)
    assert sink.got == ["a2", "a3", "a1"]
    await worker.end()


@in_world
async def test_a_receiver_that_asks_to_wait_gets_nothing_before(world: World) -> None:
    sink = world.sink("ops", LaterError("it answered 429", 45.0))
    world.raise_alerts(alert_of(1), alert_of(2))
    worker = Worker(world)
    await asyncio.sleep(44.0)
    assert sink.got == []
    await asyncio.sleep(3.0)
    assert sink.got == ["a1", "a2"]
    await worker.end()


@in_world
async def test_no_more_than_the_rate_goes_out_in_any_minute_and_nothing_is_lost_of_a_burst(world: World) -> None:
    sink = world.sink("ops", per_minute=5)
    world.raise_alerts(*map(alert_of, range(17)))
    worker = Worker(world)
    await asyncio.sleep(600.0)
    assert sink.got == [f"a{number}" for number in range(17)]
    times = [time for time, _ in sink.tried]
    assert all(later - time >= 60.0 for time, later in zip(times, times[5:], strict=False))
    assert times[-1] - times[0] == pytest.approx(180.0, abs=5.0)
    await worker.end()


@in_world
async def test_alerts_older_than_the_sink_wants_are_counted_and_passed_over(world: World) -> None:
    sink = world.sink("ops", max_age_minutes=10)
    patient = world.sink("patient", max_age_minutes=1_000)
    await asyncio.sleep(3_600.0)
    world.raise_alerts(alert_of(1), time_ms=int(1000 * now()) - 601_000)
    world.raise_alerts(alert_of(2, raised_time_ms=0))
    worker = Worker(world)
    await asyncio.sleep(5.0)
    assert (sink.got, patient.got) == (["a2"], ["a1", "a2"])
    assert (worker.count("ops", "too_old"), world.letters) == (1, [])
    await worker.end()


@in_world
async def test_what_is_no_alert_or_too_much_is_a_dead_letter(world: World) -> None:
    sink = world.sink("ops", min_severity="low")
    world.sink("severe", min_severity="critical")
    world.append(b"nonsense")
    world.raise_alerts(alert_of(1, stream="birds"), alert_of(2, message="x" * 70_000))
    world.raise_alerts(alert_of(3, id="\x00" * 50))
    worker = Worker(world)
    await asyncio.sleep(0.5)
    assert [letter.reason for letter in world.letters] == ["malformed_json", "wrong_stream", "too_large", "id_too_long"]
    assert world.letters[2].message.startswith("sink ops: at most 65,536 bytes")
    assert (worker.count("ops", "undeliverable"), worker.count("severe", "undeliverable")) == (1, 0)
    labels = {"stream": "flights", "stage": "notify", "reason": "too_large"}
    assert worker.metrics.registry.get_sample_value("ml_dead_letters_total", labels) == 1
    assert sink.got == []
    await worker.end()


@in_world
async def test_a_worker_that_ends_properly_lets_the_delivery_under_way_end(world: World) -> None:
    sink = world.sink("ops", 8.0)
    world.raise_alerts(alert_of(1), alert_of(2))
    worker = Worker(world)
    await asyncio.sleep(2.0)
    await worker.end()
    assert sink.got == ["a1"]
    second = Worker(world)
    await asyncio.sleep(2.0)
    assert (sink.got, len(sink.tried)) == (["a1", "a2"], 2)
    await second.end()


@in_world
async def test_a_delivery_that_does_not_end_is_broken_off_and_goes_on_elsewhere(world: World) -> None:
    sink = world.sink("ops", 50.0)
    world.raise_alerts(alert_of(1))
    worker = Worker(world)
    await asyncio.sleep(2.0)
    started = now()
    await worker.end()
    assert now() - started < 13.0
    second = Worker(world)
    await asyncio.sleep(2.0)
    assert sink.got == ["a1"]
    await second.end()


@in_world
async def test_a_commit_that_fails_breaks_off_no_delivery_of_another_sink(world: World) -> None:
    quick, slow = world.sink("quick", attempts=1), world.sink("slow", 8.0, attempts=1)
    failures = iter([True])

    async def wait(point: str) -> None:
        if point == "commit" and quick.got and next(failures, False):
            raise broker_away()

    world.raise_alerts(alert_of(1))
    worker = Worker(world, wait)
    await asyncio.sleep(30.0)
    assert next(failures, None) is None
    assert (quick.got, slow.got, world.letters) == (["a1"], ["a1"], [])
    assert (len(quick.tried), len(slow.tried), world.state.lanes) == (1, 1, {})
    await worker.end()


@in_world
async def test_a_sender_that_swallows_its_cancellation_keeps_no_worker_from_ending(world: World) -> None:
    class Stubborn(ScriptedSink):
        async def send(self, alert: Alert) -> None:
            try:
                await super().send(alert)
            except asyncio.CancelledError:
                raise TypeError("a mistake while breaking off") from None

    world.sink("ops")
    sink = world.sinks["ops"] = Stubborn([50.0])
    world.raise_alerts(alert_of(1))
    worker = Worker(world)
    await asyncio.sleep(2.0)
    started = now()
    async with asyncio.timeout(60.0):
        await worker.end(40.0)
    assert now() - started < 13.0
    assert len(sink.tried) == 1


@in_world
async def test_an_attempt_begins_only_when_it_is_written_down(world: World) -> None:
    sink = world.sink("ops")
    away = True

    async def wait(point: str) -> None:
        if point == "commit" and away:
            raise broker_away()

    world.raise_alerts(alert_of(1))
    worker = Worker(world, wait)
    await asyncio.sleep(20.0)
    assert sink.tried == []
    away = False
    await asyncio.sleep(20.0)
    assert sink.got == ["a1"]
    await worker.end()


@pytest.mark.parametrize("with_transactions", [True, False])
def test_a_worker_lost_in_every_attempt_comes_to_an_end_with_a_dead_letter(with_transactions: bool) -> None:
    @in_world
    async def scenario(world: World) -> None:
        world.with_transactions = with_transactions
        sink = world.sink("ops", *[500.0] * 9, attempts=2)
        world.raise_alerts(alert_of(1))
        for _ in range(4):
            worker = Worker(world)
            await asyncio.sleep(5.0)
            await worker.end(0.0)
        assert len(sink.tried) == 2
        [letter] = world.letters
        assert letter.message == "sink ops: the last attempt was cut off, or `attempts` was lowered"

    scenario()


@in_world
async def test_what_waits_for_a_sink_that_is_taken_away_is_a_dead_letter(world: World) -> None:
    world.sink("old", *[AWAY] * 9)
    world.raise_alerts(alert_of(1))
    worker = Worker(world)
    await asyncio.sleep(2.0)
    await worker.end()
    del world.sinks["old"]
    world.sink("new")
    second = Worker(world)
    await asyncio.sleep(2.0)
    assert [(letter.reason, letter.message) for letter in world.letters] == [
        ("no_sink", "sink old: it is no longer declared")
    ]
    assert (second.waiting("old"), second.waiting("new")) == (None, 0)
    await second.end()


@in_world
async def test_an_attempt_that_hangs_is_ended_and_a_receiver_cannot_ask_for_more_than_an_hour(world: World) -> None:
    hanging = world.sink("hanging", 500.0)
    closed = world.sink("closed", LaterError("closed", 1e9), max_age_minutes=1_000)
    world.raise_alerts(alert_of(1))
    worker = Worker(world)
    await asyncio.sleep(70.0)
    assert (hanging.got, closed.got) == (["a1"], [])
    await asyncio.sleep(3_600.0)
    assert closed.got == ["a1"]
    await worker.end()


@in_world
async def test_an_attempt_that_never_began_does_not_count(world: World) -> None:
    sink = world.sink("ops", attempts=1)
    hanging = asyncio.Event()

    async def wait(point: str) -> None:
        if point == "commit":
            await hanging.wait()

    world.raise_alerts(alert_of(1))
    worker = Worker(world, wait)
    await asyncio.sleep(5.0)
    assert [waiting.attempts for waiting in worker.stage.state.lanes["ops"]] == [1]
    asyncio.get_running_loop().call_later(1.0, hanging.set)
    await worker.end()
    second = Worker(world)
    await asyncio.sleep(5.0)
    assert (sink.got, world.letters) == (["a1"], [])
    await second.end()


@in_world
async def test_a_log_that_cannot_be_read_now_is_read_later(world: World) -> None:
    sink = world.sink("ops", AWAY)
    world.raise_alerts(alert_of(1))
    worker = Worker(world)
    await asyncio.sleep(0.5)
    await worker.end()
    world.failing_readings = 2
    second = Worker(world)
    await asyncio.sleep(30.0)
    assert (sink.got, world.failing_readings) == (["a1"], 0)
    await second.end()
