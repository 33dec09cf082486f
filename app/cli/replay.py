"""`penstock replay`."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from agents.replay.question import SERVED, Question, Span
from app.backtest import Answered, Progress, backtest
from app.backtest_document import document_of
from app.backtest_report import lines_of
from app.cli.context import Context, json_option, pass_context, run, stream_option
from app.cli.types import NumberType, TimeType, require_order
from app.settings import Settings
from app.what_if import changed
from schemas.errors import PenstockError
from stream.connection import KafkaConnection


@click.command()
@stream_option
@click.option("--from", "from_ms", type=TimeType(), help="Replay events from this time on; default: all that is held.")
@click.option("--to", "to_ms", type=TimeType(), help="Replay events before this time.")
@click.option(
    "--model", default=SERVED, show_default=True, help="The model that scores everything; served: each what it scored."
)
@click.option("--learner", help="A learner of the stream, whose snapshots serve instead as soon as there is one.")
@click.option("--threshold", type=NumberType(), help="Decide by this threshold instead of the stream's.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replay with another setting of the stream's table, such as drift.min_psi=0.2; may be repeated.",
)
@json_option
@pass_context
def replay(
    context: Context,
    stream_name: str | None,
    from_ms: int | None,
    to_ms: int | None,
    model: str,
    learner: str | None,
    threshold: float | None,
    settings: tuple[str, ...],
) -> None:
    """Run history again through the very code of the stream, and compare with what was served. Nothing is written.

    Times are those of the events. Labels become visible when they did. What Kafka has forgotten comes from the archive,
    which has labelled events only. With --model served, exit code 1 when a score is not the one that was logged (to the
    bit; within 1e-12 for 64-bit scores), or one that served could not be computed again; a shadow need not be kept.
    """
    require_order(from_ms, to_ms, "--from", "--to")
    known = context.settings()
    spec = context.stream(known, stream_name)
    question = Question(
        spec=spec,
        changed=changed(spec, settings, threshold),
        span=Span(from_ms, to_ms),
        model=model,
        learner=learner,
    )
    with _quiet():
        answered = run(_answer(context.connection(known), known, question))
    document = document_of(answered, settings)
    context.write(document, lambda: "\n".join(lines_of(document)))
    _require_same(answered)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the judges would log: it is in the report."""
    ours = logging.getLogger("penstock")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(level)


async def _answer(connection: KafkaConnection, settings: Settings, question: Question) -> Answered:
    """Replay, with a progress bar on a terminal; say on standard error how fast it was."""
    console = Console(stderr=True)
    columns = (
        TextColumn("replaying"),
        BarColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TimeRemainingColumn(),
    )
    moments_s: list[float] = []
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, events=0)

        def follow(progress: Progress) -> None:
            moments_s.append(time.monotonic())
            bar.update(task, total=progress.of, completed=progress.records, events=progress.events)

        answered = await backtest(connection, settings, question, follow)
    took_s = moments_s[-1] - moments_s[0]
    events = answered.served.events
    rate = f": {events / took_s:,.0f} events/s" if took_s else ""
    click.echo(f"replayed {events:,} events in {took_s:.1f} s{rate}", err=True)
    return answered


def _require_same(answered: Answered) -> None:
    compared = answered.served.compared
    wrong = sum(one.different for one in compared.values())
    lost = sum(one.not_executed for whose, one in compared.items() if not whose.shadow)
    if wrong or lost:
        raise PenstockError(
            f"{wrong:,} scores came out other than they were logged, and {lost:,} served ones could not be computed "
            "again; "
            "the report says of which models"
        )
