"""`penstock models train|register|list|show|compare|card|promote|rollback|shadow|unshadow|move|archive`."""

from pathlib import Path
from typing import Any, Final, get_args

import click
import msgspec

from agents.baselines import baseline_of_rows
from agents.registering import describe_model
from app.baselines import with_baseline
from app.cli.asking import WHO_MAY, ask, asks_control, revision_option
from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.cli.model_training import train_command
from app.cli.types import NamedValueType, TimeType, VersionType, require_order
from app.clock import now_ms
from app.csv_columns import read_matrix
from app.model_cards import TEXT, read_card, write_card
from app.model_tables import comparison, comparison_lines, description, description_lines, list_lines, routing_of
from app.models import RegistryView, read_registry, register
from app.registry import artifact_store, signer
from app.text import printable_lines
from ml.models.registry import model_type
from schemas.events import Status
from stores.documents import Documents

STATUSES: Final = get_args(Status)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
model_argument = click.argument("model_id")


@click.group(epilog=WHO_MAY)
def models() -> None:
    """Register models and choose which one serves, and which ones score beside it.

    Every change is a command that control carries out or refuses; `penstock audit` shows both.
    """


models.add_command(train_command)


@models.command("register")
@stream_option
@click.option("--file", "path", required=True, type=_FILE, help="The model file.")
@click.option("--algorithm", default="xgboost", show_default=True, help="The name of the model's entry point.")
@click.option(
    "--version", "number", default="", type=VersionType(), help="Its semantic version; default: the next one."
)
@click.option(
    "--metric", "metrics", multiple=True, type=NamedValueType(numbers=True), help="A figure of it; repeatable."
)
@click.option("--parameter", "parameters", multiple=True, type=NamedValueType(), help="A setting of it; repeatable.")
@click.option("--training-from", type=TimeType(), help="The event time of the oldest row that it learnt from.")
@click.option("--training-to", type=TimeType(), help="The event time at which what it learnt from ends.")
@click.option(
    "--baseline-data",
    type=_FILE,
    help="The rows that it was trained on, to measure drift against: CSV, with the features' names in its header.",
)
@json_option
@pass_context
def register_command(
    context: Context,
    stream_name: str | None,
    path: Path,
    algorithm: str,
    number: str,
    metrics: tuple[tuple[str, float], ...],
    parameters: tuple[tuple[str, Any], ...],
    training_from: int | None,
    training_to: int | None,
    baseline_data: Path | None,
) -> None:
    """Store, sign and register a model file (XGBoost: UBJ). The file is opened: it must be one that you trust.

    It is a draft at first. The first number of its version stands for the features and the algorithm, the second for
    the model, the third for a learner's snapshot.
    """
    require_order(training_from, training_to, "--training-from", "--training-to")
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    payload = path.read_bytes()
    store = artifact_store(settings)
    version = msgspec.structs.replace(
        describe_model(spec, payload, algorithm, whoami(), now_ms(), dict(metrics), dict(parameters)),
        version=number,
        training_from_time_ms=training_from,
        training_to_time_ms=training_to,
    )
    if baseline_data is not None:
        model = model_type(algorithm).load(payload)
        made = baseline_of_rows(spec, model, read_matrix(baseline_data, spec.features))
        version = with_baseline(version, store, made)
    version = run(register(connection, spec, store, signer(settings), version, payload))
    context.write(
        msgspec.to_builtins(version),
        lambda: (
            f"{version.model_id}\nIt is version {version.version}, and serves after: "
            f"penstock models promote {version.model_id} --stream {spec.name}"
        ),
    )


@models.command("list")
@stream_option
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeatable.")
@click.option("--all", "with_pruned", is_flag=True, help="Also those that were pruned: their files are deleted.")
@json_option
@pass_context
def list_command(context: Context, stream_name: str | None, statuses: tuple[Status, ...], with_pruned: bool) -> None:
    """List the stream's models, oldest first.

    The champion is marked with *, the other variants of an experiment with ~, shadows with +, and what a roll-back
    would bring back with <.
    """
    registry = _registry(context, stream_name)
    shown = [v for v in registry.models if (with_pruned or not v.pruned) and v.status in (statuses or STATUSES)]
    rows = [routing_of(version, registry) | msgspec.to_builtins(version) for version in shown]
    context.write(rows, lambda: "\n".join(list_lines(shown, registry)) or "No model is registered.")


@models.command()
@model_argument
@stream_option
@json_option
@pass_context
def show(context: Context, model_id: str, stream_name: str | None) -> None:
    """Show everything that is recorded of one model, and how it came to its status: when, by whom and why."""
    registry = _registry(context, stream_name)
    document = description(registry.find(model_id), registry)
    context.write(document, lambda: "\n".join(description_lines(document)))


@models.command()
@click.argument("first")
@click.argument("second")
@stream_option
@json_option
@pass_context
def compare(context: Context, first: str, second: str, stream_name: str | None) -> None:
    """Show two models side by side: figures with their difference, and all else in which they differ."""
    registry = _registry(context, stream_name)
    one, other = registry.find(first), registry.find(second)
    context.write(comparison(one, other), lambda: "\n".join(comparison_lines(one, other)))


@models.command("card")
@model_argument
@stream_option
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write it with its plots to this folder."
)
@json_option
@pass_context
def card_command(context: Context, model_id: str, stream_name: str | None, folder: Path | None) -> None:
    """Show a model's card, in Markdown: what it was trained on, how good it is, what its gates said, its limits.

    Models that a training run made have one, whether they passed or not.
    """
    version = _registry(context, stream_name).find(model_id)
    files = read_card(Documents(context.settings().model_storage_dir), version)
    text = files[TEXT].decode(errors="replace")
    document = {"model_id": model_id, "files": list(files), "card": text}
    if folder is None:
        context.write(document, lambda: printable_lines(text.rstrip("\n")))
    else:
        write_card(files, folder)
        context.write(
            document | {"folder": str(folder)}, lambda: f"{folder / TEXT}, and {len(files) - 1} files beside it"
        )


@models.command("promote")
@model_argument
@revision_option
@asks_control
def promote_command(context: Context, stream_name: str | None, timeout_s: float, **asked: Any) -> None:
    """Make a model the champion. It is no shadow then; the other shadows stay.

    The one that it replaces stays ready for a roll-back. A variant of the experiment that runs may be promoted, too,
    which ends that. Asks control, waits for its answer and prints it; exit code 1 when refused.
    """
    ask(context, stream_name, timeout_s, "promote", **asked)


@models.command("rollback")
@revision_option
@asks_control
def rollback_command(context: Context, stream_name: str | None, timeout_s: float, **asked: Any) -> None:
    """Bring the champion before this one back, at once. It ends any experiment.

    Afterwards no learner's snapshot takes its place by itself, until a model is promoted. Asks control, as `promote`
    does.
    """
    ask(context, stream_name, timeout_s, "rollback", **asked)


@models.command("shadow")
@model_argument
@revision_option
@asks_control
def shadow_command(context: Context, stream_name: str | None, timeout_s: float, **asked: Any) -> None:
    """Let a model score every event beside the champion, for comparison; at most 8 at a time.

    A shadow of the same lineage makes room for it. Asks control, as `promote` does.
    """
    ask(context, stream_name, timeout_s, "shadow", **asked)


@models.command("unshadow")
@model_argument
@revision_option
@asks_control
def unshadow_command(context: Context, stream_name: str | None, timeout_s: float, **asked: Any) -> None:
    """End what `shadow` began. Asks control, as `promote` does."""
    ask(context, stream_name, timeout_s, "unshadow", **asked)


@models.command("move")
@model_argument
@click.argument("status", type=click.Choice(STATUSES))
@asks_control
def move_command(context: Context, stream_name: str | None, timeout_s: float, **asked: Any) -> None:
    """Give a model another status. `production` is for `promote` and `rollback` to give and to take.

    What is archived can be restored to staging only; what serves or shadows cannot be archived. Asks control, as
    `promote` does.
    """
    ask(context, stream_name, timeout_s, "move", **asked)


@models.command("archive")
@model_argument
@asks_control
def archive_command(context: Context, stream_name: str | None, timeout_s: float, **asked: Any) -> None:
    """Put a model away: `move MODEL_ID archived`. Its record and its file stay.

    Only files of a learner's snapshots that never served are deleted in time.
    """
    ask(context, stream_name, timeout_s, "move", status="archived", **asked)


def _registry(context: Context, stream_name: str | None) -> RegistryView:
    settings = context.settings()
    return run(read_registry(context.connection(settings), context.stream(settings, stream_name)))
