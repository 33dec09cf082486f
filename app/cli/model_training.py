"""`penstock models train`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.cli.csv_options import column_lines, csv_option, label_line, names_columns, require_label
from app.clock import now_ms
from app.csv_events import CsvEvents, read_events
from app.models import register, require_topics
from app.registry import artifact_store, signer
from schemas.errors import SettingsError
from schemas.streams import CsvSpec


@click.command("train")
@stream_option
@csv_option
@names_columns
@json_option
@pass_context
def train_command(
    context: Context,
    stream_name: str | None,
    csv_path: Path,
    label: str,
    positive: str,
    event_id: str,
    entity: str,
    time: str,
) -> None:
    """Train a model on a CSV file of labelled events, test it on the newest fifth, and register it.

    The trainer is the stream's (XGBoost, unless its table `training` says otherwise). What the columns are is in the
    stream's table `csv`, which `stream init` writes. The model comes with its figures and a baseline to measure drift
    against; it is a draft, and serves nobody until it is promoted.
    """
    from app.model_training import train, version_of  # the other commands of models need not wait for trainers
    from app.model_training_report import document, lines

    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    run(require_topics(connection, spec))
    given = CsvSpec(event_id=event_id, entity=entity, time=time, label=label)
    events = read_events(csv_path, spec, given, positive)
    require_label(csv_path, spec, events)
    if positive:
        _require_positive(csv_path, events, positive)
    with _bar() as bar:
        trained = train(spec, events, settings.training_threads, bar)
    store = artifact_store(settings)
    version, note = version_of(spec, trained, store, whoami(), now_ms())
    version = run(register(connection, spec, store, signer(settings), version, trained.fitted.payload))
    context.write(
        msgspec.to_builtins(version) | document(trained) | {"columns": msgspec.to_builtins(events.columns)},
        lambda: "\n".join(
            [
                *column_lines(events, "none: the rows are shuffled"),
                label_line(spec, events),
                *lines(trained),
                *filter(None, [note]),
                f"{version.model_id}\nIt is version {version.version}, and serves after: "
                f"penstock models promote {version.model_id} --stream {spec.name}",
            ]
        ),
    )


def _require_positive(path: Path, events: CsvEvents, positive: str) -> None:
    if not (events.labels == 1).any():
        raise SettingsError(f"{path} has no row whose {events.columns.label!r} is {positive!r}")


@contextmanager
def _bar() -> Iterator["_Bar"]:
    """Show a progress bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("training"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[message]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Bar(progress, progress.add_task("", total=None, message=""))


class _Bar:
    """Watches a fit."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def progress(self, done: int, of: int, loss: float | None = None) -> None:
        """Move the bar."""
        message = f"round {done} of at most {of}" + (f", loss {loss:.4f}" if loss is not None else "")
        self._progress.update(self._task, total=of, completed=done, message=message)

    def keep(self, payload: bytes) -> None:
        """Keep nothing: a fit that is cut short begins anew."""
