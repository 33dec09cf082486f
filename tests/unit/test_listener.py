"""Listening at an address that a setting names."""

import socket

import pytest
from aiohttp import ClientSession, web

from app.health import Pages
from app.listener import listen
from schemas.errors import SettingsError
from stream.metric_values import Metrics


@pytest.mark.parametrize(("host", "begin"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
async def test_the_address_is_one_that_answers_also_of_ipv6(host: str, begin: str) -> None:
    pages = Pages(Metrics(), lambda: None, lambda: {"ready": True, "alive": True})
    address = await pages.start(host, 0)
    try:
        async with ClientSession() as client, client.get(f"{address}/health/live") as answer:
            assert (address.startswith(begin), answer.status) == (True, 200)
    finally:
        await pages.stop()


async def test_a_port_that_is_taken_is_a_sentence_that_names_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runner = web.AppRunner(web.Application())
        with pytest.raises(SettingsError, match=f"^page_port {port} on 127.0.0.1 .* set ML_PAGE_PORT; 0 takes any"):
            await listen(runner, "127.0.0.1", port, "page_port")
        assert not runner.sites
        assert runner.server is None
