"""The page's rates, lag and latencies, from looks at the ends of a stream's logs."""

from app.page.flow import HISTORY_POINTS, FlowMeter, Look, percentile
from tests.watching import Scene


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


def test_a_stall_begins_when_something_waits_and_ends_with_an_answer() -> None:
    meter = FlowMeter()
    stalled = []
    for second, (end, answered) in enumerate([(5, 5), (5, 5), (9, 5), (9, 5), (9, 6), (9, 6), (9, 9)]):
        meter.take(Look(time_ms=1_000 * second, ends={0: end}, answered={0: answered}))
        stalled.append(meter.stalled_ms)
    assert stalled == [0, 0, 1_000, 2_000, 0, 1_000, 0]


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 0.5) is None
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
