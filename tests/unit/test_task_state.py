"""A partition task with several inputs, or with a stage that keeps a state."""

import asyncio
import itertools
from collections.abc import Sequence

from schemas.errors import RetryableError
from stream.batches import Batch, TopicPartition
from stream.lanes import LANE_BATCHES, LITTLE_ROWS
from tests.support import Entry, leap_through, now
from tests.tasks import INPUT, OUTPUT, STATE, Bench, on_bench, on_unhurried_bench


@on_bench
async def test_a_fast_consumer_never_gets_further_ahead_than_the_lane_and_what_is_on_its_way(bench: Bench) -> None:
    ahead: list[int] = []

    def accept(batch: Batch) -> None:
        bench.log.append((now(), "accepted"))
        ahead.append(bench.points().count("accepted") - bench.points().count("process"))
        bench.task.accept(batch)

    bench.waits_s["process"] = 0.005  # of a step
    await bench.begin(*[b"x"] * 50 * LITTLE_ROWS)
    polling = asyncio.create_task(bench.source.run(accept, itertools.repeat(LITTLE_ROWS), itertools.repeat(0.001)))
    await bench.settle(60.0)
    polling.cancel()
    assert len(bench.kafka.written[OUTPUT]) == 50 * LITTLE_ROWS
    assert max(ahead) <= LANE_BATCHES + 1


@on_bench
async def test_to_open_again_it_takes_what_it_has_and_fetches_nothing_more(bench: Bench) -> None:
    bench.waits_s["process"] = 0.005
    await bench.begin(*[b"x"] * 4 * LITTLE_ROWS)
    bench.deliver(LITTLE_ROWS)
    await bench.settle()
    bench.deliver(LITTLE_ROWS)
    bench.task.reopen("its next records are gone")
    assert bench.deliver(LITTLE_ROWS) == []
    await bench.settle(0.1)
    assert bench.kafka.offsets == {INPUT: 2 * LITTLE_ROWS}
    await bench.settle(5.0)
    assert INPUT in bench.source.open_now


LEFT, RIGHT = TopicPartition("left", 0), TopicPartition("right", 0)


async def read_side_by_side(
    left: Sequence[Entry], right: Sequence[Entry], poll_records: int, *, aligned: bool = True
) -> Bench:
    """Let a task with two inputs read all of both; one input's batches are long on their way."""
    bench = Bench(LEFT, RIGHT)
    bench.aligned = aligned
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


def test_a_stage_to_which_their_order_does_not_matter_waits_for_none_of_its_inputs() -> None:
    left = [Entry(offset, b"l", timestamp=100) for offset in range(2)]
    right = [Entry(0, b"r", timestamp=0)]
    bench = leap_through(read_side_by_side(left, right, 1, aligned=False))
    assert bench.times("process")[0] < 0.3
    assert sorted(bench.processed) == [b"l", b"l", b"r"]


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


@on_unhurried_bench
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
