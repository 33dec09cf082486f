"""What every command shares: settings read once, output for people or as JSON, errors as sentences."""

import asyncio
import getpass
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson
from aiokafka.errors import KafkaError

from app.settings import Settings, load_settings
from schemas.errors import SettingsError
from schemas.streams import StreamSpec
from stream.connection import KafkaConnection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """One invocation: where its settings are and how its result is written."""

    config: Path | None
    as_json: bool = False

    def settings(self) -> Settings:
        """Read and check the settings."""
        return load_settings(os.environ, self.config)

    def connection(self, settings: Settings) -> KafkaConnection:
        """Return how to reach Kafka. Raises SettingsError when none is named: a command needs one that lasts."""
        if settings.embedded:
            raise SettingsError(
                "no Kafka is named: set ML_KAFKA_BOOTSTRAP, or start the embedded broker with `penstock dev` "
                "and use the address that it prints"
            )
        return settings.kafka_connection()

    def stream(self, settings: Settings, name: str | None) -> StreamSpec:
        """Return the stream called `name`; without a name, the only one that is declared."""
        known = {spec.name: spec for spec in settings.streams}
        if not known:
            raise SettingsError("no stream is declared: write a [streams.<name>] table, or run `penstock stream init`")
        if name is None and len(known) == 1:
            return next(iter(known.values()))
        if name not in known:
            said = "several streams are declared" if name is None else f"no stream is called {name!r}"
            raise SettingsError(f"{said}: give --stream one of {', '.join(sorted(known))}")
        return known[name]

    def write(self, document: Any, text: Callable[[], str]) -> None:
        """Print `document` as JSON if asked to, else what `text` returns."""
        if self.as_json:
            click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        else:
            click.echo(text())


pass_context = click.make_pass_decorator(Context)


def _say_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.obj = replace(context.obj, as_json=value)


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_say_json, help="Write the result as JSON."
)
stream_option = click.option("--stream", "stream_name", help="The stream; may be left out when there is only one.")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine."""

    async def quietly() -> T:
        asyncio.get_running_loop().set_exception_handler(leave_out_kafka)
        return await work

    return asyncio.run(quietly())


def leave_out_kafka(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what nobody awaited, except Kafka's errors: of a fenced producer, aiokafka keeps futures to itself."""
    if not isinstance(context.get("exception"), KafkaError):
        loop.default_exception_handler(context)


def whoami() -> str:
    """Return user@host: what commands and registrations say of their sender."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def set_up_logging(level: str) -> None:
    """Log to standard error. Faust's and aiokafka's chatter is kept to warnings unless debugging."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s")
    for noisy in ("faust", "mode", "aiokafka", "stream.transport"):
        logging.getLogger(noisy).setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    # At DEBUG this logger prints login requests, with the password in them.
    logging.getLogger("aiokafka.conn").setLevel(logging.INFO)
