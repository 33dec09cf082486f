"""Webhooks and Slack, against real servers that take alerts, fail, redirect, and stand at private addresses."""

import asyncio
import hashlib
import hmac
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.clock import now_ms
from schemas.errors import PenstockError
from schemas.sinks import SlackSpec, WebhookSpec
from schemas.wire import encode
from stores.sinks import LaterError, SlackSender, Undeliverable, WebhookSender
from tests.notifying import alert_of
from tests.receiving import Answer, receiver

DOCS = Path(__file__).parents[2] / "docs" / "sinks.md"
KEY = "canary-b71e-a-secret-key"
ALERT = alert_of(1, message="a <b> & c", subject="line\r\nBcc: everybody@example.com")


def webhook(url: str, **fields: Any) -> WebhookSender:
    spec = WebhookSpec(name="hook", url=url, **({"allow_private": True} | fields))
    return WebhookSender(spec, KEY, lambda: 1_700_000_000_999, total_s=1.0)


def answers(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return answer


async def test_a_webhook_gets_the_alert_with_its_id_as_the_key_and_a_signature() -> None:
    async with receiver() as receiving:
        await webhook(receiving.url).send(ALERT)
    [got] = receiving.got
    assert got.body == encode(ALERT)
    assert got.headers["Idempotency-Key"] == "a1"
    assert got.headers["Content-Type"] == "application/json"
    mac = hmac.new(KEY.encode(), b"1700000000." + got.body, hashlib.sha256).hexdigest()
    assert got.headers["Penstock-Signature"] == f"t=1700000000,v1={mac}"
    assert KEY not in repr(got)


async def test_slack_gets_a_message_in_which_nothing_is_a_link_or_a_mention() -> None:
    async with receiver() as receiving:
        sender = SlackSender(SlackSpec(name="ops", allow_private=True), receiving.url + "/T0/canary")
        await sender.send(alert_of(1, message="<!channel> & <https://example.com|x>"))
    [got] = receiving.got
    assert got.path == "/alerts/T0/canary"
    assert b"&lt;!channel&gt; &amp; &lt;https://example.com|x&gt;" in got.body
    assert b"<" not in got.body


@pytest.mark.parametrize("status", [400, 401, 404, 410])
async def test_a_refusal_is_final(status: int) -> None:
    async with receiver(answers(status)) as receiving:
        with pytest.raises(Undeliverable, match=f"refused it with {status}"):
            await webhook(receiving.url).send(ALERT)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_what_may_pass_is_for_later_with_what_the_receiver_asks_for(status: int) -> None:
    async with receiver(answers(status, Retry_After="17")) as receiving:
        with pytest.raises(LaterError, match=str(status)) as caught:
            await webhook(receiving.url).send(ALERT)
    assert caught.value.after_s == 17.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_final_and_nothing_goes_there(status: int) -> None:
    async with receiver() as target, receiver(answers(status, Location=target.url)) as receiving:
        with pytest.raises(Undeliverable, match="redirect"):
            await webhook(receiving.url).send(ALERT)
        assert target.got == []


async def test_a_receiver_that_hangs_costs_no_more_than_the_time_limit() -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60.0)
        return web.Response()

    started = time.monotonic()
    async with receiver(hang) as receiving:
        with pytest.raises(LaterError, match="did not answer within 1 s"):
            await webhook(receiving.url).send(ALERT)
    assert time.monotonic() - started < 3.0


async def test_a_name_server_that_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(_: int) -> list[str]:
        released.wait(30.0)
        raise socket.gaierror

    resolves(monkeypatch, hang)
    async with receiver() as receiving:
        hanging = [webhook(receiving.url.replace("127.0.0.1", "rebound.example.com")) for _ in range(40)]
        sending = [asyncio.create_task(sender.send(ALERT)) for sender in hanging]
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await asyncio.to_thread(time.sleep, 0.0)
        await webhook(receiving.url).send(ALERT)
        assert time.monotonic() - started < 0.7
        released.set()
        errors = await asyncio.gather(*sending, return_exceptions=True)
    assert len(receiving.got) == 1
    assert all(isinstance(error, LaterError) for error in errors)


async def test_a_body_without_an_end_is_not_waited_for() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(600):
            await response.write(b"x" * 100_000)
            await asyncio.sleep(0.1)
        return response

    async with receiver(drip) as receiving:
        await webhook(receiving.url).send(ALERT)


async def test_a_receiver_that_breaks_off_or_is_not_there_is_for_later() -> None:
    async def break_off(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with receiver(break_off) as receiving:
        with pytest.raises(LaterError, match="broke off"):
            await webhook(receiving.url).send(ALERT)
    with pytest.raises(LaterError, match="could not be reached"):
        await webhook(receiving.url).send(ALERT)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "10.0.0.1", "169.254.169.254"]
)
async def test_a_private_address_is_refused_and_nothing_is_sent_to_it(host: str) -> None:
    async with receiver() as receiving:
        port = receiving.url.rpartition(":")[2]
        with pytest.raises(Undeliverable, match="not public"):
            await webhook(f"http://{host}:{port}", allow_private=False).send(ALERT)
        assert receiving.got == []


async def test_a_name_that_points_inside_is_refused_also_if_one_of_its_addresses_is_public(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves(monkeypatch, lambda _: ["93.184.215.14", "127.0.0.1"])
    async with receiver() as receiving:
        with pytest.raises(Undeliverable, match=r"the address of rebound.example.com is not public"):
            await webhook(receiving.url.replace("127.0.0.1", "rebound.example.com"), allow_private=False).send(ALERT)
        assert receiving.got == []


async def test_the_connection_goes_to_the_address_that_was_looked_at_and_no_name_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = resolves(monkeypatch, lambda times: ["127.0.0.1"] if times == 1 else ["192.0.2.1"])
    async with receiver() as receiving:
        await webhook(receiving.url.replace("127.0.0.1", "rebound.example.com")).send(ALERT)
    [got] = receiving.got
    assert got.headers["Host"].startswith("rebound.example.com")
    assert asked == ["rebound.example.com"]


async def test_no_proxy_of_the_environment_gets_an_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as proxy, receiver() as receiving:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/alerts"))
        await webhook(receiving.url).send(ALERT)
        assert (len(receiving.got), proxy.got) == (1, [])


def test_a_process_ends_though_a_name_server_hangs() -> None:
    script = """
import asyncio, socket, time
from schemas.errors import PenstockError
from schemas.sinks import WebhookSpec
from stores.sinks import WebhookSender
from tests.notifying import alert_of

socket.getaddrinfo = lambda *_, **__: time.sleep(60)
sender = WebhookSender(WebhookSpec(name="hook", url="https://x.example.com"), "k", lambda: 0, total_s=0.2)
try:
    asyncio.run(sender.send(alert_of(1)))
except PenstockError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=DOCS.parents[1], capture_output=True, text=True, timeout=30.0, check=True
    )
    assert done.stdout == "x.example.com did not answer within 0.2 s\n"


async def test_no_failure_shows_the_secret_url_of_slack(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def said(url: str, **fields: Any) -> str:
        spec = SlackSpec(name="ops", **({"allow_private": True} | fields))
        with pytest.raises(PenstockError) as caught:
            await SlackSender(spec, url, total_s=1.0).send(ALERT)
        return str(caught.value)

    seen = []
    for status in (302, 403, 500):
        async with receiver(answers(status, Location=f"http://127.0.0.1/{KEY}")) as receiving:
            seen.append(await said(f"{receiving.url}/{KEY}"))
    seen.append(await said(f"{receiving.url}/{KEY}"))  # where nobody listens any more
    seen.append(await said(f"https://127.0.0.1/{KEY}", allow_private=False))
    seen.append(await said(f"https://no-such-host.invalid/{KEY}"))
    assert len(set(seen)) == 6
    logged = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]  # the receiver's
    assert KEY not in " ".join(seen + logged)


async def test_a_name_that_is_not_known_is_for_later() -> None:
    with pytest.raises(LaterError, match="could not be resolved"):
        await webhook("https://no-such-host.invalid/alerts", allow_private=False).send(ALERT)


async def test_what_the_page_shows_checks_signatures_and_passes_alerts_on_to_alertmanager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    shown: dict[str, Any] = {"__name__": "shown"}
    for block in blocks:
        exec(block, shown)
    async with receiver() as alertmanager, receiver(shown["take"]) as relay:
        monkeypatch.setenv("ALERTMANAGER", alertmanager.url.removesuffix("/alerts"))
        monkeypatch.setenv("SECRET", KEY)
        spec = WebhookSpec(name="hook", url=relay.url, allow_private=True)
        await WebhookSender(spec, KEY, now_ms).send(ALERT)
        with pytest.raises(Undeliverable, match="401"):
            await WebhookSender(spec, "another key", now_ms).send(ALERT)
        with pytest.raises(Undeliverable, match="401"):
            await WebhookSender(spec, KEY, lambda: now_ms() - 301_000).send(ALERT)
    [got] = alertmanager.got
    [alert] = json.loads(got.body)
    assert got.path == "/api/v2/alerts"
    assert alert["labels"] == {
        "alertname": "Penstock_drift",
        "stream": "flights",
        "severity": "high",
        "subject": ALERT.subject,
    }
    assert alert["annotations"] == {"summary": ALERT.message, "description": ALERT.recommendation}


def resolves(monkeypatch: pytest.MonkeyPatch, addresses: Callable[[int], list[str]]) -> list[str]:
    """Let `rebound.example.com` have `addresses`, by how often it was asked for; return the list of the askings."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebound.example.com":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in addresses(len(asked))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked
