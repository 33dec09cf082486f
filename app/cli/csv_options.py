"""The options of the commands that read the rows of a CSV file as a stream's events."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

csv_option = click.option(
    "--csv",
    "csv_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The rows, with the features' names in the header.",
)
event_id_option = click.option("--event-id", default="", help="The column with the id of the event.")


def names_columns(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which column is what."""
    options = (
        click.option("--label", default="", help="The column with the label; default: as `stream init` finds it."),
        click.option("--positive", default="", help="The label that counts as 1, where labels are not 0 and 1."),
        click.option("--entity", default="", help="The column that tells whose event it is."),
        click.option("--time", default="", help="The column with the time of the event."),
    )
    for option in reversed(options):
        command = option(command)
    return command
