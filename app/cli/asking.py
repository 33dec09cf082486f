"""What the commands share that ask control: their options, and how its answer is told."""

import secrets
from collections.abc import Callable
from typing import Any, Final

import click
import msgspec

from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.cli.types import NumberType
from app.clock import now_ms
from app.commands import NoAnswer, ask_control
from app.settings import Settings
from app.text import printable
from schemas.errors import PenstockError
from schemas.events import Action, Command
from schemas.streams import StreamSpec

WHO_MAY: Final = (
    "Who asked is what the sender says of itself. Kafka's access rules (ACLs) say who may send commands (a write to "
    "<stream>.commands), register models (to <stream>.models) and write the audit log (<stream>.audit)."
)
reason_option = click.option("--reason", default="", help="Why, for the audit log.")
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=NumberType(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for control's answer.",
)
revision_option = click.option(
    "--expected-revision",
    type=click.IntRange(min=0),
    help="Refuse if the routing is at another revision by then; default: the newest now.",
)


def asks_control(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what each of them needs that asks control for something."""
    for option in (pass_context, json_option, timeout_option, reason_option, stream_option):
        command = option(command)
    return command


def ask(context: Context, stream_name: str | None, timeout_s: float, action: Action, **asked: Any) -> None:
    """Send a command, wait for control's answer and print it. `asked` are further fields of the Command.

    Raises PenstockError when control refuses, with its reason; as JSON the answer is printed, too.
    """
    settings = context.settings()
    ask_for(context, settings, context.stream(settings, stream_name), timeout_s, action, **asked)


def ask_for(
    context: Context, settings: Settings, spec: StreamSpec, timeout_s: float, action: Action, **asked: Any
) -> None:
    """Do as `ask` does, where the settings have been read already."""
    command = Command(
        stream=spec.name,
        action=action,
        issued_by=whoami(),
        issued_time_ms=now_ms(),
        correlation_id=secrets.token_hex(16),
        **asked,
    )
    try:
        answer = run(ask_control(context.connection(settings), spec, command, timeout_s))
    except NoAnswer as error:
        if context.as_json:
            context.write(
                {"outcome": "unanswered", "correlation_id": command.correlation_id, "reason": str(error)}, str
            )
        raise
    said = printable(f"{answer.outcome}: {answer.reason} (revision {answer.revision})")
    refused = answer.outcome == "refused"
    if context.as_json or not refused:
        context.write(msgspec.to_builtins(answer), lambda: said)
    if refused:
        raise PenstockError(f"{said}; nothing was changed")
