"""`penstock sinks test`."""

import time

import click
import msgspec

from app.cli.context import Context, json_option, pass_context, run, whoami
from app.sinks import send_test


@click.group()
def sinks() -> None:
    """Try where alerts go."""


@sinks.command("test")
@click.argument("name")
@json_option
@pass_context
def test_command(context: Context, name: str) -> None:
    """Send one test alert to the sink NAME now, and say what happened.

    It goes from here, past the stream, and is not tried again. Exit code 1: it was refused; 2: the sink could not be
    reached, or its settings are wrong.
    """
    settings = context.settings()
    began = time.monotonic()
    alert = run(send_test(settings, name, whoami()))
    seconds = time.monotonic() - began
    context.write(
        {"sink": name, "alert": msgspec.to_builtins(alert), "seconds": round(seconds, 3)},
        lambda: f"sink {name} took the test alert {alert.id} in {seconds:.1f} s",
    )
