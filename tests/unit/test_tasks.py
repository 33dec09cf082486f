"""A partition task: when it commits, how it holds its input back, and what it tells of itself."""

import itertools

import pytest

from stream.batches import Outbox
from stream.lanes import LANE_BATCHES, LITTLE_LANE_BATCHES, LITTLE_ROWS
from stream.tasks import MOST_REST_S, STEP_REST
from tests.support import now
from tests.tasks import INPUT, INTERVAL_S, OUTPUT, STATE, Bench, on_bench, on_unhurried_bench


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
async def test_where_readers_do_not_wait_for_commits_a_step_is_followed_by_a_rest_in_which_a_little_waits(
    bench: Bench,
) -> None:
    bench.hides_until_commit = False
    bench.waits_s["process"] = 0.001
    await bench.begin(b"0", b"1", b"2", b"3", *[b"x"] * LITTLE_ROWS)
    bench.deliver(1)
    await bench.settle(0.002)
    bench.deliver(1)
    bench.deliver(1)
    await bench.settle(0.1)
    first, second = bench.times("process")
    assert second - first == pytest.approx(0.001 + STEP_REST * 0.001)
    bench.deliver(1)
    await bench.settle(0.002)
    bench.deliver(LITTLE_ROWS)
    await bench.settle(0.1)
    third, fourth = bench.times("process")[2:4]
    assert fourth - third == pytest.approx(0.002), "much does not wait"


@on_unhurried_bench
async def test_what_nobody_waits_for_is_committed_only_by_interval(bench: Bench) -> None:
    await bench.begin(b"0")
    bench.deliver()
    await bench.settle(1.0)
    [processed], [committed] = bench.times("process"), bench.times("commit")
    assert committed - processed == pytest.approx(INTERVAL_S)


@on_bench
async def test_a_commit_is_followed_by_a_rest_twice_as_long_as_it_took(bench: Bench) -> None:
    bench.waits_s["commit"] = 0.006
    await bench.begin(b"0")
    bench.deliver()
    await bench.settle(0.007)
    bench.kafka.append(INPUT, [b"1"])
    bench.deliver()
    await bench.settle(0.1)
    first, second = bench.times("commit")
    assert second - first == pytest.approx(0.018)
    bench.kafka.append(INPUT, [b"2"])
    bench.deliver()  # after the rest
    await bench.settle()
    assert bench.times("commit")[2] == bench.times("process")[2]


@on_bench
async def test_a_commit_that_took_long_is_not_followed_by_a_long_rest(bench: Bench) -> None:
    bench.waits_s["commit"] = 1.0
    await bench.begin(b"0")
    bench.deliver()
    await bench.settle(1.001)
    bench.kafka.append(INPUT, [b"1"])
    bench.deliver()
    await bench.settle(0.1)
    first, second = bench.times("commit")
    assert second - first == pytest.approx(1.0 + MOST_REST_S)


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
    await bench.begin(b"0", *[b"1"] * LITTLE_ROWS)
    bench.deliver(1)  # the broker has told of many more
    await bench.settle(1.0)
    [processed], [committed] = bench.times("process"), bench.times("commit")
    assert committed - processed == pytest.approx(INTERVAL_S)
    assert bench.kafka.offsets == {INPUT: 1}


@on_bench
async def test_a_commit_does_not_wait_for_a_little_more(bench: Bench) -> None:
    await bench.begin(*[b"1"] * LITTLE_ROWS)
    bench.deliver(1)
    await bench.settle()
    assert bench.times("commit") == bench.times("process")
    assert bench.kafka.offsets == {INPUT: 1}


@on_bench
async def test_who_keeps_up_commits_after_each_rest_although_there_is_always_more(bench: Bench) -> None:
    bench.waits_s.update(process=0.002, commit=0.004)
    await bench.begin(*[b"x"] * 100)
    for _ in range(200):
        bench.kafka.append(INPUT, [b"x"] * 64)
        bench.deliver(64)
        await bench.settle(0.001)
    commits = bench.times("commit")
    assert len(commits) > 3
    assert all(later - earlier < INTERVAL_S / 2 for earlier, later in itertools.pairwise(commits))


@on_bench
async def test_much_that_comes_during_a_commit_is_sent_and_belongs_to_the_next_one(bench: Bench) -> None:
    bench.waits_s["commit"] = 3.0
    many = [b"1"] * LITTLE_ROWS
    await bench.begin(b"0", *many)
    bench.deliver(1)
    await bench.settle(INTERVAL_S + 1.0)
    bench.deliver(LITTLE_ROWS)
    await bench.settle(3.0)
    order = [point for point in bench.points() if point in ("process", "send", "commit", "committed")]
    assert order == ["process", "send", "commit", "process", "send", "committed", "commit"]
    assert bench.kafka.written[OUTPUT] == [b"0"]
    assert bench.kafka.offsets == {INPUT: 1}
    await bench.settle(10.0)
    assert bench.kafka.written[OUTPUT] == [b"0", *many]
    assert bench.kafka.offsets == {INPUT: 1 + LITTLE_ROWS}


@on_bench
async def test_a_little_that_comes_during_a_commit_waits_for_more(bench: Bench) -> None:
    bench.waits_s["commit"] = 3.0
    await bench.begin(b"0", b"1", b"2")
    bench.deliver(1)
    await bench.settle(1.0)
    bench.deliver(1)
    await bench.settle(1.0)
    assert bench.points().count("process") == 1
    bench.deliver(1)
    await bench.settle(10.0)
    assert bench.points().count("process") == bench.points().count("commit") == 2
    assert bench.kafka.written[OUTPUT] == [b"0", b"1", b"2"]


@on_bench
async def test_where_steps_are_slow_less_than_one_of_them_takes_is_a_little(bench: Bench) -> None:
    bench.waits_s |= {"process": 1.0, "commit": 10.0}
    await bench.begin(*[b"x"] * (LITTLE_ROWS + 16))
    bench.deliver(LITTLE_ROWS)
    await bench.settle(1.5)  # from now on, 16 rows are a step
    bench.deliver(15)
    await bench.settle(1.0)
    assert bench.points().count("process") == 1
    bench.deliver(1)
    await bench.settle()
    assert bench.points().count("process") == 2
    assert "committed" not in bench.points()


@on_bench
async def test_its_input_is_held_while_enough_waits_and_goes_on_after_that(bench: Bench) -> None:
    bench.waits_s["process"] = 1.0
    await bench.begin(*[b"x"] * 2000)
    for size, enough in ((LITTLE_ROWS, LANE_BATCHES), (1, LITTLE_LANE_BATCHES)):
        bench.deliver(1)
        await bench.settle()
        for waiting in range(1, enough + 1):
            assert INPUT in bench.source.open_now
            bench.deliver(size)
            assert (INPUT in bench.source.open_now) == (waiting < enough)
        await bench.settle(1.0)
        assert INPUT in bench.source.open_now
        await bench.settle(60.0)


@on_bench
async def test_small_batches_that_wait_together_are_one_step_and_what_came_first_comes_first(bench: Bench) -> None:
    bench.waits_s["process"] = 1.0
    await bench.begin(*[b"%d" % number for number in range(10)])
    bench.deliver(1)
    await bench.settle()
    for size in (4, 3, 2):
        bench.deliver(size)
    await bench.settle(10.0)
    assert bench.points().count("process") == 2
    assert bench.kafka.written[OUTPUT] == [b"%d" % number for number in range(10)]
    assert bench.kafka.offsets == {INPUT: 10}


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


@on_bench
async def test_news_of_the_stage_is_committed_though_no_record_came(bench: Bench) -> None:
    await bench.begin(b"0")
    bench.deliver()
    await bench.settle(1.0)
    bench.log.clear()
    tell_news(bench)
    await bench.settle()
    assert bench.points() == ["save", "send", "sent", "commit", "committed"]
    assert bench.kafka.written[STATE] == [b"news"]
    assert bench.kafka.offsets == {INPUT: 1}


@on_bench
async def test_news_of_the_stage_is_committed_before_it_closes(bench: Bench) -> None:
    await bench.begin(b"0")
    bench.has_news = bench.saves = True  # and nobody woke the task
    await bench.task.close(1.0)
    assert STATE in bench.kafka.written


@on_bench
async def test_what_is_committed_is_counted_from_nothing_and_not_what_was_there_before(bench: Bench) -> None:
    def counted() -> float | None:
        labels = {"group": bench.task.name.group, "topic": INPUT.topic}
        return bench.metrics.registry.get_sample_value("ml_committed_records_total", labels)

    bench.kafka.offsets[INPUT] = 2
    bench.kafka.append(INPUT, [b"0", b"1", b"2", b"3", b"4"])
    bench.task.start()
    await bench.settle()
    assert counted() == 0, "a rate that begins with the first commit would miss it"
    bench.deliver()
    await bench.settle()
    assert counted() == 3


def tell_news(bench: Bench) -> None:
    """Have `save` write one record, and wake the task as a stage does."""

    async def save(outbox: Outbox) -> None:
        await bench.at("save")
        bench.has_news = False
        outbox.add(STATE.topic, STATE.partition, None, b"news")

    bench.save = save  # type: ignore[method-assign]
    bench.has_news = True
    bench.wake()
