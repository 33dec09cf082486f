"""The live page of a worker, and of `penstock page`, on either broker."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.clock import now_ms
from app.embedded import EmbeddedBroker
from app.page import following
from app.page.audience import Audience
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.connection import KafkaConnection
from tests.command_line import PROGRAM, Penstock, free_port, without_settings
from tests.conftest import Broker
from tests.drifting import alert_of
from tests.workers import PATIENCE_S, Deployment, Sent, document, draw, events, placed, train

Seen = Callable[[Any], bool]


@pytest.fixture
def deployment(broker: Broker, unique: str, tmp_path: Path) -> Deployment:
    environ = {"ML_PAGE_PORT": str(free_port()), "ML_MODEL_STORAGE_DIR": str(tmp_path / "store")}
    return Deployment(broker, unique, tmp_path, environ, **{unique: []})


async def board(client: aiohttp.ClientSession) -> Any:
    async with client.get("/board.json") as answer:
        assert answer.status == 200
        return await answer.json()


async def until(client: aiohttp.ClientSession, seen: Seen) -> Any:
    """Follow /live until a document shows what is waited for; return that."""
    found = None
    try:
        async with asyncio.timeout(PATIENCE_S), client.get("/live") as answer:
            while found is None or not seen(found):
                line = await answer.content.readuntil(b"\n\n")
                if line.startswith(b"data: "):
                    found = json.loads(line.removeprefix(b"data: "))
    except TimeoutError:
        pytest.fail(f"the page does not show it: {found}")
    return found


@asynccontextmanager
async def page_of(deployment: Deployment) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S, sock_read=PATIENCE_S)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{deployment.settings.page_port}", timeout=timeout) as client:
        yield client


def readers() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "page"]


@asynccontextmanager
async def worker_of(deployment: Deployment, **settings: Any) -> AsyncIterator[ModelVersion]:
    """A worker that scores; gives its champion."""
    (stream,) = deployment.streams
    champion = (await deployment.prepare(**{stream: train(1)}))[stream]
    async with deployment.worker(**settings) as running:
        await deployment.promote(champion)
        await running.ready()
        yield champion


async def test_a_worker_shows_what_goes_on_and_reads_nothing_before_somebody_looks(
    deployment: Deployment, unique: str
) -> None:
    async with worker_of(deployment) as champion:
        good = list(events(draw(200)))
        spoilt = placed(document(200, [0.5, 0.25, 0.125]))
        await deployment.send(unique, [*good, spoilt._replace(value=b"{<script>")])
        await deployment.outputs(unique, 201)
        assert not readers()
        async with page_of(deployment) as client:
            shown = await board(client)
            stream = shown["stream"]
            assert [one["name"] for one in shown["streams"]] == [unique]
            assert readers() == ["page"]
            assert (stream["name"], stream["models"]["champion"]["model_id"]) == (unique, champion.model_id)
            assert (stream["flow"]["lag"], stream["labels"]["pending"], stream["state"]["level"]) == (0, 200, "ok")
            assert stream["dead_letters"]["reasons"] == {"malformed_json": 1}
            assert stream["dead_letters"]["examples"][0]["original"] == "{<script>"
            assert [moment["what"] for moment in stream["timeline"]] == ["promoted", "registered"]

            alert = encode(alert_of("a", stream=unique, subject="a", raised_time_ms=5))
            await deployment.send(unique, [Sent(0, unique.encode(), alert)], topic="alerts")
            await deployment.send(unique, list(events(draw(300, seed=1), first=1_000)))
            shown = await until(
                client,
                lambda found: (
                    found["stream"]["state"]["level"] == "act"
                    and found["stream"]["flow"]["lag"] == 0
                    and sum(point[2] for point in found["stream"]["flow"]["history"]) > 0
                ),
            )
            flow = shown["stream"]["flow"]
            assert 0 <= flow["latency_p50_ms"] <= flow["latency_p99_ms"] < 30_000
            assert shown["stream"]["labels"]["pending"] == 500
            assert shown["stream"]["alerts"][0]["subject"] == "a"
            assert shown["problem"] == ""


async def test_a_worker_whose_port_is_taken_goes_on_without_a_page(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with worker_of(deployment, page_port=port):
            pass
    (said,) = [record.message for record in caplog.records if "no page" in record.message]
    assert f"page_port {port} on 127.0.0.1 cannot be used" in said


async def test_the_page_alone_says_what_is_missing_and_goes_on_by_itself_when_it_is_there(
    broker: Broker, deployment: Deployment
) -> None:
    command = [PROGRAM, "--config", deployment.config, "page", "--port", str(deployment.settings.page_port)]
    page = await asyncio.create_subprocess_exec(
        *command, env=without_settings() | deployment.environ, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert page.stdout is not None
        said = await asyncio.wait_for(page.stdout.readline(), PATIENCE_S)
        assert f":{deployment.settings.page_port} " in said.decode()
        async with page_of(deployment) as client:
            if broker.kind == "kafka":
                assert "more do not exist: run `penstock topics apply`" in (await board(client))["problem"]
            await deployment.prepare()
            shown = await until(client, lambda found: found["stream"] and not found["problem"])
            assert shown["streams"][0]["state"]["level"] == shown["stream"]["state"]["level"] == "act"
            assert shown["stream"]["labels"]["pending"] is None
        page.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(page.wait(), 10) == 0
    finally:
        if page.returncode is None:
            page.kill()
            await page.wait()


async def test_a_viewer_is_told_that_the_broker_has_gone_and_nothing_of_it_stays_open(
    embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 2.0)
    spec = StreamSpec(name="flights", features=("a",))
    reading = following.Following(KafkaConnection(bootstrap=embedded.bootstrap), [spec], now_ms, lambda stream: None)
    audience = Audience(reading.run, now_ms)
    async with audience.watching() as viewer, asyncio.timeout(PATIENCE_S):
        assert b'"problem":""' in (await viewer.next() or b"")
        caplog.clear()
        embedded.close()
        problems = set()
        while len(problems) < 2:
            document = json.loads(await viewer.next() or b"")
            assert [stream["name"] for stream in document["streams"]] == ["flights"]  # what was known is still shown
            problems |= {document["problem"]} - {""}
    assert all(problem.startswith("Kafka at 127.0.0.1:") for problem in problems)
    assert len([record for record in caplog.records if "Unable connect" in record.message]) < 40  # two tries a second
    await audience.close()


def test_the_page_alone_wants_a_stream_and_a_kafka(penstock: Penstock) -> None:
    assert penstock("page").is_one_sentence(2)
    ended = penstock("page", ML_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert ended.is_one_sentence(2)
    assert "no stream is declared" in ended.err
