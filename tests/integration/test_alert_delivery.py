"""Alerts from the log to receivers, by real workers that are killed, on both brokers; and `penstock sinks test`."""

import asyncio
import base64
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from schemas.events import Alert, DeadLetter, Prediction
from schemas.wire import decode, encode
from tests.command_line import CANARY, real_command
from tests.conftest import Broker
from tests.notifying import alert_of
from tests.receiving import Receiver, mailbox, receiver
from tests.workers import Deployment, Sent, draw, events, eventually, process, train

pytestmark = pytest.mark.usefixtures("no_settings")
SLOWNESS_S = 0.04


def sinks(**tables: str) -> str:
    return "".join(f"\n[sinks.{name}]\n{table}\n" for name, table in tables.items())


def webhook(receiving: Receiver, more: str = "") -> str:
    return f'kind = "webhook"\nurl = "{receiving.url}"\nallow_private = true\nper_minute = 10000\n{more}'


async def slow(_: web.Request) -> web.Response:
    await asyncio.sleep(SLOWNESS_S)
    return web.Response()


async def refuse_every_third(request: web.Request) -> web.Response:
    number = int(request.headers["Idempotency-Key"].removeprefix("a"))
    return web.Response(status=422 if number % 3 == 0 else 200)


@asynccontextmanager
async def deployed(
    broker: Broker, unique: str, folder: Path, session_ms: str, tables: str
) -> AsyncIterator[Deployment]:
    environ = {
        "ML_SINK_HOOK_SECRET": CANARY,
        "ML_SINK_PICKY_SECRET": CANARY,
        "ML_KAFKA_SESSION_TIMEOUT_MS": session_ms,
    }
    deployment = Deployment(broker, unique, folder, environ, tables, **{unique: []})
    await deployment.prepare()
    yield deployment


async def raise_alerts(deployment: Deployment, stream: str, numbers: range) -> None:
    values = [encode(alert_of(number, stream=stream)) for number in numbers]
    await deployment.send(stream, [Sent(0, stream.encode(), value) for value in values], "alerts")


def p99_ms(predictions: list[Prediction]) -> int:
    return sorted(prediction.latency_ms for prediction in predictions)[len(predictions) * 99 // 100]


def accepted(receiving: Receiver) -> Counter[str]:
    return Counter(got.headers["Idempotency-Key"] for got in receiving.got)


async def test_alerts_reach_every_receiver_once_or_are_reported_though_workers_are_killed(
    broker: Broker, unique: str, tmp_path: Path, session_ms: str
) -> None:
    alerts = 45
    async with receiver(slow) as hook, receiver(refuse_every_third) as picky:
        tables = sinks(hook=webhook(hook), picky=webhook(picky))
        async with deployed(broker, unique, tmp_path, session_ms, tables) as deployment:
            await raise_alerts(deployment, unique, range(alerts))
            with process(deployment, "learn") as killed:
                await eventually(lambda: len(hook.got) >= 15)
                killed.kill()
                killed.wait()
            assert len(accepted(hook)) < alerts, "it was killed in the middle"
            with process(deployment, "learn"):
                await eventually(lambda: len(accepted(hook)) == alerts)
                letters = [
                    decode(DeadLetter, record.value)
                    for record in await deployment.records(f"{unique}.alerts.dead", alerts // 3)
                ]
            everyone = {f"a{number}" for number in range(alerts)}
            assert accepted(hook).keys() == everyone == accepted(picky).keys()
            assert accepted(hook).total() <= alerts + 1
            assert accepted(picky).total() <= alerts + 1
            assert CANARY not in f"{letters}"
            refused = {json.loads(base64.b64decode(letter.original_base64))["id"] for letter in letters}
            assert refused == {f"a{number}" for number in range(0, alerts, 3)}
            assert {letter.message for letter in letters} == {"sink picky: 127.0.0.1 refused it with 422"}


async def test_the_stream_goes_on_while_every_sink_hangs_and_no_secret_is_shown(
    broker: Broker, unique: str, tmp_path: Path, session_ms: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "penstock")
    released = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    count, alerts = 400, 1_500
    async with receiver(hang) as hook, receiver() as picky:
        tables = sinks(hook=webhook(hook), picky=webhook(picky))
        async with deployed(broker, unique, tmp_path, session_ms, tables) as deployment:
            async with deployment.worker(["score", "learn"]) as running:
                await deployment.promote(await deployment.register(unique, train(1)))
                await running.ready()
                await deployment.send(unique, events(draw(count)))
                predictions, _ = await deployment.outputs(unique, count)
                without_ms = p99_ms(predictions)
                await raise_alerts(deployment, unique, range(alerts))
                await eventually(lambda: len(hook.got) == 1 and len(picky.got) > 0)
                await deployment.send(unique, events(draw(count)))
                predictions, letters = await deployment.outputs(unique, 2 * count)
                assert (len(predictions), letters) == (2 * count, [])
                newest = sorted(predictions, key=lambda prediction: prediction.scored_time_ms)[count:]
                assert p99_ms(newest) < 2 * without_ms + 2_000, "sinks hang for longer"
                waiting = {"stream": unique, "sink": "hook"}
                registry = running.worker.metrics.registry
                await eventually(lambda: registry.get_sample_value("ml_notifications_waiting", waiting) == 1_000)
                released.set()
                shown = f"{running.worker.health()} {deployment.settings}"
            assert CANARY not in shown + caplog.text


async def test_sinks_test_sends_one_alert_and_says_what_happened(tmp_path: Path) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=403)

    async with receiver() as hook, receiver(refuse) as picky, mailbox() as box:
        mail = (
            f'kind = "email"\nhost = "localhost"\nport = {box.port}\nsecurity = "none"\n'
            'sender = "p@example.com"\nrecipients = ["ops@example.com"]'
        )
        config = tmp_path / "penstock.toml"
        config.write_text(sinks(hook=webhook(hook), picky=webhook(picky), mail=mail, bare=webhook(hook)))
        environ = {
            "ML_CONFIG": str(config),
            "ML_SINK_HOOK_SECRET": CANARY,
            "ML_SINK_PICKY_SECRET": CANARY,
            "ML_LOG_LEVEL": "DEBUG",
        }
        names = ("hook", "mail", "picky", "bare", "nobody")
        done, mailed, refused, bare, unknown = [
            await asyncio.to_thread(
                real_command, "sinks", "test", name, *(["--json"] if name == "hook" else []), **environ
            )
            for name in names
        ]
    assert done.code == 0
    alert = decode(Alert, hook.got[0].body)
    assert alert.severity == "medium"
    assert done.document["alert"]["id"] == alert.id == hook.got[0].headers["Idempotency-Key"]
    assert (mailed.code, len(box.mails)) == (0, 1)
    assert "sink mail took the test alert" in mailed.out
    assert refused.is_refusal("127.0.0.1 refused it with 403")
    assert bare.is_one_sentence(2)
    assert "set ML_SINK_BARE_SECRET" in bare.err
    assert unknown.is_one_sentence(2)
    assert "these are declared: bare, hook, mail, picky" in unknown.err
    assert CANARY not in "".join(f"{ended}" for ended in (done, mailed, refused, bare, unknown))
