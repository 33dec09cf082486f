"""The demo's processes: the environment they get, and that they always end."""

import json
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from app.demo.flights import flights_stream
from app.demo.processes import Child
from app.demo.stage import Stage, set_stage
from app.health import Pages
from app.settings import Settings, load_settings
from schemas.errors import FatalError
from schemas.sinks import Sink, SlackSpec
from stream.metric_values import Metrics
from stream.metrics import JOIN_PENDING

WRITES = "import sys; sys.stdin.read(); print(40 + 2)"
FAILS = "import sys; sys.exit('the disk is full')"
IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def staged(settings: Settings, folder: Path, environ: dict[str, str] | None = None) -> Stage:
    return set_stage(settings, environ or {}, flights_stream(), "127.0.0.1:1", folder)


async def child(folder: Path, code: str) -> Child:
    """Start `code` as a module."""
    (folder / "demo_child.py").write_text(code)
    return await Child.start("child", "demo_child", environment={"PYTHONPATH": str(folder)}, folder=folder, pipes=True)


def test_the_processes_get_the_settings_of_the_demo_and_its_stream(tmp_path: Path) -> None:
    given = Settings(
        kafka_bootstrap="kafka:9093",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_username="ann",
        kafka_sasl_password="secret",
        model_storage_dir="s3://models",
        model_threads=2,
        sinks=(Sink(SlackSpec(name="ops"), "https://hooks.example.com/T0"),),
    )
    stage = set_stage(given, {}, flights_stream(), "kafka:9093", tmp_path)
    settings = load_settings(stage.environment)
    assert settings.kafka_connection() == given.kafka_connection()
    assert (settings.model_storage_dir, settings.model_threads) == ("s3://models", 2)
    assert (settings.streams, settings.sinks) == ((flights_stream(),), ())
    assert settings.metrics_port == stage.health_port


def test_a_worker_of_the_users_own_is_not_in_the_demos_group(tmp_path: Path) -> None:
    assert load_settings(staged(Settings(), tmp_path).environment).kafka_group_prefix == "penstock-demo"


def test_on_the_embedded_broker_models_and_their_key_last_as_long_as_the_demo(tmp_path: Path) -> None:
    first = load_settings(staged(Settings(), tmp_path).environment)
    second = load_settings(staged(Settings(), tmp_path).environment)
    assert Path(first.model_storage_dir).is_relative_to(tmp_path)
    assert len(first.model_signing_key) >= 32
    assert first.model_signing_key != second.model_signing_key


def test_other_variables_are_handed_on_and_penstocks_are_not(tmp_path: Path) -> None:
    environment = staged(
        Settings(), tmp_path, {"PATH": "/bin", "ML_CONFIG": "other", "ML_LOG_LEVEL": "DEBUG"}
    ).environment
    assert environment["PATH"] == "/bin"
    assert "ML_LOG_LEVEL" not in environment
    assert environment["ML_CONFIG"] == str(tmp_path / "penstock.toml")


async def test_a_commands_answer_is_its_output(tmp_path: Path) -> None:
    assert json.loads(await (await child(tmp_path, WRITES)).output(timeout_s=30)) == 42


async def test_a_failed_command_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="child ended with exit code 1:\nthe disk is full"):
        await (await child(tmp_path, FAILS)).output(timeout_s=30)


async def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    started = await child(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(FatalError, match="child took more than"):
        await started.output(timeout_s=0.2)
    assert not psutil.pid_exists(started.process.pid)


async def test_a_child_that_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    started = await child(tmp_path, IGNORES_SIGTERM)
    assert started.process.stdout
    assert await started.process.stdout.readline() == b"ready\n"
    await started.stop(grace_s=0.2)
    assert not psutil.pid_exists(started.process.pid)
    await started.stop(grace_s=0.2)  # again is no error


async def test_a_child_that_ends_when_asked_is_not_killed(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint('up', flush=True)\ntime.sleep(60)"
    )
    started = await child(tmp_path, code)
    assert started.process.stdout
    await started.process.stdout.readline()
    await started.stop(grace_s=20)
    assert started.process.returncode == 7


async def test_a_gauge_is_summed_over_its_labels_and_unknown_without_a_worker(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.set(JOIN_PENDING, 30, "flights", "0")
    metrics.set(JOIN_PENDING, 12, "flights", "1")
    pages = Pages(metrics, lambda: None, dict)
    address = await pages.start("127.0.0.1", 0)
    stage = replace(staged(Settings(), tmp_path), health_port=int(address.rpartition(":")[2]))
    try:
        assert await stage.gauge(JOIN_PENDING.name) == 42
        assert await stage.gauge("ml_join") is None
    finally:
        await pages.stop()
    assert await stage.gauge(JOIN_PENDING.name) is None


async def test_waiting_for_a_worker_that_has_ended_says_why(tmp_path: Path) -> None:
    stage = staged(Settings(), tmp_path)
    worker = await child(tmp_path, FAILS)
    with pytest.raises(FatalError, match="the disk is full"):
        await stage.ready(worker)


def test_the_page_has_a_port_of_its_own_unless_one_is_named(tmp_path: Path) -> None:
    stage = staged(Settings(), tmp_path)
    settings = load_settings(stage.environment)
    assert (settings.page_host, settings.page_port) == ("127.0.0.1", stage.page_port)
    assert stage.page_port not in (stage.health_port, Settings().page_port)
    named = staged(Settings(page_port=9111), tmp_path, {"ML_PAGE_PORT": "9111"})
    assert load_settings(named.environment).page_port == 9111
    assert named.page == "http://127.0.0.1:9111/"


def test_a_page_port_of_0_is_a_free_one_whose_address_is_known(tmp_path: Path) -> None:
    stage = staged(Settings(page_port=0), tmp_path, {"ML_PAGE_PORT": "0"})
    assert stage.page_port > 0
    assert load_settings(stage.environment).page_port == stage.page_port
    assert stage.page == f"http://127.0.0.1:{stage.page_port}/"


async def test_whether_there_is_a_page_is_what_the_worker_answers(tmp_path: Path) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html>")

    served = web.Application()
    served.router.add_get("/", page)
    for application, expected in ((served, True), (web.Application(), False)):
        runner = web.AppRunner(application)
        await runner.setup()
        stage = staged(Settings(), tmp_path)
        await web.TCPSite(runner, "127.0.0.1", stage.page_port).start()
        assert await stage.has_page() == expected
        await runner.cleanup()
        assert not await stage.has_page()
