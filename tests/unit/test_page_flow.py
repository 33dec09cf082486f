"""The page's rates, lag and latencies, from looks at the ends of a stream's logs."""

from app.page.flow import HISTORY_POINTS, FlowMeter, Look, Stall, percentile
from tests.watching import NOW_MS, Scene


def test_rates_are_of_the_last_five_seconds_and_what_waits_is_of_now() -> None:
    scene = Scene()
    for second in range(11):
        scene.look(second, 1_000 * second, 900 * second, 5.0, 7.0)
    scene.look(11, 12_000, 9_900)
    flow = scene.board.flow
    assert (flow.in_eps, flow.out_eps, flow.lag) == (1_200.0, 900.0, 2_100)
    assert (flow.latency_p50_ms, flow.latency_p99_ms) == (7.0, 7.0)
    assert [point[1:] for point in flow.history[-2:]] == [(1_000.0, 900.0, 7.0), (2_000.0, 900.0, None)]


def test_before_the_second_look_no_rate_is_known() -> None:
    assert Scene().board.flow.lag is None
    flow = Scene().look(0, 10, 4).board.flow
    assert (flow.in_eps, flow.out_eps, flow.lag, flow.history) == (None, None, 6, ())


def test_five_minutes_of_history_are_kept() -> None:
    scene = Scene()
    for second in range(2 * HISTORY_POINTS):
        scene.look(second, second, second)
    history = scene.board.flow.history
    assert len(history) == HISTORY_POINTS
    assert history[-1][0] - history[0][0] == 1_000 * (HISTORY_POINTS - 1)


def test_the_end_of_a_transaction_is_no_event_that_waits_for_ever() -> None:
    meter = FlowMeter()
    for second in range(4):
        meter.take(Look(time_ms=1_000 * second, ends={0: 11, 1: 5}, answered={0: 10, 1: 3}))
        assert meter.flow().lag == 3
    meter.take(Look(time_ms=5_000, ends={0: 11, 1: 5}, answered={0: 10, 1: 3}))
    assert meter.flow().lag == 2
    meter.take(Look(time_ms=6_000, ends={0: 13, 1: 5}, answered={0: 10, 1: 3}))
    assert meter.flow().lag == 5


def test_a_stall_begins_ten_seconds_after_the_last_answer_and_ends_with_one() -> None:
    meter = FlowMeter()
    stalled = []
    for time_s, end, answered in [(0, 5, 5), (5, 5, 5), (6, 9, 5), (14, 9, 5), (15, 9, 5), (16, 9, 6), (26, 9, 6)]:
        meter.take(Look(time_ms=1_000 * time_s, ends={0: end}, answered={0: answered}))
        stalled.append(meter.stall)
    assert [stall.longest_ms if stall else 0 for stall in stalled] == [0, 0, 0, 0, 10_000, 0, 10_000]
    assert stalled[-1] == Stall(partitions=(0,), waiting=3, longest_ms=10_000, whole=True)


def test_a_partition_that_stands_still_is_found_among_others_that_go_on() -> None:
    meter = FlowMeter()
    for second in range(12):
        ends = dict.fromkeys(range(4), 60 * second)
        meter.take(Look(time_ms=1_000 * second, ends=ends, answered=ends | {2: 0}))
    assert meter.stall == Stall(partitions=(2,), waiting=660, longest_ms=11_000, whole=False)


def test_a_feed_has_stopped_when_nothing_comes_for_much_longer_than_usual() -> None:
    often, seldom = FlowMeter(), FlowMeter()
    for second in range(60):
        for meter, every_s in ((often, 1), (seldom, 5)):
            end = min(second, 20) // every_s
            meter.take(Look(time_ms=1_000 * second, ends={0: end}, answered={0: end}))
        assert often.has_stopped == (second >= 35), second
    assert (often.silent_ms, seldom.silent_ms, seldom.has_stopped) == (39_000, 39_000, False)


def test_nothing_is_said_of_a_feed_that_never_came() -> None:
    meter = FlowMeter()
    for second in range(60):
        meter.take(Look(time_ms=1_000 * second, ends={0: 5}, answered={0: 5}))
    assert (meter.silent_ms, meter.has_stopped) == (None, False)


def test_history_of_looks_that_are_far_apart_is_of_the_last_five_minutes() -> None:
    scene = Scene()
    for minute in range(9):
        scene.look(60 * minute, minute, minute)
    assert [point[0] - NOW_MS for point in scene.board.flow.history] == [60_000 * minute for minute in range(3, 9)]


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 0.5) is None
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
