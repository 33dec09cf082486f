"""A partition task that is closed, at whatever point it is."""

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    ProducerFenced,
)

from stream.lanes import LITTLE_ROWS
from tests.support import now
from tests.tasks import INPUT, OUTPUT, Bench, on_bench


@on_bench
async def test_closing_finishes_and_commits_the_step_at_hand_and_leaves_the_rest(bench: Bench) -> None:
    bench.waits_s["process"] = 1.0
    await bench.begin(b"0", b"1", b"2")
    bench.deliver(1)
    await bench.settle()
    bench.deliver(1)
    await bench.task.close(30.0)
    assert bench.kafka.written[OUTPUT] == [b"0"]
    assert bench.kafka.offsets == {INPUT: 1}
    assert not bench.task.running
    assert INPUT not in bench.source.open_now


@on_bench
async def test_closing_commits_what_an_earlier_step_left_uncommitted(bench: Bench) -> None:
    await bench.begin(b"0", *[b"1"] * LITTLE_ROWS)
    bench.deliver(1)
    await bench.settle()
    assert bench.kafka.offsets == {}
    await bench.task.close(30.0)
    assert bench.kafka.offsets == {INPUT: 1}


@on_bench
async def test_a_stage_is_told_to_finish_before_its_last_save_and_only_when_its_task_closes(bench: Bench) -> None:
    await bench.begin(b"0", b"1", *[b"2"] * LITTLE_ROWS)
    bench.deliver(1)
    bench.task.reopen("the broker moved")
    await bench.settle(5.0)
    assert "finish" not in bench.points()
    bench.deliver(1)
    await bench.settle()
    bench.log.clear()
    await bench.task.close(30.0)
    assert bench.points()[:2] == ["finish", "save"]


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


@pytest.mark.parametrize("takes_s", [5.0, 3600.0])
def test_a_task_that_lets_go_after_a_failure_is_left_to_it_and_its_producer_is_stopped(takes_s: float) -> None:
    @on_bench
    async def check(bench: Bench) -> None:
        await bench.begin(b"0")
        bench.waits_s["close"] = takes_s
        bench.errors["process"] = [KafkaConnectionError()]
        bench.deliver()
        await bench.settle(1.0)
        assert bench.points()[-1] == "close"
        began = now()
        await bench.task.close(30.0)
        assert now() - began == pytest.approx(min(takes_s - 1, 30.0), abs=0.1)
        assert bench.delivery.stopped

    check()
