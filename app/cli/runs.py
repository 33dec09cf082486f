"""`penstock runs list|show`."""

import click
import msgspec

from app.cli.context import Context, json_option, pass_context, run, stream_option
from app.training_log import events_of_run, newest_runs
from app.training_report import document, list_lines, run_lines


@click.group()
def runs() -> None:
    """Look at training runs: what they are at, and what became of them."""


@runs.command("list")
@stream_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many to show.")
@json_option
@pass_context
def list_command(context: Context, stream_name: str | None, limit: int) -> None:
    """List the newest runs, the one that was at work last at the end; also requests that were skipped."""
    settings = context.settings()
    found = run(newest_runs(context.connection(settings), context.stream(settings, stream_name), limit))
    context.write(msgspec.to_builtins(found), lambda: "\n".join(list_lines(found)) or "There was no run yet.")


@runs.command()
@click.argument("run_id")
@stream_option
@json_option
@pass_context
def show(context: Context, run_id: str, stream_name: str | None) -> None:
    """Show one run: its phases and when each began, the figures, what each gate said, and what was done then.

    Kafka keeps this for four times the stream's retention_hours. What is registered, and its card, stay.
    """
    settings = context.settings()
    events = run(events_of_run(context.connection(settings), context.stream(settings, stream_name), run_id))
    context.write(document(events), lambda: "\n".join(run_lines(events)))
