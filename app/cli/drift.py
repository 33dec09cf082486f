"""`penstock drift baseline|show`."""

from io import StringIO
from pathlib import Path

import click
import msgspec

from agents.baselines import baseline_of_rows
from agents.shelf import ModelShelf
from app.baselines import newest_rows, record_baseline
from app.cli.context import Context, json_option, pass_context, run, stream_option
from app.csv_columns import read_matrix
from app.drift_report import newest_report, render, why_none, why_outdated
from app.models import read_registry
from app.registry import artifact_store, model_opener
from app.settings import Settings
from ml.drift.baseline import Baseline
from schemas.drift import DriftReport
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from stream.connection import KafkaConnection


@click.group()
def drift() -> None:
    """Say what a model's events are measured against, and look at how far they have drifted."""


@drift.command()
@click.argument("model_id")
@stream_option
@click.option(
    "--data",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The rows that the model was trained on: CSV, with the features' names in its header.",
)
@click.option("--events", type=click.IntRange(min=1), help="Instead, take so many of the newest scored events.")
@json_option
@pass_context
def baseline(context: Context, model_id: str, stream_name: str | None, path: Path | None, events: int | None) -> None:
    """Make the baseline of a registered model, in the place of one that it may have.

    The model scores the rows, so that its predictions are watched, too. Workers take the baseline up at once.
    """
    if (path is None) == (events is None):
        raise click.UsageError("give either --data FILE or --events N")
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    version, rows = run(_make(context.connection(settings), settings, spec, model_id, path, events or 0))
    fewer = f" (there were no more, of {events:,} asked for)" if events is not None and rows < events else ""
    context.write(
        msgspec.to_builtins(version) | {"rows": rows},
        lambda: (
            f"{version.model_id} is measured against the baseline {version.baseline} from now on, "
            f"made of {rows:,} rows{fewer}"
        ),
    )


async def _make(
    connection: KafkaConnection, settings: Settings, spec: StreamSpec, model_id: str, path: Path | None, events: int
) -> tuple[ModelVersion, int]:
    """Return the model's record with its baseline, and of how many rows that was made."""
    version = (await read_registry(connection, spec)).find(model_id)
    model = await ModelShelf(model_opener(settings), settings.model_memory_bytes).get(spec, version)
    matrix = read_matrix(path, spec.features) if path is not None else await newest_rows(connection, spec, events)
    made = baseline_of_rows(spec, model, matrix)
    column = Baseline.decode(made).columns[0]
    version = await record_baseline(connection, artifact_store(settings), spec, model_id, made)
    return version, column.n + column.missing


@drift.command()
@stream_option
@json_option
@pass_context
def show(context: Context, stream_name: str | None) -> None:
    """Show the newest drift report of a stream; where there is none yet, say why."""
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    report, outdated = run(_newest(context.connection(settings), settings, spec))

    def text() -> str:
        out = StringIO()
        render(report, out)
        return out.getvalue()

    context.write(msgspec.to_builtins(report), text)
    if outdated:
        click.echo(f"warning: {outdated}", err=True)


async def _newest(connection: KafkaConnection, settings: Settings, spec: StreamSpec) -> tuple[DriftReport, str]:
    report = await newest_report(connection, spec)
    if report is None:
        raise PenstockError(await why_none(connection, settings, spec))
    return report, await why_outdated(connection, settings, spec, report)
