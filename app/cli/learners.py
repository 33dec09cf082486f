"""`penstock learners list|update`."""

import click
import msgspec

from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.learners import LearnerStanding, read_learners, trigger_update
from app.stages import now_ms


@click.group()
def learners() -> None:
    """Look at the models that learn from the stream, and tell them to learn now."""


@learners.command("list")
@stream_option
@json_option
@pass_context
def list_command(context: Context, stream_name: str | None) -> None:
    """List the declared learners with their newest version and where it is used."""
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    found = run(read_learners(context.connection(settings), spec))
    context.write(
        [
            {
                "lineage": learner.lineage,
                "algorithm": learner.algorithm,
                "versions": learner.versions,
                "newest": msgspec.to_builtins(learner.newest),
                "routed": learner.routed,
            }
            for learner in found
        ],
        lambda: "\n".join(map(_line, found)) or f"stream {spec.name} declares no learners",
    )


@learners.command("update")
@click.argument("lineage")
@stream_option
@json_option
@pass_context
def update_command(context: Context, lineage: str, stream_name: str | None) -> None:
    """Make a learner learn what waits in its buffer, whatever its strategy says.

    The wish becomes a record among the samples, so that everybody who reads them again finds it in its place.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    offset = run(trigger_update(context.connection(settings), spec, lineage, whoami(), now_ms()))
    context.write(
        {"stream": spec.name, "lineage": lineage, "offset": offset},
        lambda: f"learner {lineage} learns when it comes to offset {offset} of {spec.name}.samples",
    )


def _line(learner: LearnerStanding) -> str:
    newest = learner.newest.model_id if learner.newest else "no version yet"
    return f"{learner.lineage}  {learner.algorithm}  {newest}  {learner.versions} versions  {learner.routed}".rstrip()
