"""A partition task: when it commits, how it holds its inputs back, and what it does about each kind of error."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence

import pytest
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    InvalidProducerIdMapping,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    TopicAuthorizationFailedError,
)

from schemas.errors import FatalError, RetryableError
from stream.batches import Batch, Outbox, TopicPartition
from stream.failures import is_retryable
from stream.metrics import Metrics
from stream.tasks import LANE_BATCHES, PartitionTask, TaskLimits, TaskName
from stream.turns import Turns
from tests.support import Entry, MemoryDelivery, MemoryKafka, MemorySource, leap_through, now

INPUT = TopicPartition("in", 0)
OUTPUT = TopicPartition("out", 0)
STATE = TopicPartition("state", 0)
NAME = TaskName("group", "flights", "copy", 0)
PAUSE_S = 12.0
INTERVAL_S = 0.1

Scenario = Callable[["Bench"], Coroutine[None, None, None]]


class Bench:
    """One task on a Kafka in memory; the bench is its stage. `log` is what happened, each with its time."""

    def __init__(self, *inputs: TopicPartition) -> None:
        self.kafka = MemoryKafka()
        self.log: list[tuple[float, str]] = []
        self.errors: dict[str, list[BaseException]] = {}
        self.waits_s: dict[str, float] = {}
        self.fatal: list[BaseException] = []
        self.hides_until_commit = True
        self.opened_at: dict[TopicPartition, int] = {}
        self.processed: list[bytes] = []
        self.saves = False
        self.writes = True
        self.metrics = Metrics()
        self.source = MemorySource(self.kafka, self.at)
        self.task = PartitionTask(
            NAME,
            self,
            inputs or (INPUT,),
            self.source,
            self._new_delivery,
            TaskLimits(INTERVAL_S, PAUSE_S),
            self.metrics,
            lambda _, error: self.fatal.append(error),
            Turns(),
            now,
        )

    def _new_delivery(self, name: TaskName) -> MemoryDelivery:
        delivery = MemoryDelivery(self.kafka, str(name), self.at)
        delivery.hides_until_commit = self.hides_until_commit
        return delivery

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        self.opened_at = dict(committed)
        await self.at("open")

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        await self.at("process")
        for record in batch.records if self.writes else ():
            outbox.add(OUTPUT.topic, OUTPUT.partition, None, record.value or b"")
        self.processed += [record.value or b"" for record in batch.records]

    async def save(self, outbox: Outbox) -> None:
        await self.at("save")
        if self.saves:
            outbox.add(STATE.topic, STATE.partition, None, b",".join(self.processed))

    async def close(self) -> None:
        await self.at("close")

    async def at(self, point: str) -> None:
        """Note the moment, then wait or fail as the test wants."""
        self.log.append((now(), point))
        await asyncio.sleep(self.waits_s.get(point, 0.0))
        if errors := self.errors.get(point):
            raise errors.pop(0)

    def times(self, point: str) -> list[float]:
        return [time for time, what in self.log if what == point]

    def points(self) -> list[str]:
        return [what for _, what in self.log]

    def restarts(self, reason: str) -> float:
        labels = {"stage": "copy", "reason": reason}
        return self.metrics.registry.get_sample_value("ml_task_restarts_total", labels) or 0.0

    async def settle(self, seconds: float = 0.001) -> None:
        """Let everything happen that can happen within `seconds`."""
        await asyncio.sleep(seconds)

    async def begin(self, *values: bytes) -> None:
        """Start the task with `values` in its input, and let it open."""
        self.kafka.append(INPUT, values)
        self.task.start()
        await self.settle()
        self.log.clear()

    def deliver(self, records: int = 100) -> list[Batch]:
        """Hand the task what one poll of its open inputs gives."""
        polled = self.source.poll(records)
        for batch in polled:
            self.task.accept(batch)
        return polled


def on_bench(scenario: Scenario) -> Callable[[], None]:
    """Run a scenario in leaping time, with a bench whose task is closed at the end."""

    async def run() -> None:
        bench = Bench()
        try:
            await scenario(bench)
        finally:
            await bench.task.close(0.0)

    def wrapped() -> None:
        leap_through(run())

    return wrapped


@on_bench
async def test_it_fences_before_it_asks_where_to_go_on(bench: Bench) -> None:
    bench.kafka.offsets[INPUT] = 2
    bench.kafka.append(INPUT, [b"0", b"1", b"2"])
    bench.task.start()
    await bench.settle()
    assert bench.points() == ["start", "started", "resume_offset", "open"]
    assert bench.task.running
    bench.deliver()
    await bench.settle()
    assert bench.kafka.written[OUTPUT] == [b"2"]


@on_bench
async def test_a_drained_input_is_committed_at_once(bench: Bench) -> None:
    await bench.begin(b"0", b"1")
    bench.deliver()
    await bench.settle()
    assert bench.kafka.offsets == {INPUT: 2}
    assert bench.times("commit") == bench.times("process")


@on_bench
async def test_where_readers_do_not_wait_for_commits_it_commits_only_by_interval(bench: Bench) -> None:
    bench.hides_until_commit = False
    await bench.begin(b"0")
    bench.deliver()
    await bench.settle(1.0)
    [processed], [committed] = bench.times("process"), bench.times("commit")
    assert committed - processed == pytest.approx(INTERVAL_S)


@on_bench
async def test_under_load_it_commits_once_per_interval(bench: Bench) -> None:
    bench.waits_s["process"] = 0.010
    await bench.begin(*[b"x"] * 1000)
    began = now()
    while now() < began + 1.0:
        bench.deliver(1)
        await bench.settle(0.005)
    commits = bench.times("commit")
    assert 8 <= len(commits) <= 10
    assert all(later - earlier >= INTERVAL_S for earlier, later in itertools.pairwise(commits))


@on_bench
async def test_a_commit_falls_due_although_no_further_batch_comes(bench: Bench) -> None:
    await bench.begin(b"0", b"1", b"2")
    bench.deliver(1)  # the broker has told of two more
    await bench.settle(1.0)
    [processed], [committed] = bench.times("process"), bench.times("commit")
    assert committed - processed == pytest.approx(INTERVAL_S)
    assert bench.kafka.offsets == {INPUT: 1}


@on_bench
async def test_the_next_step_is_computed_during_a_commit_but_not_sent_before_its_end(bench: Bench) -> None:
    bench.waits_s["commit"] = 3.0
    await bench.begin(b"0", b"1")
    bench.deliver(1)
    await bench.settle(INTERVAL_S + 1.0)
    bench.deliver(1)
    await bench.settle(10.0)
    order = [point for point in bench.points() if point in ("process", "send", "commit", "committed")]
    assert order == ["process", "send", "commit", "process", "committed", "send", "commit", "committed"]
    assert bench.kafka.written[OUTPUT] == [b"0", b"1"]


@on_bench
async def test_its_input_is_held_while_enough_waits_and_goes_on_after_that(bench: Bench) -> None:
    bench.waits_s["process"] = 1.0
    await bench.begin(*[b"x"] * 10)
    bench.deliver(1)
    await bench.settle()
    for waiting in range(1, LANE_BATCHES + 1):
        assert INPUT in bench.source.open_now
        bench.deliver(1)
        assert (INPUT in bench.source.open_now) == (waiting < LANE_BATCHES)
    await bench.settle(1.0)
    assert INPUT in bench.source.open_now


@on_bench
async def test_a_fast_consumer_never_gets_further_ahead_than_the_lane_and_what_is_on_its_way(bench: Bench) -> None:
    ahead: list[int] = []

    def accept(batch: Batch) -> None:
        bench.log.append((now(), "accepted"))
        ahead.append(bench.points().count("accepted") - bench.points().count("process"))
        bench.task.accept(batch)

    bench.waits_s["process"] = 0.5
    await bench.begin(*[b"x"] * 50)
    polling = asyncio.create_task(bench.source.run(accept, itertools.repeat(1), itertools.repeat(0.001)))
    await bench.settle(60.0)
    polling.cancel()
    assert len(bench.kafka.written[OUTPUT]) == 50
    assert max(ahead) <= LANE_BATCHES + 1


LEFT, RIGHT = TopicPartition("left", 0), TopicPartition("right", 0)


async def read_side_by_side(left: Sequence[Entry], right: Sequence[Entry], poll_records: int) -> Bench:
    """Let a task with two inputs read all of both; one input's batches are long on their way."""
    bench = Bench(LEFT, RIGHT)
    for source, entries in ((LEFT, left), (RIGHT, right)):
        bench.kafka.logs[source].extend(entries)
        bench.kafka.ends[source] = len(entries)
    bench.task.start()
    await bench.settle()
    delays_s = itertools.cycle([0.0, 0.3])
    polling = asyncio.create_task(bench.source.run(bench.task.accept, itertools.repeat(poll_records), delays_s))
    await bench.settle(60.0)
    polling.cancel()
    await bench.task.close(1.0)
    return bench


def test_no_input_of_several_is_held_for_ever() -> None:
    entries = [Entry(offset, b"x", timestamp=0) for offset in range(9)]
    bench = leap_through(read_side_by_side(entries, entries[:3], 1))
    assert len(bench.processed) == 12
    assert bench.kafka.offsets == {LEFT: 9, RIGHT: 3}


def test_several_inputs_are_read_in_the_order_in_which_they_were_written() -> None:
    even = [Entry(offset, b"%d" % (2 * offset), timestamp=2 * offset) for offset in range(40)]
    odd = [Entry(offset, b"%d" % (2 * offset + 1), timestamp=2 * offset + 1) for offset in range(10)]
    bench = leap_through(read_side_by_side(even, odd, 1))
    assert bench.processed == sorted(bench.processed, key=int)
    assert len(bench.processed) == 50


@on_bench
async def test_a_stage_opens_with_the_committed_offsets(bench: Bench) -> None:
    bench.kafka.offsets[INPUT] = 2
    await bench.begin(b"0", b"1", b"2")
    assert bench.opened_at == {INPUT: 2}


@on_bench
async def test_the_state_that_is_committed_is_that_of_the_committed_offsets(bench: Bench) -> None:
    bench.saves = True
    bench.waits_s["process"] = 0.5  # so that every step is due for a commit
    await bench.begin(b"0", b"1", b"2")
    committed = []
    bench.kafka.watch(lambda: committed.append((bench.kafka.offsets.get(INPUT), bench.kafka.written[STATE][-1:])))
    polling = asyncio.create_task(bench.source.run(bench.task.accept, itertools.repeat(1), itertools.repeat(0.0)))
    await bench.settle(10.0)
    polling.cancel()
    assert committed[-1] == (3, [b"0,1,2"])
    assert len(committed) > 1
    assert all(state == [b",".join([b"0", b"1", b"2"][:offset])] for offset, state in committed)


@on_bench
async def test_steps_that_write_nothing_go_on_while_a_commit_is_under_way(bench: Bench) -> None:
    bench.writes = False
    bench.waits_s["commit"] = 5.0
    await bench.begin(*[b"x"] * 10)
    polling = asyncio.create_task(bench.source.run(bench.task.accept, itertools.repeat(1), itertools.repeat(0.05)))
    await bench.settle(2.0)
    assert len(bench.processed) == 10
    assert bench.points().count("commit") == 1
    await bench.settle(20.0)
    polling.cancel()
    assert bench.kafka.offsets == {INPUT: 10}


@on_bench
async def test_a_commit_that_fails_while_steps_go_on_is_noticed(bench: Bench) -> None:
    bench.writes = False
    bench.waits_s["commit"] = 0.5
    bench.errors["commit"] = [RetryableError("the broker is away")]
    await bench.begin(*[b"x"] * 10)
    polling = asyncio.create_task(bench.source.run(bench.task.accept, itertools.repeat(1), itertools.repeat(0.05)))
    await bench.settle(20.0)
    polling.cancel()
    assert bench.restarts("retry") == 1
    assert bench.kafka.offsets == {INPUT: 10}


@on_bench
async def test_a_state_that_cannot_be_saved_is_not_committed(bench: Bench) -> None:
    bench.errors["save"] = [RetryableError("the store is away")]
    await bench.begin(b"0")
    polling = asyncio.create_task(bench.source.run(bench.task.accept, itertools.repeat(1), itertools.repeat(0.0)))
    await bench.settle(10.0)
    polling.cancel()
    assert bench.restarts("retry") == 1
    assert bench.kafka.written[OUTPUT] == [b"0"]


@on_bench
async def test_a_batch_fetched_before_it_opened_is_dropped(bench: Bench) -> None:
    await bench.begin(b"0", b"1")
    stale = bench.source.poll(1)
    bench.errors["process"] = [RetryableError("once")]
    bench.deliver(1)
    await bench.settle(1.0)
    for batch in stale:
        bench.task.accept(batch)
    await bench.settle(1.0)
    assert bench.kafka.written[OUTPUT] == []
    bench.deliver()
    await bench.settle(1.0)
    assert bench.kafka.written[OUTPUT] == [b"0", b"1"]


@on_bench
async def test_retryable_errors_reopen_it_after_longer_and_longer_pauses(bench: Bench) -> None:
    bench.errors["start"] = [KafkaConnectionError() for _ in range(7)]
    bench.task.start()
    await bench.settle(60.0)
    starts = bench.times("start")
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses == pytest.approx([0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0])
    assert bench.restarts("retry") == 7
    assert bench.task.running


@on_bench
async def test_after_a_good_minute_the_pauses_begin_anew(bench: Bench) -> None:
    bench.errors["start"] = [KafkaConnectionError() for _ in range(4)]
    await bench.begin(b"0")
    await bench.settle(100.0)
    bench.errors["process"] = [KafkaConnectionError()]
    bench.deliver()
    await bench.settle(1.0)
    assert bench.times("start")[-1] - bench.times("process")[0] == pytest.approx(0.2)


@on_bench
async def test_a_fenced_task_comes_back_only_when_a_wrong_owner_would_know(bench: Bench) -> None:
    await bench.begin(b"0")
    bench.kafka.fence(str(NAME))
    bench.deliver()
    await bench.settle(PAUSE_S - 0.1)
    assert bench.kafka.written[OUTPUT] == []
    assert not bench.task.running
    assert bench.times("start") == []
    await bench.settle(0.2)
    assert bench.task.running
    assert bench.restarts("fenced") == 1
    bench.deliver()
    await bench.settle()
    assert bench.kafka.written[OUTPUT] == [b"0"]
    assert not bench.fatal


@on_bench
async def test_it_is_fenced_too_when_only_the_cause_says_so(bench: Bench) -> None:
    await bench.begin(b"0")
    bench.errors["commit"] = [_from_sender(ProducerFenced())]
    bench.deliver()
    await bench.settle(1.0)
    assert bench.restarts("fenced") == 1
    assert not bench.fatal


@on_bench
async def test_it_opens_anew_when_told_that_the_next_records_are_gone(bench: Bench) -> None:
    await bench.begin(b"0", b"1", b"2")
    bench.deliver(1)
    await bench.settle()
    bench.task.reopen("retention removed them")
    await bench.settle(1.0)
    assert bench.task.running
    assert bench.restarts("retry") == 1
    bench.deliver()
    await bench.settle()
    assert bench.kafka.written[OUTPUT] == [b"0", b"1", b"2"]


@on_bench
async def test_before_it_opens_anew_it_finishes_what_the_broker_no_longer_has(bench: Bench) -> None:
    bench.waits_s["process"] = 1.0
    await bench.begin(b"0", b"1", b"2")
    bench.deliver(1)
    bench.deliver(1)
    await bench.settle()
    bench.task.reopen("retention removed them")
    await bench.settle(5.0)
    assert bench.kafka.written[OUTPUT] == [b"0", b"1"]
    assert bench.kafka.offsets == {INPUT: 2}
    assert bench.restarts("retry") == 1


@on_bench
async def test_a_fatal_error_ends_it_and_is_told(bench: Bench) -> None:
    error = FatalError("the producer uses another partitioner")
    await bench.begin(b"0")
    bench.errors["process"] = [error]
    bench.deliver()
    await bench.settle(100.0)
    assert bench.fatal == [error]
    assert not bench.task.running
    assert bench.times("start") == []
    assert INPUT not in bench.source.open_now
    assert bench.kafka.offsets == {}


@on_bench
async def test_closing_finishes_and_commits_the_step_at_hand_and_leaves_the_rest(bench: Bench) -> None:
    bench.waits_s["process"] = 1.0
    await bench.begin(b"0", b"1", b"2")
    bench.deliver(1)
    bench.deliver(1)
    await bench.settle()
    await bench.task.close(30.0)
    assert bench.kafka.written[OUTPUT] == [b"0"]
    assert bench.kafka.offsets == {INPUT: 1}
    assert not bench.task.running
    assert INPUT not in bench.source.open_now


@on_bench
async def test_closing_commits_what_an_earlier_step_left_uncommitted(bench: Bench) -> None:
    await bench.begin(b"0", b"1")
    bench.deliver(1)
    await bench.settle()
    assert bench.kafka.offsets == {}
    await bench.task.close(30.0)
    assert bench.kafka.offsets == {INPUT: 1}


@pytest.mark.parametrize("point", ["start", "open", "resume_offset"])
def test_closing_does_not_wait_for_an_opening(point: str) -> None:
    @on_bench
    async def check(bench: Bench) -> None:
        bench.waits_s[point] = 3600.0
        bench.task.start()
        await bench.settle()
        await bench.task.close(30.0)
        assert now() < 1.0

    check()


@pytest.mark.parametrize("point", ["process", "send", "commit"])
def test_closing_aborts_what_takes_too_long(point: str) -> None:
    @on_bench
    async def check(bench: Bench) -> None:
        bench.waits_s[point] = 3600.0
        await bench.begin(b"0")
        bench.deliver()
        await bench.settle(1.0)
        began = now()
        await bench.task.close(30.0)
        assert now() - began == pytest.approx(30.0)
        assert bench.kafka.written[OUTPUT] == []
        assert bench.kafka.offsets == {}

    check()


@on_bench
async def test_closing_between_two_attempts_does_not_wait_for_the_next(bench: Bench) -> None:
    bench.errors["start"] = [ProducerFenced()]
    bench.task.start()
    await bench.settle(1.0)
    await bench.task.close(30.0)
    assert now() < 2.0


@pytest.mark.parametrize("error", [ProducerFenced(), KafkaConnectionError()])
def test_a_closing_task_that_fails_ends_without_a_pause(error: KafkaError) -> None:
    @on_bench
    async def check(bench: Bench) -> None:
        bench.waits_s["commit"] = 1.0
        await bench.begin(b"0")
        bench.deliver()
        await bench.settle()
        bench.errors["commit"] = [error]
        began = now()
        await bench.task.close(30.0)
        assert now() - began == pytest.approx(1.0, abs=0.1)

    check()


@on_bench
async def test_lag_is_what_is_not_committed_even_while_the_last_batch_is_worked_on(bench: Bench) -> None:
    bench.waits_s["process"] = 60.0
    await bench.begin(b"0", b"1")
    bench.deliver()
    await bench.settle(1.0)
    assert bench.task.lag_events == {INPUT: 2}
    await bench.settle(60.0)
    assert bench.task.lag_events == {INPUT: 0}


@on_bench
async def test_commit_markers_behind_the_last_record_are_no_lag(bench: Bench) -> None:
    bench.kafka.append(INPUT, [b"0"], gap=1)
    await bench.begin()
    bench.deliver()
    await bench.settle()
    assert bench.kafka.offsets == {INPUT: 1}
    assert bench.task.lag_events == {INPUT: 0}


@on_bench
async def test_progress_is_the_time_of_the_last_commit(bench: Bench) -> None:
    await bench.begin(b"0")
    await bench.settle(50.0)
    bench.deliver()
    await bench.settle()
    assert bench.task.progress_at == bench.times("committed")[-1]


def _from_sender(cause: KafkaError) -> KafkaError:
    """What aiokafka makes of an error that its sender did not expect."""
    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (RetryableError("the store is away"), True),
        (KafkaConnectionError(), True),
        (KafkaTimeoutError(), True),
        (CommitFailedError(), True),
        (IllegalStateError(), True),
        (OutOfOrderSequenceNumber(), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (_from_sender(InvalidProducerIdMapping()), True),
        (FatalError("no"), False),
        (MessageSizeTooLargeError(), False),
        (TopicAuthorizationFailedError(), False),
        (ValueError("a bug"), False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors_that_another_attempt_can_cure_are_told_from_those_it_cannot(error: Exception, retryable: bool) -> None:
    assert is_retryable(error) is retryable
