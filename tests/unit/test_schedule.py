"""The schedule of a stream: its moments by the clock of the labels, through summer time, and what evaluate asks."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.evaluate import Evaluate
from agents.schedule import Schedule
from schemas.events import RetrainRequest
from schemas.streams import StreamSpec
from schemas.training import TrainingSpec
from schemas.wire import decode, encode
from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from tests.support import Entry, LogMemory, memory_blobs, sample_of

SOURCE = TopicPartition("s.samples", 0)
DAY_MS, HOUR_MS = 86_400_000, 3_600_000


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def _spec(schedule: str = "0 3 * * *", time_zone: str = "UTC", **training: Any) -> StreamSpec:
    return StreamSpec(
        name="s", features=("a",), training=TrainingSpec(schedule=schedule, time_zone=time_zone, **training)
    )


def _moments(schedule: str, time_zone: str, start: str, count: int) -> list[str]:
    """Return the moments after `start` in UTC."""
    made, time_ms, found = Schedule(schedule, time_zone), _ms(start), []
    for _ in range(count):
        time_ms = made.after(time_ms)
        found.append(f"{datetime.fromtimestamp(time_ms / 1000, UTC):%m-%dT%H:%M}")
    return found


def test_a_moment_is_after_the_time_and_not_at_it() -> None:
    assert _moments("0 3 * * *", "UTC", "2026-05-01T02:59:59.999", 1) == ["05-01T03:00"]
    assert _moments("0 3 * * *", "UTC", "2026-05-01T03:00", 2) == ["05-02T03:00", "05-03T03:00"]


def test_the_time_of_day_is_that_of_the_zone_in_winter_and_in_summer() -> None:
    assert _moments("0 3 * * *", "Europe/Zurich", "2026-01-10", 1) == ["01-10T02:00"]
    assert _moments("0 3 * * *", "Europe/Zurich", "2026-07-10", 1) == ["07-10T01:00"]
    assert _moments("0 9 * * mon", "America/New_York", "2026-03-02", 2) == ["03-02T14:00", "03-09T13:00"]


def test_a_time_that_the_clocks_skip_counts_when_they_are_set_forward() -> None:
    found = _moments("30 2 * * *", "Europe/Zurich", "2026-03-28", 3)
    assert found == ["03-28T01:30", "03-29T01:00", "03-30T00:30"]
    found = _moments("*/30 * * * *", "Europe/Zurich", "2026-03-29T00:10", 4)
    assert found == ["03-29T00:30", "03-29T01:00", "03-29T01:30", "03-29T02:00"]


def test_a_time_that_the_clocks_show_twice_counts_once() -> None:
    found = _moments("30 2 * * *", "Europe/Zurich", "2026-10-24", 3)
    assert found == ["10-24T00:30", "10-25T00:30", "10-26T01:30"]
    assert _moments("30 2 * * *", "Europe/Zurich", "2026-10-25T00:45", 1) == ["10-26T01:30"]
    assert _moments("30 2 * * *", "Europe/Zurich", "2026-10-25T01:15", 1) == ["10-26T01:30"]


def test_a_day_that_a_zone_left_out_is_made_up_for_at_its_end() -> None:
    assert _moments("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00", 3) == [
        "12-29T22:00",
        "12-30T10:00",
        "12-30T22:00",
    ]


def test_a_gap_in_the_stream_asks_once_and_the_first_sample_sets_the_clock_only() -> None:
    schedule = Schedule("0 3 * * *", "UTC")
    start = _ms("2026-05-01T12:00")
    times = np.array([start, start + DAY_MS, start + 90 * DAY_MS, start + 40 * DAY_MS, start + 91 * DAY_MS])
    due = schedule.passed(None, times)
    assert due == [
        (_ms("2026-05-02T03:00"), start + DAY_MS),
        (_ms("2026-05-03T03:00"), start + 90 * DAY_MS),
        (_ms("2026-07-31T03:00"), start + 91 * DAY_MS),
    ]
    assert schedule.passed(None, times[:1]) == []
    assert schedule.passed(start, times[:0]) == []


class Bench:
    """The evaluate stage with a memory, and what it asked."""

    def __init__(self, spec: StreamSpec, memory: LogMemory | None = None) -> None:
        self.memory = memory or LogMemory({})
        self.stage = Evaluate(spec, self.memory, memory_blobs(), Metrics(), save_samples=1)
        self.requests: list[RetrainRequest] = []

    async def take(self, hours: Iterable[int], first_offset: int = 0, taken_hour: int | None = None) -> None:
        """Fold samples whose labels come in these hours of 1970, as Kafka takes them, unless that is said."""
        records = [
            Entry(
                first_offset + i,
                encode(sample_of(first_offset + i, event_time_ms=hour * HOUR_MS, label_time_ms=hour * HOUR_MS)),
                b"s",
                (hour if taken_hour is None else taken_hour) * HOUR_MS,
            )
            for i, hour in enumerate(hours)
        ]
        outbox = Outbox()
        await self.stage.process(Batch(SOURCE, records), outbox)
        written = outbox.targets.get(TopicPartition("s.retrain", 0), [])
        self.requests += [decode(RetrainRequest, value) for _, value in written]


async def test_evaluate_asks_when_the_clock_of_labels_passes_a_moment() -> None:
    bench = Bench(_spec())
    await bench.stage.open({SOURCE: 0})
    await bench.take([0, 2, 3, 1, 20, 28])
    first, second = bench.requests
    assert (first.reason, first.requested_by, first.stream) == ("schedule", "evaluate", "s")
    assert first.evidence == {"schedule": "0 3 * * *", "time_zone": "UTC", "moment_time_ms": 3 * HOUR_MS}
    assert (first.requested_time_ms, second.requested_time_ms) == (3 * HOUR_MS, 28 * HOUR_MS)
    assert first.id != second.id


async def test_a_label_of_the_future_puts_the_clock_no_more_than_a_day_ahead() -> None:
    bench = Bench(_spec())
    await bench.stage.open({SOURCE: 0})
    await bench.take([0, 1])
    await bench.take([9_000], taken_hour=2)  # 26 o'clock is believed
    await bench.take([3, 26, 27], first_offset=3)
    assert [request.evidence["moment_time_ms"] for request in bench.requests] == [3 * HOUR_MS, 27 * HOUR_MS]
    assert bench.requests[0].requested_time_ms == 26 * HOUR_MS


async def test_without_a_schedule_nothing_is_asked() -> None:
    for spec in (_spec(""), msgspec.structs.replace(_spec(), training=None)):
        bench = Bench(spec)
        await bench.stage.open({SOURCE: 0})
        await bench.take([0, 28, 200])
        assert bench.requests == []


async def test_a_checkpoint_from_before_there_was_a_schedule_is_where_it_goes_on() -> None:
    old = Bench(_spec(""))
    await old.stage.open({SOURCE: 0})
    await old.take([0, 26])
    outbox = Outbox()
    await old.stage.save(outbox)
    old.memory.commit(outbox)
    bench = Bench(_spec(), old.memory)
    await bench.stage.open({SOURCE: 2})
    assert bench.memory.reads == [(SOURCE, 0, 0), (SOURCE, 2, 2)]
    await bench.take([27, 28], first_offset=2)
    assert [request.evidence["moment_time_ms"] for request in bench.requests] == [27 * HOUR_MS]


@pytest.mark.parametrize(
    "schedule", ["0 3 * * mon-fri", "*/15 8-18 * * *", "0 0 L * *", "0 0 29 2 *", "0 9 * jan,apr 1"]
)
def test_a_schedule_of_five_fields_is_taken(schedule: str) -> None:
    assert _spec(schedule).problems() == []


@pytest.mark.parametrize(
    "schedule",
    ["daily", "@daily", "0 0 0 * * *", "61 * * * *", "0 0 30 2 *", "R * * * *", "1,R * * * *", "H 3 * * *", " "],
)
def test_a_schedule_that_is_none_or_never_comes_or_is_random_is_refused_in_a_sentence(schedule: str) -> None:
    [problem] = _spec(schedule).problems()
    assert "training.schedule" in problem
    assert "no cron expression" in problem


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_a_time_zone_that_is_none_is_refused_in_a_sentence(zone: str) -> None:
    [problem] = _spec(time_zone=zone).problems()
    assert f"training.time_zone {zone!r} is not known" in problem


def test_a_schedule_that_no_reason_lets_through_is_refused() -> None:
    [problem] = _spec(reasons=("drift",)).problems()
    assert "reasons leaves out 'schedule'" in problem
