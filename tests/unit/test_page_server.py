"""The page's server: what it serves, to whom, and what it does with viewers who go, stay or are foreign."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import psutil
import pytest

from app.page import server as module
from app.page.audience import Audience, Publish
from app.page.server import PageServer
from schemas.errors import SettingsError
from tests.watching import overview_of
from tests.workers import eventually

STREAMS = ("beta", "flights")


async def follow(publish: Publish) -> None:
    """Publish a numbered board each 10 ms."""
    number = 0
    while True:
        number += 1
        publish(overview_of(number, beta="ok", flights="act"))
        await asyncio.sleep(0.01)


async def silent(publish: Publish) -> None:
    publish(overview_of(1, flights="ok"))
    await asyncio.Event().wait()


@asynccontextmanager
async def served(
    audience: Audience | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[aiohttp.ClientSession, Audience]]:
    audience = audience or Audience(follow, lambda: 0, linger_s=0.05)
    server = PageServer(audience, STREAMS)
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
            assert [one["name"] for one in (await answer.json())["streams"]] == list(STREAMS)
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

    async def flood(publish: Publish) -> None:
        while True:
            publish(replace(overview_of(1, flights="ok"), problem="x" * 2_000_000))
            await asyncio.sleep(0.001)

    audience = Audience(flood, lambda: 0, linger_s=0.01)
    server = PageServer(audience, STREAMS)
    address = aiohttp.client.URL(await server.start("127.0.0.1", 0))
    with socket.socket() as viewer:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        viewer.connect((address.host, address.port))
        viewer.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: audience.following)
        await eventually(lambda: not audience.following)
        await eventually(lambda: not connections_of(address.port or 0))
    await server.stop()


def connections_of(port: int) -> list[int]:
    """Return the sockets that this process has connected at a port where it listens."""
    found = psutil.Process().net_connections("tcp")
    return [one.fd for one in found if one.laddr.port == port and one.raddr and one.fd != -1]


async def test_there_is_an_end_to_how_many_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VIEWERS", 1)
    async with served() as (client, _), client.get("/live") as first:
        await read(first.content)
        async with client.get("/live") as second:
            assert second.status == 503


async def test_without_a_document_in_time_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DOCUMENT_S", 0.05)

    async def nothing(publish: Publish) -> None:
        await asyncio.Event().wait()

    async with served(Audience(nothing, lambda: 0)) as (client, _), client.get("/board.json") as answer:
        assert answer.status == 503


async def test_the_end_of_the_server_does_not_wait_for_viewers() -> None:
    server = PageServer(Audience(follow, lambda: 0), STREAMS)
    address = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as client, client.get(f"{address}/live") as answer:
        await read(answer.content)
        async with asyncio.timeout(1):
            await server.stop()


async def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"page_port {port} on 127.0.0.1 cannot be used .*ML_PAGE_PORT"):
            await PageServer(Audience(follow, lambda: 0), STREAMS).start("127.0.0.1", port)


async def test_the_stream_that_is_asked_for_is_answered_and_no_other_name() -> None:
    async with served() as (client, _):
        for stream in STREAMS:
            async with client.get("/board.json", params={"stream": stream}) as answer:
                assert (await answer.json())["stream"]["name"] == stream
        async with client.get("/live", params={"stream": "beta"}) as answer:
            event = await answer.content.readuntil(b"\n\n")
            assert json.loads(event.removeprefix(b"data: "))["stream"]["name"] == "beta"
        for path in ("/board.json", "/live"):
            async with client.get(path, params={"stream": "models"}) as answer:
                assert (answer.status, await answer.text()) == (
                    404,
                    "no stream has this name: there is beta, flights\n",
                )


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
async def test_no_other_site_can_start_the_reading(site: str, status: int) -> None:
    async with served() as (client, audience):
        for path in ("/board.json", "/live"):
            async with client.get(path, headers={"Sec-Fetch-Site": site}) as answer:
                assert answer.status == status
        assert audience.following == (status == 200)


async def test_who_asks_for_headers_only_is_no_viewer() -> None:
    async with served() as (client, audience):
        for path in ("/board.json", "/live"):
            async with client.head(path) as answer:
                assert answer.status in (404, 405)
        assert not audience.following
