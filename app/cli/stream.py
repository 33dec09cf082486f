"""`penstock stream init`."""

from pathlib import Path

import click

from app.cli.context import Context, json_option, pass_context
from app.stream_init import propose_stream
from schemas.errors import PenstockError


@click.group()
def stream() -> None:
    """Declare streams."""


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
