"""Views in a real Redis: what is in it, and that it may be flushed, killed, stopped, or something else altogether."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from agents.views import KEPT_MS, Fold, Views
from app.embedded_redis import EmbeddedRedis, RedisMissing, open_views
from app.local_checks import check_redis
from app.settings import Settings
from schemas.drift import ColumnDrift, DriftReport
from schemas.errors import PenstockError, SettingsError
from schemas.events import Alert
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stores.views import RedisViews, View, ViewsUnavailable
from stream import metrics as m
from stream.batches import Outbox, Record, TopicPartition
from stream.metric_values import Metrics
from tests.command_line import CANARY, Penstock, free_port
from tests.drifting import alert_of, column_of, report_of
from tests.redis_server import RedisServer
from tests.support import Entry, batch

DRIFT = TopicPartition("flights.drift", 0)
ALERTS = TopicPartition("flights.alerts", 0)
SPEC = StreamSpec(name="flights", features=("distance",))
PATIENCE_S = 15.0


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url, decode_responses=True)
    yield client
    await client.aclose()


@asynccontextmanager
async def running(url: str) -> AsyncIterator[tuple[Views, Metrics]]:
    """The stage at work, which looks after its views ten times a second."""

    async def nothing(source: TopicPartition, stop: int | None) -> AsyncGenerator[Sequence[Record], None]:
        for records in ():
            yield records

    views, metrics = RedisViews(url, timeout_s=0.5), Metrics()
    stage = Views(SPEC, nothing, views, metrics, lambda: int(time.time() * 1000), check_s=0.1)
    await stage.open({})
    try:
        yield stage, metrics
    finally:
        await stage.close()
        await views.close()


async def take(stage: Views, offset: int) -> None:
    """Let the stage read report and alert number `offset`."""
    stamp = int(time.time() * 1000)
    report = report_of(offset, column_of("distance", psi=offset / 10, mean=None))
    await stage.process(batch(DRIFT, [Entry(offset, encode(report), timestamp=stamp)]), Outbox())
    await stage.process(batch(ALERTS, [Entry(offset, encode(alert_of(f"a{offset}")), timestamp=stamp)]), Outbox())


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not (seen := await look()):  # noqa: ASYNC110  # nobody tells when
            await asyncio.sleep(0.02)
    return seen


async def shown(client: Redis, number: int) -> None:
    """Wait until Redis shows report `number` and all alerts up to it."""

    async def look() -> bool:
        value = await client.get("drift:stats:flights")
        alerts = await client.keys("drift:alert:flights:*")
        names = {f"drift:alert:flights:a{n}" for n in range(number + 1)}
        return value is not None and decode(DriftReport, value.encode()).number == number and set(alerts) == names

    await eventually(look)


def failures(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value(m.VIEW_FAILURES.name, {"stream": "flights"}) or 0.0


async def test_the_newest_report_and_the_alerts_are_there_to_look_up(server: RedisServer, client: Redis) -> None:
    async with running(server.url) as (stage, metrics):
        await take(stage, 0)
        await take(stage, 1)
        await shown(client, 1)
        assert await client.hgetall("drift:stats:flights:feature:distance") == {
            "number": "1",
            "to_time_ms": "1999999",
            "judged": "1",
            "severity": "none",
            "psi": "0.1",
            "ks": "0.02",
            "p_value": "1.0",
            "wasserstein_scaled": "0.03",
            "n": "1000",
            "missing_share": "0.0",
            "unseen_share": "0.0",
        }
        assert await client.hget("drift:stats:flights:prediction:score", "severity") == "none"
        alert = await client.get("drift:alert:flights:a1")
        assert decode(Alert, alert.encode()) == alert_of("a1")
        assert KEPT_MS - 60_000 < await client.pttl("drift:alert:flights:a1") <= KEPT_MS
        assert failures(metrics) == 0


def showing(number: int, *columns: ColumnDrift) -> View:
    """What the stage shows after report `number`."""
    fold = Fold("flights")
    fold.take(DRIFT, [Entry(number, encode(report_of(number, *columns)))], number + 1)
    return fold.view()


async def test_a_figure_that_is_null_now_does_not_stay_from_before(server: RedisServer, client: Redis) -> None:
    async with asyncio_views(server.url) as views:
        before = None
        for number, mean in enumerate((1.5, None)):
            now = showing(number, column_of("distance", mean=mean))
            await views.show("flights", before, now, 0)
            before = now
    assert "mean" not in await client.hgetall("drift:stats:flights:feature:distance")


async def test_a_feature_that_is_no_longer_declared_goes_with_the_next_report(
    server: RedisServer, client: Redis
) -> None:
    async with asyncio_views(server.url) as views:
        before = showing(0, column_of("distance"))
        await views.show("flights", None, before, 0)
        after = showing(1, column_of("kilometres"))
        keys = {"drift:stats:flights:feature:kilometres", "drift:stats:flights:prediction:score"}
        for written in (before, None):
            await views.show("flights", written, after, 0)
            assert set(await client.keys("drift:stats:flights:*")) == keys
            await client.set("drift:stats:flights:feature:distance", "what somebody else wrote")


@asynccontextmanager
async def asyncio_views(url: str) -> AsyncIterator[RedisViews]:
    views = RedisViews(url)
    try:
        yield views
    finally:
        await views.close()


async def test_views_come_back_after_a_flush(server: RedisServer, client: Redis) -> None:
    async with running(server.url) as (stage, _):
        await take(stage, 0)
        await shown(client, 0)
        await client.flushall()
        await shown(client, 0)
        await client.flushall()
        await take(stage, 1)
        await shown(client, 1)


async def test_views_come_back_after_a_kill_and_a_restart_and_the_stage_goes_on_meanwhile(
    server: RedisServer, client: Redis
) -> None:
    async with running(server.url) as (stage, metrics):
        await take(stage, 0)
        await shown(client, 0)
        server.kill()
        await eventually(lambda: asyncio.sleep(0, failures(metrics) >= 2))
        await take(stage, 1)
        server.start()
        await client.connection_pool.disconnect()  # the connection of this test died, too
        await shown(client, 1)


async def test_a_server_that_hangs_is_given_up_in_time_and_the_views_follow_when_it_goes_on(
    server: RedisServer, client: Redis
) -> None:
    async with running(server.url) as (stage, metrics):
        await take(stage, 0)
        await shown(client, 0)
        server.pause()
        try:
            await take(stage, 1)
            await eventually(lambda: asyncio.sleep(0, failures(metrics) >= 1))
            started = time.monotonic()
            await stage.close()
            assert time.monotonic() - started < 3
        finally:
            server.resume()
        await stage.open({})
        await take(stage, 2)
        await eventually(lambda: client.exists("drift:alert:flights:a2"))


async def test_where_nothing_listens_the_stage_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://:{CANARY}@127.0.0.1:{free_port()}/0"
    async with running(url) as (stage, metrics):
        for number in range(5):
            await take(stage, number)
        await eventually(lambda: asyncio.sleep(0, failures(metrics) >= 2))
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"-ERR unknown command `AUTH`, with args beginning with: `" + CANARY.encode() + b"`\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*-7\r\n",
        b"",
    ],
)
async def test_what_is_no_redis_is_a_failure_in_one_line_without_the_password(answer: bytes) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(answer)
        writer.close()

    stranger = await asyncio.start_server(reply, "127.0.0.1", 0)
    port = stranger.sockets[0].getsockname()[1]
    async with stranger, asyncio_views(f"redis://:{CANARY}@127.0.0.1:{port}") as views:
        with pytest.raises(ViewsUnavailable) as caught:
            await views.probe()
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert_no_canary(caught.value)


def assert_no_canary(error: PenstockError) -> None:
    assert CANARY not in repr(error)
    assert "\n" not in str(error)
    error.__traceback__ = None  # its lines are those of this test
    assert CANARY not in "".join(traceback.format_exception(error))  # nor does an error below it


async def test_a_wrong_password_is_a_failure_that_does_not_show_it(server: RedisServer) -> None:
    async with asyncio_views(f"redis://:{CANARY}-wrong@127.0.0.1:{server.port}") as views:
        with pytest.raises(ViewsUnavailable, match=r"invalid.*password") as caught:
            await views.probe()
    assert_no_canary(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://{CANARY}@host",
        f"redis://:{CANARY}/x@host:6379",
        f"redis://user:1/{CANARY}@host:6379",
        f"redis://user:1#{CANARY}@host:6379",
        f"redis://user:1?{CANARY}@host:6379",
        f"redis://[{CANARY}",
        f"redis://host:{CANARY}",
        f"redis://host?socket_timeout={CANARY}",
        CANARY,
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="redis_url is no address of Redis") as caught:
        RedisViews(url)
    assert_no_canary(caught.value)


async def test_the_doctor_probes_the_redis_that_is_named(server: RedisServer, client: Redis) -> None:
    [found] = await check_redis(Settings(redis_url=server.url))
    assert found.status == "ok"
    assert f"127.0.0.1:{server.port}" in found.sentence
    assert await client.keys("*") == []
    server.kill()
    with pytest.raises(ViewsUnavailable):
        await check_redis(Settings(redis_url=server.url))
    server.start()


def test_the_doctor_shows_no_password(penstock: Penstock, server: RedisServer) -> None:
    for url in (server.url, f"redis://:{CANARY}-wrong@127.0.0.1:{server.port}", f"redis://:{CANARY}/@host"):
        ended = penstock("doctor", "--json", ML_REDIS_URL=url, ML_METRICS_PORT="0")
        [finding] = [finding for finding in ended.document if finding["subject"] == "redis"]
        assert finding["status"] == ("ok" if url == server.url else "problem")
        assert CANARY not in ended.out + ended.err


async def test_without_an_address_there_is_an_embedded_redis_and_the_log_says_where(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock.redis")
    async with open_views(Settings()) as views:
        assert views is not None
        assert await views.probe()
        [sentence] = [record.message for record in caplog.records]
        assert views.address in sentence
        folder = Path(views.address).parent
        assert folder.stat().st_mode & 0o077 == 0  # nobody else gets in
    assert not folder.exists()


async def test_without_the_binary_there_are_no_views_and_one_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> Path:
        raise RedisMissing("there is none here")

    monkeypatch.setattr("app.embedded_redis.redis_server", missing)
    async with open_views(Settings()) as views:
        assert views is None
    assert [record.message for record in caplog.records] == ["the stream goes on without views: there is none here"]


async def test_an_embedded_redis_that_dies_is_started_again(server: RedisServer) -> None:
    with EmbeddedRedis() as embedded:
        async with asyncio_views(embedded.url) as views:
            client = Redis.from_url(embedded.url)
            killed = (await client.info("server"))["process_id"]
            kept = await client.config_get("*")
            assert (kept["save"], kept["appendonly"], kept["port"]) == ("", "no", "0")
            assert kept["maxmemory"] == str(64 * 2**20)
            await client.aclose()
            os.kill(killed, signal.SIGKILL)

            async def back() -> bool:
                try:
                    return bool(await views.probe())
                except ViewsUnavailable:
                    return False

            await eventually(back)


def test_an_embedded_redis_ends_with_a_parent_that_is_killed(server: RedisServer) -> None:
    script = (
        "import time; from app.embedded_redis import EmbeddedRedis; redis = EmbeddedRedis(); "
        "print(redis.url, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent, parent.stdout:
        socket = Path(parent.stdout.readline().strip().removeprefix("unix://"))
        assert socket.exists()
        parent.kill()
    give_up = time.monotonic() + PATIENCE_S
    while socket.parent.exists() or is_running(socket):
        assert time.monotonic() < give_up, "it outlives its parent"
        time.sleep(0.02)


def is_running(socket: Path) -> bool:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return str(socket) in listed
