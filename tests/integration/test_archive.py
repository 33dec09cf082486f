"""The archive on both brokers: samples become files exactly once, and archive and log together are the history."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from agents.archive.history import SampleHistory
from schemas.wire import encode
from stores.archive import Archive
from stream import admin
from stream.batches import TopicPartition
from tests.archiving import DAY_MS, NOON_MS
from tests.conftest import Broker
from tests.support import sample_of
from tests.workers import Deployment, Sent, eventually, process

CHUNK = 100


@pytest.fixture
async def deployment(broker: Broker, session_ms: str, unique: str, tmp_path: Path) -> Deployment:
    """A stream whose chunks are of 100 samples, with its topics."""
    stream = f"{unique}-flights"
    tables = f"[streams.{stream}.archive]\nsamples = {CHUNK}\n"
    environ = {"ML_KAFKA_SESSION_TIMEOUT_MS": session_ms}
    deployment = Deployment(broker, unique, tmp_path, environ, tables, **{stream: []})
    await admin.apply(deployment.connection, deployment.topics)
    return deployment


@pytest.fixture
def stream(deployment: Deployment) -> str:
    [stream] = deployment.streams
    return stream


async def send(deployment: Deployment, stream: str, numbers: range, days: int = 3) -> None:
    """Write samples as the join does; their events are spread over `days`."""
    samples = [
        sample_of(i, event_time_ms=NOON_MS + i + i % days * DAY_MS, features=(float(i), None, 0.5)) for i in numbers
    ]
    await deployment.send(stream, [Sent(0, stream.encode(), encode(sample)) for sample in samples], "samples")


def rows_of(deployment: Deployment, columns: list[str]) -> list[tuple[object, ...]]:
    """Return the rows of all files as they lie there, whoever they are of."""
    paths = [path for path in files_of(deployment) if path.suffix == ".parquet"]
    tables = [pq.ParquetFile(path).read(columns=columns) for path in paths]
    return sorted(tuple(row[name] for name in columns) for table in tables for row in table.to_pylist())


def files_of(deployment: Deployment) -> list[Path]:
    root = Path(deployment.settings.model_storage_dir) / "archive"
    return sorted(path for path in root.rglob("*") if path.is_file())


@asynccontextmanager
async def history_of(deployment: Deployment, stream: str) -> AsyncIterator[SampleHistory]:
    def open_consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=deployment.connection.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=20,
        )

    archive = Archive(deployment.settings.model_storage_dir)
    yield SampleHistory(deployment.streams[stream], archive, open_consumer)


def archived(deployment: Deployment, samples: int) -> Callable[[], bool]:
    return lambda: len(rows_of(deployment, ["offset"])) >= samples


async def test_full_chunks_go_to_files_and_the_history_has_each_sample_once(
    deployment: Deployment, stream: str
) -> None:
    async with history_of(deployment, stream) as history:
        assert (await history.read()).num_rows == 0
        async with deployment.worker(["learn"]):
            await send(deployment, stream, range(150))
            await send(deployment, stream, range(150, 250))
            await eventually(archived(deployment, 200))
        events = [row[0] for row in rows_of(deployment, ["event_id"])]
        assert sorted(events) == sorted(f"e{i}" for i in range(200))
        whole = await history.read()
        assert whole["event_id"].to_pylist() == [f"e{i}" for i in range(250)]
        assert whole["f_a"].to_pylist() == [float(i) for i in range(250)]
        offsets = whole["offset"].to_pylist()
        assert offsets == sorted(set(offsets))
        assert await history.end() > offsets[-1]
        middle_day = await history.read(
            from_ms=NOON_MS + DAY_MS, to_ms=NOON_MS + DAY_MS + 220, stop_offset=offsets[240], columns=["event_id"]
        )
        assert middle_day.column_names == ["event_id"]
        assert middle_day["event_id"].to_pylist() == [f"e{i}" for i in range(1, 220, 3)]
        assert (await history.read(stop_offset=offsets[120]))["offset"].to_pylist() == offsets[:120]
        _add_strays(deployment, stream)
        assert await history.read() == whole


def _add_strays(deployment: Deployment, stream: str) -> None:
    """Put a copy of a file beside it, and one of a chunk that was never committed."""
    archive = Archive(deployment.settings.model_storage_dir)
    log = files_of(deployment)[0].parts[-3].removeprefix("log=")
    file = archive.files(stream, log)[0]
    table = archive.read([file])
    archive.write(replace(file, stop=file.stop - 1), table)
    archive.write(replace(file, stop=10_000), table.set_column(0, "offset", pa.array(range(-table.num_rows, 0))))


async def test_a_worker_killed_in_the_middle_of_a_chunk_leaves_an_archive_that_the_next_one_completes(
    deployment: Deployment, stream: str
) -> None:
    await send(deployment, stream, range(250), days=CHUNK)  # a file for each sample
    for files in (30, 130):
        with process(deployment, "learn") as killed:
            await eventually(lambda files=files: len(files_of(deployment)) >= files)  # type: ignore[misc]
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        assert len(rows_of(deployment, ["offset"])) % CHUNK, "it was killed between two chunks"
    with process(deployment, "learn"):
        await eventually(lambda: len([path for path in files_of(deployment) if path.suffix == ".parquet"]) >= 200)
        async with history_of(deployment, stream) as history:
            found = (await history.read())["event_id"].to_pylist()
    assert found == [f"e{i}" for i in range(250)]
    assert [row[0] for row in rows_of(deployment, ["event_id"])] == sorted(f"e{i}" for i in range(200))
    assert {path.suffix for path in files_of(deployment)} == {".parquet"}


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)  # the embedded one cannot be told to forget
async def test_what_kafka_has_forgotten_is_in_the_archive(deployment: Deployment, stream: str) -> None:
    await send(deployment, stream, range(250))
    async with deployment.worker(["learn"]), history_of(deployment, stream) as history:
        await eventually(archived(deployment, 200))
        before = await _when_committed(history, deployment, stream)
        kafka = AIOKafkaAdminClient(bootstrap_servers=deployment.connection.bootstrap)
        await kafka.start()
        topic = TopicPartition(f"{stream}.samples", 0)
        await kafka.delete_records({topic: RecordsToDelete(before["offset"][200].as_py())})
        await kafka.close()
        assert await history.read() == before
    assert before["event_id"].to_pylist() == [f"e{i}" for i in range(250)]


async def _when_committed(history: SampleHistory, deployment: Deployment, stream: str) -> pa.Table:
    """Return the history once the checkpoint of the second chunk is there."""
    source = TopicPartition(f"{stream}.samples", 0)
    offsets = (await history.read())["offset"].to_pylist()
    async with asyncio.timeout(20):
        while True:
            newest = await history._memory.newest({source: offsets[-1] + 1})
            if newest is not None and newest.offsets[source.topic] > offsets[199]:
                return await history.read()
            await asyncio.sleep(0.05)
