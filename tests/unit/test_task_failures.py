"""What a partition task does about each kind of error."""

import itertools

import pytest
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    InvalidProducerIdMapping,
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)

from schemas.errors import FatalError, RetryableError
from stream.failures import is_retryable
from tests.tasks import INPUT, NAME, OUTPUT, PAUSE_S, Bench, on_bench


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
        (InvalidProducerIdMapping(), True),
        (FatalError("no"), False),
        (MessageSizeTooLargeError(), False),
        (TopicAuthorizationFailedError(), False),
        (ValueError("a bug"), False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors_that_another_attempt_can_cure_are_told_from_those_it_cannot(error: Exception, retryable: bool) -> None:
    assert is_retryable(error) is retryable
