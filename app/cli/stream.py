"""`penstock stream init|send|tail`."""

import select
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final, TextIO

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.cli.context import Context, json_option, pass_context, run, stream_option
from app.cli.csv_options import column_lines, csv_option, label_line, names_columns, require_label
from app.cli.types import NumberType
from app.clock import now_ms
from app.csv_events import CsvEvents, read_events
from app.csv_sending import CsvSender, Sent
from app.models import require_topics
from app.stream_init import propose_stream
from app.topic_tail import tail, topic_called
from schemas.errors import PenstockError
from schemas.streams import CsvSpec, StreamSpec
from stream.connection import KafkaConnection
from topics import StreamTopics

RATE: Final = 1_000.0


@click.group()
def stream() -> None:
    """Declare streams, send them the rows of a file, and look at their topics."""


@stream.command()
@click.option("--csv", "csv_path", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="", help="The stream's name; default: after the file.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a new settings file, such as penstock.toml; default: print it.",
)
@json_option
@pass_context
def init(context: Context, csv_path: Path, name: str, output: Path | None) -> None:
    """Propose a stream from a CSV file's columns: which are id, entity, time, label and features, and why.

    It is a proposal: read its comments and correct it.
    """
    proposal = propose_stream(csv_path, name)
    if output is None:
        context.write({"toml": proposal}, lambda: proposal.rstrip("\n"))
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(proposal)
    except FileExistsError as error:
        raise PenstockError(f"{output} exists and was left alone: add what this prints without --output") from error
    except OSError as error:
        raise PenstockError(f"{output} cannot be written: {error.strerror}") from error
    context.write({"toml": proposal, "output": str(output)}, lambda: f"{output} is written: read and correct it.")


@stream.command()
@stream_option
@csv_option
@click.option(
    "--rate",
    type=NumberType(min=0, min_open=True),
    default=RATE,
    show_default=True,
    help="How many rows to send a second.",
)
@click.option("--labels", is_flag=True, help="Also send the label of each row that has one.")
@names_columns
@json_option
@pass_context
def send(
    context: Context,
    stream_name: str | None,
    csv_path: Path,
    rate: float,
    labels: bool,
    label: str,
    positive: str,
    event_id: str,
    entity: str,
    time: str,
) -> None:
    """Send the rows of a CSV file as events, in the order of time, each keyed by its entity.

    What the columns are is in the stream's table `csv`, which `stream init` writes, and is told. Without a column for
    it, the id is made of the row, so that it is the same when the file is sent again; the entity is the event itself;
    the time is now. A label is sent with the time of its event.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    given = CsvSpec(event_id=event_id, entity=entity, time=time, label=label)
    events = read_events(csv_path, spec, given, positive)
    if labels:
        require_label(csv_path, spec, events)
    sender = CsvSender(spec, events, now_ms, labels=labels)
    sent = run(_send(connection, spec, sender, len(events.event_ids), rate))
    context.write(
        {"events": sent.features, "labels": sent.labels, "columns": msgspec.to_builtins(events.columns)},
        lambda: "\n".join(_sent_lines(spec, sent, events, labels)),
    )


async def _send(connection: KafkaConnection, spec: StreamSpec, sender: CsvSender, rows: int, rate: float) -> Sent:
    """Send, with a progress bar on a terminal."""
    await require_topics(connection, spec)
    console = Console(stderr=True)
    columns = (TextColumn("sending"), BarColumn(), TextColumn("{task.completed:,.0f} events"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=rows)
        return await sender.send(connection, rate, lambda sent: bar.update(task, completed=sent.features))


def _sent_lines(spec: StreamSpec, sent: Sent, events: CsvEvents, labels: bool) -> Iterator[str]:
    topics = StreamTopics(spec.name)
    yield from column_lines(events, "the moment of sending")
    if labels:
        yield label_line(spec, events)
    yield f"{sent.features:,} events are in {topics.features}" + (
        f", {sent.labels:,} labels in {topics.labels}" if labels else ""
    )
    yield f"What becomes of them: penstock stream tail predictions --stream {spec.name}"


@stream.command("tail")
@click.argument("topic")
@stream_option
@click.option("-n", "--records", default=10, show_default=True, type=click.IntRange(min=0), help="How many to show.")
@click.option("--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option("--whole", is_flag=True, help="Show the place, time and key of each record, too.")
@pass_context
def tail_command(
    context: Context, topic: str, stream_name: str | None, records: int, follow: bool, whole: bool
) -> None:
    """Show the newest records of a topic of the stream, oldest first: the value of each is a line of JSON.

    TOPIC is a name such as predictions, alerts or features.dead. Only what is committed is shown.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    run(_tail(context.connection(settings), spec, topic_called(spec, topic), records, follow, whole))


async def _tail(
    connection: KafkaConnection, spec: StreamSpec, topic: str, records: int, follow: bool, whole: bool
) -> None:
    await require_topics(connection, spec)
    shown = False
    async with aclosing(tail(connection, topic, records, lambda: follow and _has_reader(sys.stdout))) as found:
        async for placed in found:
            click.echo(placed.line() if whole else placed.value_line())
            shown = True
    if not shown and records:
        click.echo(f"{topic} has no record.", err=True)


def _has_reader(output: TextIO) -> bool:
    """Return False once `output` is a pipe whose reader has gone, as `head` goes when it has seen enough."""
    poll = select.poll()
    poll.register(output, 0)  # what is asked for is nothing; that the other end is closed is told in any case
    return not poll.poll(0)
