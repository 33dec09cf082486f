"""The chaos run's clocks: when a recovery is over, and how fast the producer goes. Time is moved by hand."""

from collections.abc import Callable

from benchmarks.chaos_producer import keep_pace
from benchmarks.recovery import Recoveries


class Clock:
    """A clock in milliseconds that stands still until told."""

    def __init__(self) -> None:
        self.ms = 1_000

    def __call__(self) -> int:
        return self.ms


def test_a_blow_is_over_when_every_partition_shows_what_was_scored_after_it() -> None:
    clock = Clock()
    recoveries = Recoveries(parts=2, clock_ms=clock)
    recoveries.blow("kill")
    clock.ms = 3_000
    recoveries.show({0: 2_900, 1: 1_000})  # partition 1 shows what was scored in the very moment of the blow
    assert not recoveries.over()
    clock.ms = 7_000
    recoveries.show({1: 6_500})
    assert recoveries.over()
    assert recoveries.taken_s == {"kill": [6.0]}


def test_blows_may_overlap_and_each_is_measured_from_its_own_start() -> None:
    clock = Clock()
    recoveries = Recoveries(parts=1, clock_ms=clock)
    recoveries.blow("kill")
    clock.ms = 2_000
    recoveries.blow("freeze")
    clock.ms = 4_000
    recoveries.show({0: 1_500})  # written between the two
    assert recoveries.taken_s == {"kill": [3.0]}
    assert not recoveries.over()
    recoveries.show({0: 3_500})
    assert recoveries.taken_s == {"kill": [3.0], "freeze": [2.0]}


def test_percentiles_are_of_one_kind_of_blow() -> None:
    clock = Clock()
    recoveries = Recoveries(parts=1, clock_ms=clock)
    for kind, seconds in (("kill", 1), ("freeze", 50), ("kill", 3)):
        recoveries.blow(kind)
        clock.ms += seconds * 1_000
        recoveries.show({0: clock.ms})
    assert recoveries.percentiles_s("kill") == {"p50": 2.0, "p95": 2.9}
    assert recoveries.percentiles_s("flood") == {"p50": None, "p95": None}


def _sent_per_second(seconds: int, pause: Callable[[float], float]) -> list[int]:
    """Let a producer of 100 events per second run; `pause` says how long a sleep at some time really takes."""
    now = 0.0
    sent = [0] * (seconds + 1)

    def send() -> None:
        sent[int(now)] += 1

    def sleep(wanted_s: float) -> None:
        nonlocal now
        now += max(wanted_s, pause(now))

    keep_pace(send, 100, lambda: now >= seconds, clock=lambda: now, sleep=sleep)
    return sent[:seconds]


def test_the_producer_keeps_its_rate() -> None:
    assert all(99 <= count <= 101 for count in _sent_per_second(5, lambda _: 0.0))


def test_the_producer_makes_up_for_at_most_a_second_of_a_hold_up() -> None:
    sent = _sent_per_second(20, lambda now: 10.0 if 5.0 <= now < 6.0 else 0.0)
    assert sum(sent[6:15]) == 0
    assert 190 <= sent[15] <= 210
    assert all(99 <= count <= 101 for count in sent[16:])
