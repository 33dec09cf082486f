"""`penstock learners list|update`."""

from typing import Final

import click
import msgspec

from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.clock import now_ms
from app.learners import LearnerStanding, read_learners, trigger_update
from app.text import table

_HEADER: Final = ("lineage", "algorithm", "strategy", "newest", "routed", "behind")


@click.group()
def learners() -> None:
    """Look at the models that learn from the stream, and tell them to learn now."""


@learners.command("list")
@stream_option
@json_option
@pass_context
def list_command(context: Context, stream_name: str | None) -> None:
    """List the declared learners: newest version, routing and lag.

    Behind are the records of the samples log that a learner has not taken yet. On Kafka the ends of transactions count
    among them, so that a few may stay.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    found = run(read_learners(context.connection(settings), settings, spec))
    context.write(
        [
            {
                "lineage": standing.lineage,
                "algorithm": standing.learner.algorithm,
                "strategy": standing.learner.strategy,
                "newest": msgspec.to_builtins(standing.newest),
                "routed": standing.routed,
                "behind": standing.behind,
            }
            for standing in found
        ],
        lambda: (
            "\n".join(table([_HEADER, *map(_row, found)], right=(5,)))
            if found
            else f"stream {spec.name} declares no learners"
        ),
    )


@learners.command("update")
@click.argument("lineage")
@stream_option
@json_option
@pass_context
def update_command(context: Context, lineage: str, stream_name: str | None) -> None:
    """Make a learner learn what waits in its buffer, whatever its strategy says.

    The wish becomes a record among the samples, so that everybody who reads them again finds it in its place. An
    incremental learner is refused: nothing ever waits in it.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    offset = run(trigger_update(context.connection(settings), settings, spec, lineage, whoami(), now_ms()))
    context.write(
        {"stream": spec.name, "lineage": lineage, "offset": offset},
        lambda: f"learner {lineage} learns when it comes to offset {offset} of {spec.name}.samples",
    )


def _row(standing: LearnerStanding) -> tuple[str, ...]:
    newest = standing.newest.model_id if standing.newest else "-"
    algorithm, strategy = standing.learner.algorithm, standing.learner.strategy or "-"
    return standing.lineage, algorithm, strategy, newest, standing.routed or "-", f"{standing.behind:,}"
