"""The end of a log, on both brokers, and `penstock drift show` there: the newest report, or why there is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from msgspec.structs import replace

from app.registry import artifact_store
from app.settings import Settings
from ml.drift.baseline import make_baseline
from schemas.drift import PartialHistogram
from schemas.event import Event
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.batches import TopicPartition
from stream.tail import FIRST_RECORDS, read_back
from tests.command_line import Penstock, real_command
from tests.conftest import Broker
from tests.drifting import column_of, report_of
from tests.kafka.server import KafkaServer, RunningKafka
from tests.support import deployment_of, version_of


def stored(*features: str, rows: int = 50) -> dict[str, Any]:
    """Make and store a baseline; return what a model's record says of it."""
    values = np.linspace(0, 1, rows, dtype=np.float32)
    made = make_baseline(np.stack([values] * len(features), axis=1), features, {"score": values}).encode()
    return {"baseline": artifact_store(Settings()).put(made), "baseline_bytes": len(made)}


def consumer(bootstrap: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=20,
    )


@asynccontextmanager
async def producer(bootstrap: str, **options: str) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=bootstrap, **options)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def read_all(bootstrap: str, source: TopicPartition, stop: int | None = None) -> list[list[bytes]]:
    """Return the values of each piece, as they come."""
    async with aclosing(read_back(partial(consumer, bootstrap), source, stop)) as pieces:
        return [[record.value or b"" for record in records] async for records in pieces]


async def make_topic(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()


async def test_a_log_is_read_from_its_end_in_pieces_that_grow(broker: Broker, unique: str) -> None:
    if broker.kind == "kafka":  # the embedded broker makes it on first use
        await make_topic(broker.bootstrap, unique)
    source = TopicPartition(unique, 0)
    values = [b"%d" % number for number in range(5 * FIRST_RECORDS + 3)]
    async with producer(broker.bootstrap) as client:
        for value in values:
            await client.send(unique, value, partition=0)
    pieces = await read_all(broker.bootstrap, source)
    assert [len(piece) for piece in pieces] == [FIRST_RECORDS, 4 * FIRST_RECORDS, 3]
    assert [value for piece in reversed(pieces) for value in piece] == values
    assert await read_all(broker.bootstrap, source, 5) == [values[:5]]
    assert await read_all(broker.bootstrap, source, 0) == []


async def test_commit_markers_and_what_was_aborted_at_the_end_hide_nothing(
    kafka: KafkaServer | RunningKafka, unique: str
) -> None:
    await make_topic(kafka.bootstrap, unique)
    source = TopicPartition(unique, 0)
    async with producer(kafka.bootstrap, transactional_id=unique) as client:
        async with client.transaction():
            await client.send(unique, b"good", partition=0)
        for _ in range(FIRST_RECORDS):  # one record that does not count, and one marker, each
            await client.begin_transaction()
            await client.send_and_wait(unique, b"bad", partition=0)
            await client.abort_transaction()
        assert await read_all(kafka.bootstrap, source) == [[b"good"]]
        await client.begin_transaction()
        await client.send_and_wait(unique, b"open", partition=0)
        async with asyncio.timeout(10):  # it does not wait for a transaction that is under way
            assert await read_all(kafka.bootstrap, source) == [[b"good"]]
        await client.abort_transaction()


@pytest.fixture
def stream(no_settings: None, broker: Broker, unique: str, monkeypatch: pytest.MonkeyPatch) -> StreamSpec:
    """A stream with its topics and windows of 100 events, and no worker."""
    Path("penstock.toml").write_text(f'[streams.{unique}]\nfeatures = ["a"]\ndrift.window_events = 100\n')
    monkeypatch.setenv("ML_KAFKA_BOOTSTRAP", broker.bootstrap)
    assert real_command("topics", "apply", ML_KAFKA_BOOTSTRAP=broker.bootstrap).code == 0
    return StreamSpec(name=unique, features=("a",))


def write(broker: Broker, stream: StreamSpec, topic: str, *events: Event | bytes) -> None:
    async def send() -> None:
        async with producer(broker.bootstrap) as client:
            for event in events:
                value = event if isinstance(event, bytes) else encode(event)
                await client.send_and_wait(f"{stream.name}.{topic}", value, partition=0)

    asyncio.run(send())


def counted(stream: StreamSpec, n: int, baseline: str) -> PartialHistogram:
    return PartialHistogram(
        stream=stream.name,
        baseline=baseline,
        model_id="m1",
        partition=0,
        from_offset=0,
        to_offset=n,
        from_time_ms=0,
        to_time_ms=1,
        n=n,
        columns=(),
    )


def test_the_newest_report_is_shown_as_a_table_and_as_json(
    penstock: Penstock, broker: Broker, stream: StreamSpec
) -> None:
    column = column_of("a", severity="high", psi=0.75, reference=(1.0, 0.0), current=(0.0, 1.0))
    newest = report_of(2, column, severity="high", stream=stream.name)
    write(broker, stream, "drift", report_of(1), newest, b"junk")
    shown = penstock("drift", "show")
    assert shown.code == 0, shown
    assert shown.out.startswith(f"{stream.name}: window 2, 1,000 events from ")
    assert "█·\n" in shown.out
    assert penstock("drift", "show", "--json").document["features"][0]["psi"] == 0.75


def test_where_there_is_no_report_a_sentence_says_why_and_what_to_do(
    penstock: Penstock, broker: Broker, stream: StreamSpec
) -> None:
    def why() -> str:
        ended = penstock("drift", "show")
        assert ended.is_one_sentence(1), ended
        return ended.err

    assert "no model serves" in why()
    parent = version_of(stream, "parent")
    write(broker, stream, "models", parent, replace(version_of(stream, "child"), parent="parent"))
    write(broker, stream, "deployments", deployment_of(stream, "child", 1))
    assert f"`penstock drift baseline child --stream {stream.name} --data FILE`" in why()
    write(broker, stream, "models", replace(parent, baseline="c" * 64, baseline_bytes=1))
    assert "the baseline of parent is no use: " in (missing := why())
    assert "does not exist" in missing
    write(broker, stream, "models", replace(parent, **stored("b")))
    assert "the baseline of parent is no use: the baseline is of other " in why()
    usable = stored("a")
    write(broker, stream, "models", replace(parent, **usable))
    assert "is a worker with the role score running" in why()
    baseline = usable["baseline"]
    write(broker, stream, "histograms", counted(stream, 500, "c" * 64), counted(stream, 40, baseline), b"junk")
    assert "a window is 100 events, of which 40 have been counted; 60 more are needed" in why()
    write(broker, stream, "histograms", counted(stream, 60, baseline))
    assert "is a worker with the role learn running" in why()


def test_a_report_that_says_nothing_of_the_champion_is_shown_with_a_warning(
    penstock: Penstock, broker: Broker, stream: StreamSpec
) -> None:
    def warned() -> str:
        shown = penstock("drift", "show")
        assert shown.code == 0, shown
        assert shown.out.startswith(f"{stream.name}: window 1")
        assert penstock("drift", "show", "--json").document["number"] == 1
        return shown.err

    first, second = stored("a"), stored("a", "b")
    write(broker, stream, "models", replace(version_of(stream, "m1"), **first))
    write(broker, stream, "deployments", deployment_of(stream, "m1", 1))
    write(broker, stream, "drift", report_of(1, stream=stream.name, baseline=first["baseline"]))
    assert warned() == ""
    write(broker, stream, "models", version_of(stream, "m2"))
    write(broker, stream, "deployments", deployment_of(stream, "m2", 2))
    assert "warning: this report is of model m1, and drift is not watched now: its champion m2 has no" in warned()
    write(broker, stream, "models", replace(version_of(stream, "m2"), **second))
    assert "drift is not watched now: the baseline of m2 is no use: the baseline is of other" in warned()
    own = stored("a", rows=60)
    write(broker, stream, "models", replace(version_of(stream, "m2"), **own))
    assert f"champion m2 is measured against another baseline, {own['baseline'][:12]}, and no window" in warned()
