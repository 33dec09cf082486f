"""Where the demo plays: an address, an environment for its processes, and the commands run in it."""

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from app.demo.processes import Child
from app.settings import CONFIG_VARIABLE, Settings
from app.stream_init import stream_toml
from schemas.errors import FatalError
from schemas.streams import StreamSpec

_HOST: Final = "127.0.0.1"
_PAGE_PORT: Final = "ML_PAGE_PORT"
_COMMAND_TIMEOUT_S: Final = 60.0
_READY_TIMEOUT_S: Final = 60.0
_READY_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that the demo's processes share. `folder` is temporary; the two ports are the worker's."""

    bootstrap: str
    folder: Path
    environment: Mapping[str, str]
    health_port: int
    page_port: int

    @property
    def page(self) -> str:
        """Where the worker serves the live page."""
        return f"http://{_HOST}:{self.page_port}/"

    async def start(self, name: str, *arguments: str, pipes: bool = False) -> Child:
        """Start `python -m <arguments>` as the child called `name`."""
        return await Child.start(name, *arguments, environment=self.environment, folder=self.folder, pipes=pipes)

    async def command(self, *arguments: str) -> Any:
        """Run `penstock <arguments> --json` and return what it answers; FatalError with its words when it fails."""
        child = await self.start(f"penstock {' '.join(arguments[:2])}", "app.cli", *arguments, "--json", pipes=True)
        return json.loads(await child.output(_COMMAND_TIMEOUT_S))

    async def ready(self, worker: Child) -> None:
        """Wait until the worker has partitions and a champion. Raises FatalError when it ends or takes too long."""
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                while not await self._healthy():
                    if not worker.running:
                        raise worker.failure()
                    await asyncio.sleep(_READY_POLL_S)
        except TimeoutError:
            raise FatalError(f"the worker was not ready after {_READY_TIMEOUT_S:g} s") from None

    async def gauge(self, name: str) -> float | None:
        """Return what the worker's `/metrics` say of a gauge, summed over its labels; None when they say nothing."""
        lines = (await _answer(self.health_port, "/metrics")).decode().splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        return sum(values) if values else None

    async def has_page(self) -> bool:
        """Return whether the worker serves the live page: it does not where the port was taken."""
        return _is_good(await _answer(self.page_port, "/"))

    async def _healthy(self) -> bool:
        return _is_good(await _answer(self.health_port, "/health"))


async def deploy_champion(stage: Stage, model: Path, training_rows: Path, stream: str) -> str:
    """Register the model file with a baseline of its training rows (CSV) and make it the champion; return its id.

    Needs a running worker.
    """
    files = ("--file", str(model), "--baseline-data", str(training_rows))
    registered = await stage.command("models", "register", "--stream", stream, *files)
    model_id: str = registered["model_id"]
    await stage.command("models", "promote", model_id, "--stream", stream)
    return model_id


def set_stage(
    settings: Settings, environ: Mapping[str, str], stream: StreamSpec, bootstrap: str, folder: Path
) -> Stage:
    """Return a stage for `stream` at `bootstrap`: these settings for every process, the demo's own where it must.

    The worker's group is the demo's own, and its ports are free ones, but for a page's that ML_PAGE_PORT names and
    that is not 0. On the embedded broker, which forgets everything, models stay in `folder`.
    """
    config = folder / "penstock.toml"
    config.write_text(stream_toml(stream))
    health_port, page_port = _free_ports(2)
    if _PAGE_PORT in environ and settings.page_port:
        page_port = settings.page_port
    chosen = {
        **_changed(settings),
        "kafka_bootstrap": bootstrap,
        "kafka_group_prefix": f"{settings.kafka_group_prefix}-demo",
        "metrics_host": _HOST,
        "metrics_port": str(health_port),
        "page_host": _HOST,
        "page_port": str(page_port),
    }
    if settings.embedded:
        chosen |= {
            "model_storage_dir": str(folder / "artifacts"),
            "model_signing_key": secrets.token_hex(32),
        }
    outside = {name: value for name, value in environ.items() if not name.startswith("ML_")}
    environment = outside | {f"ML_{name.upper()}": value for name, value in chosen.items()}
    environment[CONFIG_VARIABLE] = str(config)
    return Stage(
        bootstrap=bootstrap, folder=folder, environment=environment, health_port=health_port, page_port=page_port
    )


def _changed(settings: Settings) -> dict[str, str]:
    """Return the settings that are not at their default, as an environment spells them; tables are left out."""
    return {
        field.name: str(getattr(settings, field.name))
        for field in fields(settings)
        if field.name not in ("streams", "sinks") and getattr(settings, field.name) != field.default
    }


async def _answer(port: int, path: str) -> bytes:
    """Return the worker's answer, status line and all; empty when it does not answer."""
    try:
        reader, writer = await asyncio.open_connection(_HOST, port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {_HOST}:{port}\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()
    except OSError:
        return b""


def _is_good(answer: bytes) -> bool:
    return b" 200 " in answer.partition(b"\r\n")[0]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((_HOST, 0))
        return [listener.getsockname()[1] for listener in listeners]
