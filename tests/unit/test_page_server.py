"""The page's server: what it serves, to whom, and what it does with viewers who go, stay or are foreign."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from app.page import server as module
from app.page.audience import Audience
from app.page.document import Board
from app.page.server import PageServer
from schemas.errors import SettingsError
from tests.workers import eventually


async def follow(publish: Callable[[Board], None]) -> None:
    """Publish a numbered board each 10 ms."""
    number = 0
    while True:
        number += 1
        publish(Board(generated_time_ms=number, streams=()))
        await asyncio.sleep(0.01)


async def silent(publish: Callable[[Board], None]) -> None:
    publish(Board(generated_time_ms=1, streams=()))
    await asyncio.Event().wait()


@asynccontextmanager
async def served(
    audience: Audience | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[aiohttp.ClientSession, Audience]]:
    audience = audience or Audience(follow, lambda: 0, linger_s=0.05)
    server = PageServer(audience)
    address = await server.start(host, 0)
    try:
        async with aiohttp.ClientSession(address.replace("0.0.0.0", "127.0.0.1")) as client:
            yield client, audience
    finally:
        await server.stop()


async def read(stream: aiohttp.StreamReader) -> tuple[str, int]:
    """Return the kind of the next event, and the number of its board."""
    line = await stream.readuntil(b"\n\n")
    kind, _, rest = line.decode().partition(":")
    return kind, json.loads(rest)["generated_time_ms"] if kind == "data" else 0


async def test_the_page_comes_with_headers_that_keep_it_to_itself() -> None:
    async with served() as (client, audience), client.get("/") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'")
        assert "unsafe" not in policy
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not audience.following


async def test_nothing_outside_the_static_files_is_served() -> None:
    async with served() as (client, _):
        for path in ("/document.py", "/../document.py", "/%2e%2e/document.py", "/vendor/", "/nothing"):
            async with client.get(aiohttp.client.URL(path, encoded=True)) as answer:
                assert answer.status in (403, 404), path
        async with client.post("/board.json") as answer:
            assert answer.status == 405


async def test_the_document_is_there_at_the_first_request_and_is_not_to_be_kept() -> None:
    async with served() as (client, audience):
        async with client.get("/board.json") as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            assert answer.headers["Cache-Control"] == "no-store"
            assert (await answer.json())["streams"] == []
        await asyncio.sleep(0.2)
        assert not audience.following


@pytest.mark.parametrize(
    ("host", "asked", "status"),
    [
        ("127.0.0.1", "localhost:9110", 200),
        ("127.0.0.1", "127.0.0.1", 200),
        ("127.0.0.1", "[::1]:9110", 200),
        ("127.0.0.1", "LOCALHOST", 200),
        ("127.0.0.1", "evil.example:9110", 403),
        ("127.0.0.1", "127.0.0.1.evil.example", 403),
        ("127.0.0.1", "192.0.2.7:9110", 403),
        ("127.0.0.1", "", 403),
        ("localhost", "localhost", 200),
        ("localhost", "evil.example", 403),
        ("0.0.0.0", "192.0.2.7:9110", 200),
        ("0.0.0.0", "evil.example:9110", 403),
    ],
)
async def test_only_who_asks_for_the_host_where_it_listens_is_answered(host: str, asked: str, status: int) -> None:
    async with served(host=host) as (client, _):
        for path in ("/", "/board.json"):
            async with client.get(path, headers={"Host": asked}) as answer:
                assert answer.status == status


async def test_a_viewer_gets_document_after_document_and_reading_ends_when_it_has_gone() -> None:
    async with served() as (client, audience):
        async with client.get("/live") as answer:
            assert answer.content_type == "text/event-stream"
            found = [await read(answer.content) for _ in range(3)]
            assert [kind for kind, _ in found] == ["data"] * 3
            assert found[0][1] < found[1][1] < found[2][1]
            assert audience.following
        await eventually(lambda: not audience.following)


async def test_a_viewer_of_what_does_not_change_hears_that_the_page_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)
    async with served(Audience(silent, lambda: 0)) as (client, _), client.get("/live") as answer:
        assert [(await read(answer.content))[0] for _ in range(3)] == ["data", "", ""]


async def test_a_viewer_who_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOWEST_S", 0.1)

    async def flood(publish: Callable[[Board], None]) -> None:
        while True:
            publish(Board(generated_time_ms=1, streams=(), problem="x" * 2_000_000))
            await asyncio.sleep(0.001)

    audience = Audience(flood, lambda: 0, linger_s=0.01)
    async with served(audience) as (client, _), client.get("/live") as answer:
        assert answer.status == 200
        await eventually(lambda: audience.following)
        await eventually(lambda: not audience.following)


async def test_there_is_an_end_to_how_many_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VIEWERS", 1)
    async with served() as (client, _), client.get("/live") as first:
        await read(first.content)
        async with client.get("/live") as second:
            assert second.status == 503


async def test_without_a_document_in_time_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DOCUMENT_S", 0.05)

    async def nothing(publish: Callable[[Board], None]) -> None:
        await asyncio.Event().wait()

    async with served(Audience(nothing, lambda: 0)) as (client, _), client.get("/board.json") as answer:
        assert answer.status == 503


async def test_the_end_of_the_server_does_not_wait_for_viewers() -> None:
    server = PageServer(Audience(follow, lambda: 0))
    address = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as client, client.get(f"{address}/live") as answer:
        await read(answer.content)
        async with asyncio.timeout(1):
            await server.stop()


async def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"page_port {port} on 127.0.0.1 cannot be used .*ML_PAGE_PORT"):
            await PageServer(Audience(follow, lambda: 0)).start("127.0.0.1", port)
