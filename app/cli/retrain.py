"""`penstock retrain`."""

import secrets
from typing import Final

import click
import msgspec
from rich.console import Console

from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.cli.types import NumberType
from app.clock import now_ms
from app.models import require_topics
from app.training_log import NotEnded, send_and_follow, send_request
from app.training_report import outcome_lines
from app.training_view import View, view_on
from schemas.errors import PenstockError
from schemas.events import RetrainRequest
from schemas.runs import BECAUSE, Outcome, TrainingEvent
from schemas.streams import StreamSpec
from stream.connection import KafkaConnection

EXIT_CODES: Final[dict[Outcome, int]] = {"accepted": 0, "failed": 1, "rejected": 3, "skipped": 4}
NOT_ENDED: Final = 5


@click.command(
    epilog=(
        "With --wait the exit code tells the outcome: 0 accepted, 1 failed (no model was made; the champion stays), "
        "3 rejected (a model is registered, and did not pass its gates), 4 skipped, 5 not ended in time."
    )
)
@stream_option
@click.option("--reason", default="", help="Why; it stands with the run, and in the card.")
@click.option("--wait", is_flag=True, help="Show the run until it ends. Ctrl-C ends the watching only.")
@click.option(
    "--timeout",
    "timeout_s",
    type=NumberType(min=0, min_open=True),
    help="Seconds to wait for the end; default: as long as it takes.",
)
@json_option
@pass_context
def retrain(context: Context, stream_name: str | None, reason: str, wait: bool, timeout_s: float | None) -> None:
    """Ask for a new model, trained on the stream's newest samples.

    A request by hand always counts. While a run is at work it waits, together with any others, for the next one. A
    worker with the role train carries it out.
    """
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    request = _request(spec, reason)
    connection = context.connection(settings)
    if not wait:
        run(_send(connection, spec, request))
        context.write(
            msgspec.to_builtins(request),
            lambda: f"asked for a new model of stream {spec.name}; `penstock runs list` shows what becomes of it",
        )
        return
    ended = _watch(context, connection, spec, request, timeout_s)
    context.write(msgspec.to_builtins(ended), lambda: "\n".join(outcome_lines(ended)))
    assert ended.outcome is not None
    raise click.exceptions.Exit(EXIT_CODES[ended.outcome])


def _request(spec: StreamSpec, reason: str) -> RetrainRequest:
    if spec.training is None:
        raise PenstockError(
            f"stream {spec.name} is not trained: write a table [streams.{spec.name}.training] in penstock.toml, "
            "and start the worker again"
        )
    return RetrainRequest(
        id=secrets.token_hex(16),
        stream=spec.name,
        reason="manual",
        evidence={BECAUSE: reason} if reason else {},
        requested_time_ms=now_ms(),
        requested_by=whoami(),
    )


async def _send(connection: KafkaConnection, spec: StreamSpec, request: RetrainRequest) -> None:
    await require_topics(connection, spec)
    await send_request(connection, request)


def _watch(
    context: Context, connection: KafkaConnection, spec: StreamSpec, request: RetrainRequest, timeout_s: float | None
) -> TrainingEvent:
    """Send the request and show its run on standard error, so that the outcome alone is on standard output."""

    async def follow(view: View) -> TrainingEvent:
        await require_topics(connection, spec)
        return await send_and_follow(
            connection,
            request,
            view.show,
            lambda: view.say("nothing is told of the run yet: does a worker with the role train run?"),
            timeout_s=timeout_s,
        )

    try:
        with view_on(Console(stderr=True)) as view:
            return run(follow(view))
    except NotEnded as error:
        if context.as_json:
            context.write({"outcome": "not_ended", "request_id": request.id, "reason": str(error)}, str)
        click.echo(f"penstock: {error}", err=True)
        raise click.exceptions.Exit(NOT_ENDED) from error
