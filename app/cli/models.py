"""`penstock models register|list|show|promote`."""

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.models import RegistryView, describe_model, promote, read_registry, register
from app.registry import artifact_store, signer
from app.stages import now_ms
from schemas.errors import PenstockError
from schemas.events import ModelVersion


@click.group()
def models() -> None:
    """Register models and choose which one serves."""


@models.command("register")
@stream_option
@click.option("--file", "path", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--algorithm", default="xgboost", show_default=True, help="The name of the model's entry point.")
@json_option
@pass_context
def register_command(context: Context, stream_name: str | None, path: Path, algorithm: str) -> None:
    """Store, sign and register a model file (XGBoost: UBJ). The file is opened: it must be one that you trust."""
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    payload = path.read_bytes()
    version = describe_model(spec, payload, algorithm, whoami(), now_ms())
    version = run(register(connection, spec, artifact_store(settings), signer(settings), version, payload))
    context.write(
        msgspec.to_builtins(version),
        lambda: f"{version.model_id}\nIt serves after: penstock models promote {version.model_id} --stream {spec.name}",
    )


@models.command("list")
@stream_option
@json_option
@pass_context
def list_command(context: Context, stream_name: str | None) -> None:
    """List the stream's models, oldest first; the champion is marked."""
    registry = _registry(context, stream_name)
    rows = [{"champion": v.model_id == registry.champion, **msgspec.to_builtins(v)} for v in registry.models]
    context.write(rows, lambda: "\n".join(_line(v, registry) for v in registry.models) or "No model is registered.")


@models.command()
@click.argument("model_id")
@stream_option
@json_option
@pass_context
def show(context: Context, model_id: str, stream_name: str | None) -> None:
    """Show everything that is recorded of one model."""
    registry = _registry(context, stream_name)
    document = {"champion": model_id == registry.champion, **msgspec.to_builtins(registry.find(model_id))}
    context.write(document, lambda: "\n".join(f"{name:<16} {value}" for name, value in document.items()))


@models.command("promote")
@click.argument("model_id")
@stream_option
@click.option("--expected-revision", type=int, help="Refuse if the routing is at another revision by then.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, help="Seconds to wait for control's answer.")
@json_option
@pass_context
def promote_command(
    context: Context, model_id: str, stream_name: str | None, expected_revision: int | None, timeout_s: float
) -> None:
    """Make a model the champion: asks control, waits for its answer and prints it; exit code 1 when refused."""
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    answer = run(promote(connection, spec, model_id, whoami(), now_ms(), expected_revision, timeout_s))
    context.write(
        msgspec.to_builtins(answer), lambda: f"{answer.outcome}: {answer.reason} (revision {answer.revision})"
    )
    if answer.outcome == "refused":
        raise PenstockError("the command was refused; nothing was changed")


def _registry(context: Context, stream_name: str | None) -> RegistryView:
    settings = context.settings()
    return run(read_registry(context.connection(settings), context.stream(settings, stream_name)))


def _line(version: ModelVersion, registry: RegistryView) -> str:
    created = datetime.fromtimestamp(version.created_time_ms / 1000, UTC)
    mark = "*" if version.model_id == registry.champion else " "
    return f"{mark} {version.model_id:<44} {version.algorithm:<16} {created:%Y-%m-%d %H:%M} {version.size_bytes:>12,} B"
