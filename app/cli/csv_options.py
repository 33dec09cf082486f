"""What the commands share that read the rows of a CSV file as a stream's events: options, and what was read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from app.csv_events import NO_LABEL, CsvEvents
from schemas.errors import SettingsError
from schemas.streams import StreamSpec

csv_option = click.option(
    "--csv",
    "csv_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The rows, with the features' names in the header.",
)


def names_columns(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which column is what; else the stream's table `csv` says it."""
    options = (
        click.option("--label", default="", help="The column with the label."),
        click.option("--positive", default="", help="The label that counts as 1, where labels are not 0 and 1."),
        click.option("--event-id", default="", help="The column with the id of the event."),
        click.option("--entity", default="", help="The column that tells whose event it is."),
        click.option("--time", default="", help="The column with the time of the event; UTC where it names no zone."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def require_label(path: Path, spec: StreamSpec, events: CsvEvents) -> None:
    """Raise SettingsError when no column of the file is the label."""
    if events.columns.label:
        return
    if spec.csv.label:
        raise SettingsError(f"{path} has no column {spec.csv.label!r}, the label of stream {spec.name}")
    raise SettingsError(
        f"{path} has no column 'label', and no other is said to be the label: name it with --label, or as `label` in "
        f"[streams.{spec.name}.csv]"
    )


def column_lines(events: CsvEvents, timeless: str) -> Iterator[str]:
    """Yield which columns tell what event it is, whose and when; `timeless` stands where none tells when."""
    yield f"event_id       {events.columns.event_id or 'made of the row'}"
    yield f"entity_id      {events.columns.entity or 'the event itself'}"
    yield f"event_time_ms  {events.columns.time or timeless}"


def label_line(spec: StreamSpec, events: CsvEvents) -> str:
    """Return which column is the label, and of two classes how many rows have the one that counts as 1."""
    labels = events.labels[events.labels != NO_LABEL]
    shares = "" if spec.classes else f", {np.count_nonzero(labels):,} of {len(labels):,} are 1"
    return f"label          {events.columns.label}{shares}"
