"""`penstock models register|list|show|promote|shadow|unshadow`."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from app.baselines import baseline_of_rows, with_baseline
from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.csv_columns import read_matrix
from app.models import Action, RegistryView, ask_control, describe_model, read_registry, register
from app.registry import artifact_store, signer
from app.stages import now_ms
from ml.models.registry import model_type
from schemas.errors import PenstockError
from schemas.events import ModelVersion


def _routing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what each of them needs that asks control to change the routing."""
    for option in (
        pass_context,
        json_option,
        click.option(
            "--timeout", "timeout_s", default=30.0, show_default=True, help="Seconds to wait for control's answer."
        ),
        click.option("--expected-revision", type=int, help="Refuse if the routing is at another revision by then."),
        stream_option,
        click.argument("model_id"),
    ):
        command = option(command)
    return command


@click.group()
def models() -> None:
    """Register models and choose which one serves, and which ones score beside it."""


@models.command("register")
@stream_option
@click.option("--file", "path", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--algorithm", default="xgboost", show_default=True, help="The name of the model's entry point.")
@click.option(
    "--baseline-data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The rows that it was trained on, to measure drift against: CSV, with the features' names in its header.",
)
@json_option
@pass_context
def register_command(
    context: Context, stream_name: str | None, path: Path, algorithm: str, baseline_data: Path | None
) -> None:
    """Store, sign and register a model file (XGBoost: UBJ). The file is opened: it must be one that you trust."""
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    payload = path.read_bytes()
    store = artifact_store(settings)
    version = describe_model(spec, payload, algorithm, whoami(), now_ms())
    if baseline_data is not None:
        model = model_type(algorithm).load(payload)
        made = baseline_of_rows(spec, model, read_matrix(baseline_data, spec.features))
        version = with_baseline(version, store, made)
    version = run(register(connection, spec, store, signer(settings), version, payload))
    context.write(
        msgspec.to_builtins(version),
        lambda: f"{version.model_id}\nIt serves after: penstock models promote {version.model_id} --stream {spec.name}",
    )


@models.command("list")
@stream_option
@click.option("--all", "with_pruned", is_flag=True, help="Also those that were pruned: their files are deleted.")
@json_option
@pass_context
def list_command(context: Context, stream_name: str | None, with_pruned: bool) -> None:
    """List the stream's models, oldest first; the champion is marked with *, shadows with +."""
    registry = _registry(context, stream_name)
    shown = [version for version in registry.models if with_pruned or not version.pruned]
    rows = [_routed(version, registry) | msgspec.to_builtins(version) for version in shown]
    context.write(rows, lambda: "\n".join(_line(v, registry) for v in shown) or "No model is registered.")


@models.command()
@click.argument("model_id")
@stream_option
@json_option
@pass_context
def show(context: Context, model_id: str, stream_name: str | None) -> None:
    """Show everything that is recorded of one model."""
    registry = _registry(context, stream_name)
    version = registry.find(model_id)
    document = _routed(version, registry) | msgspec.to_builtins(version)
    context.write(document, lambda: "\n".join(f"{name:<16} {value}" for name, value in document.items()))


@models.command("promote")
@_routing_options
def promote_command(context: Context, **asked: Any) -> None:
    """Make a model the champion. It is no shadow then; the other shadows stay.

    Asks control, waits for its answer and prints it; exit code 1 when refused.
    """
    _ask(context, "promote", **asked)


@models.command("shadow")
@_routing_options
def shadow_command(context: Context, **asked: Any) -> None:
    """Let a model score every event beside the champion, for comparison; at most 8 at a time.

    A shadow of the same lineage makes room for it. Asks control, as `promote` does.
    """
    _ask(context, "shadow", **asked)


@models.command("unshadow")
@_routing_options
def unshadow_command(context: Context, **asked: Any) -> None:
    """End what `shadow` began. Asks control, as `promote` does."""
    _ask(context, "unshadow", **asked)


def _ask(
    context: Context,
    action: Action,
    model_id: str,
    stream_name: str | None,
    expected_revision: int | None,
    timeout_s: float,
) -> None:
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    answer = run(ask_control(connection, spec, action, model_id, whoami(), now_ms(), expected_revision, timeout_s))
    context.write(
        msgspec.to_builtins(answer), lambda: f"{answer.outcome}: {answer.reason} (revision {answer.revision})"
    )
    if answer.outcome == "refused":
        raise PenstockError("the command was refused; nothing was changed")


def _registry(context: Context, stream_name: str | None) -> RegistryView:
    settings = context.settings()
    return run(read_registry(context.connection(settings), context.stream(settings, stream_name)))


def _routed(version: ModelVersion, registry: RegistryView) -> dict[str, Any]:
    return {"champion": version.model_id == registry.champion, "shadow": version.model_id in registry.shadows}


def _line(version: ModelVersion, registry: RegistryView) -> str:
    created = datetime.fromtimestamp(version.created_time_ms / 1000, UTC)
    routed = _routed(version, registry)
    mark = "*" if routed["champion"] else "+" if routed["shadow"] else " "
    return (
        f"{mark} {version.model_id:<44} {version.algorithm:<16} {version.lineage or '-':<16} {version.status:<10} "
        f"{created:%Y-%m-%d %H:%M} {version.size_bytes:>12,} B"
    )
