"""What the page does about a Kafka that lacks something or is silent, and how it goes about hundreds of streams."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from app.page import following as module
from app.page.audience import Audience, Overview
from app.page.board import StreamFold
from app.page.document import Board
from app.page.flow import Look
from app.page.following import Following, overview_of
from schemas.errors import PenstockError, RetryableError, SettingsError
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.connection import Cluster, KafkaConnection
from tests.drifting import alert_of, column_of, report_of
from tests.support import Entry, leap_through
from tests.watching import NOW_MS, SPEC, served, window_of
from topics.specs import topics_of

SLOWEST_STEP_S = 0.2  # ten times what is wanted: the machine may be busy


class Admin:
    """Answers how many partitions each topic has, after a while."""

    def __init__(self, topics: Mapping[str, int], takes_s: float = 0) -> None:
        self._topics = topics
        self._takes_s = takes_s

    async def describe_topics(self) -> list[dict[str, Any]]:
        await asyncio.sleep(self._takes_s)
        return [{"topic": name, "partitions": list(range(count))} for name, count in self._topics.items()]


def problem_of(monkeypatch: pytest.MonkeyPatch, admin: Admin) -> PenstockError:
    """Return with what the reading ends."""

    @asynccontextmanager
    async def admin_client(connection: KafkaConnection) -> AsyncIterator[Admin]:
        yield admin

    async def reachable(connection: KafkaConnection) -> Cluster:
        return Cluster(addresses=(("k", 1),), embedded=False)

    monkeypatch.setattr("stream.admin._admin", admin_client)
    monkeypatch.setattr(KafkaConnection, "reachable", reachable)
    following = Following(KafkaConnection(bootstrap="k:1"), [SPEC], lambda: NOW_MS, lambda stream: None)

    async def main() -> PenstockError:
        with pytest.raises(PenstockError) as raised:
            await following.run(lambda overview: None)
        return raised.value

    return leap_through(main())


def test_a_topic_that_is_missing_or_has_other_partitions_than_declared_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {topic.name: topic.partitions for topic in topics_of(SPEC)}
    missing = problem_of(monkeypatch, Admin({name: n for name, n in there.items() if name != "flights.alerts"}))
    assert isinstance(missing, SettingsError)
    assert "topic flights.alerts does not exist: run `penstock topics apply`" in str(missing)
    for count in (1, SPEC.partitions + 1):
        other = problem_of(monkeypatch, Admin({**there, "flights.features": count}))
        assert isinstance(other, SettingsError)
        assert f"topic flights.features has {count} partition(s) in Kafka, and {SPEC.partitions}" in str(other)


def test_a_kafka_that_does_not_answer_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(monkeypatch, Admin({}, takes_s=100 * module.PATIENCE_S))
    assert isinstance(problem, RetryableError)
    assert "Kafka at k:1 does not answer any more" in str(problem)


def full(name: str) -> StreamFold:
    """Return the fold of a stream of which much is known."""
    fold = StreamFold(StreamSpec(name=name, features=("a",)))
    report = report_of(3, *[column_of(f"c{n}") for n in range(20)])
    events = [served(), *[window_of(n, roc_auc=0.7) for n in range(120)], *[report] * 60]
    for event in [*events, *[alert_of(f"a{n}", subject=f"f{n}", severity="low") for n in range(50)]]:
        fold.take(type(event), [Entry(0, encode(event), timestamp=NOW_MS)])
    for second in range(30):
        fold.look(Look(time_ms=second * 1_000, ends={0: second}, answered={0: second}, latencies_ms=[5.0] * 200))
    return fold


async def test_with_two_hundred_streams_no_step_of_the_event_loop_is_long() -> None:
    one = full("s000")
    folds = {f"s{number:03}": one for number in range(200)}
    longest_s, overviews = 0.0, []

    async def beat() -> None:
        nonlocal longest_s
        while True:
            before_s = time.perf_counter()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.perf_counter() - before_s)

    async def follow(publish: Any) -> None:
        overview: Overview = await overview_of(folds, NOW_MS, lambda stream: 7)
        overviews.append(overview)
        publish(overview)
        await asyncio.Event().wait()

    beating = asyncio.ensure_future(beat())
    audience = Audience(follow, lambda: NOW_MS)
    async with audience.watching("s150") as viewer, audience.watching("s003") as other:
        documents = await asyncio.gather(viewer.next(), other.next())
    await audience.close()
    beating.cancel()
    boards = [msgspec.json.decode(document or b"", type=Board) for document in documents]
    assert [len(board.streams) for board in boards] == [200, 200]
    assert [board.stream.labels.pending for board in boards if board.stream] == [7, 7]
    assert longest_s < SLOWEST_STEP_S


async def test_the_event_loop_goes_on_between_the_states_of_streams() -> None:
    folds = {f"s{number:03}": StreamFold(SPEC) for number in range(50)}
    making = asyncio.ensure_future(overview_of(folds, NOW_MS, lambda stream: None))
    steps = 0
    while not making.done():
        await asyncio.sleep(0)
        steps += 1
    assert len((await making).streams) <= steps
