"""`penstock experiments start|shares|stop|list|show|assignment`."""

from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec

from app.cli.asking import WHO_MAY, ask, ask_for, asks_control, revision_option
from app.cli.context import Context, json_option, pass_context, run, stream_option
from app.cli.experiment_options import plan_options, split_plan
from app.cli.types import NamedShareType, VariantType
from app.experiment_report import document, lines
from app.experiments import Course, assignment_of, course_of, courses_of, newest_report, plan_of
from app.models import RegistryView, read_registry
from app.settings import Settings
from app.text import minute, per_cent, printable, table
from schemas.errors import PenstockError
from schemas.experiments import BUCKETS, ExperimentReport
from schemas.streams import StreamSpec
from stores.views import Assignment, RedisViews, ViewsUnavailable
from stream.connection import KafkaConnection


@click.group(epilog=WHO_MAY)
def experiments() -> None:
    """Let several models serve at once, each some of the entities, and find out which is the best.

    An entity stays with its variant until shares change, and then only those change theirs that must. Start, shares and
    stop are commands that control carries out or refuses.
    """


@experiments.command()
@click.argument("experiment_id")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    required=True,
    type=VariantType(),
    help="A name, its model, and its share of the entities in per cent; repeatable. The champion has the rest.",
)
@plan_options
@revision_option
@asks_control
def start(context: Context, stream_name: str | None, timeout_s: float, **asked: Any) -> None:
    """Begin an experiment with the champion and other models.

    What no option says of its plan is taken from `[streams.<name>.experiments]`. Asks control, waits for its answer and
    prints it; exit code 1 when refused.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    given, others = split_plan(asked)
    variants: Sequence[tuple[str, str, float]] = others.pop("variants")
    _require_different([name for name, _, _ in variants])
    ask_for(
        context,
        settings,
        spec,
        timeout_s,
        "start",
        plan=plan_of(settings, spec, given),
        variants={name: model_id for name, model_id, _ in variants},
        shares={name: share for name, _, share in variants},
        **others,
    )


@experiments.command()
@click.argument("experiment_id")
@click.argument("shares", nargs=-1, required=True, type=NamedShareType())
@revision_option
@asks_control
def shares(
    context: Context, stream_name: str | None, timeout_s: float, shares: tuple[tuple[str, float], ...], **asked: Any
) -> None:
    """Change the shares of the variants, all of which are named, in per cent; the champion has the rest.

    As few entities as can be change their variant, and none leaves one that grows. Asks control, as `start` does.
    """
    _require_different([name for name, _ in shares])
    ask(context, stream_name, timeout_s, "reshare", shares=dict(shares), **asked)


@experiments.command()
@click.argument("experiment_id")
@revision_option
@asks_control
def stop(context: Context, stream_name: str | None, timeout_s: float, **asked: Any) -> None:
    """End the experiment: the champion serves every entity. To take a variant instead, promote its model.

    Asks control, as `start` does.
    """
    ask(context, stream_name, timeout_s, "stop", **asked)


@experiments.command("list")
@stream_option
@json_option
@pass_context
def list_command(context: Context, stream_name: str | None) -> None:
    """List all experiments and rollouts that there ever were, oldest first, and what came of them."""
    settings = context.settings()
    registry = run(read_registry(context.connection(settings), context.stream(settings, stream_name)))
    found = courses_of(registry.deployments)
    rows = [{k: v for k, v in document(course, None).items() if k != "report"} for course in found]
    context.write(rows, lambda: "\n".join(list_lines(found)) or "There was no experiment or rollout yet.")


def list_lines(courses: Sequence[Course]) -> list[str]:
    """Return a line for each experiment below a header; nothing when there is none."""
    if not courses:
        return []
    return table([("experiment", "kind", "from", "to", "variants", "started by", "outcome"), *_rows(courses)])


def _rows(courses: Sequence[Course]) -> Iterator[tuple[str, ...]]:
    for course in courses:
        experiment = course.experiment
        yield (
            experiment.experiment_id,
            experiment.kind,
            minute(course.steps[0].changed_time_ms),
            minute(course.ended.changed_time_ms) if course.ended else "-",
            ", ".join(f"{v.name} {v.model_id} {per_cent(v.buckets / BUCKETS)}" for v in experiment.variants),
            experiment.started_by,
            _outcome(course),
        )


def _outcome(course: Course) -> str:
    """Return how it ended and why, as far as anybody said."""
    if course.ended is None:
        return "runs"
    return f"{course.outcome}: {course.ended.reason}" if course.ended.reason else course.outcome


@experiments.command()
@click.argument("experiment_id", required=False)
@stream_option
@json_option
@pass_context
def show(context: Context, experiment_id: str | None, stream_name: str | None) -> None:
    """Show what is known of an experiment: shares, counts, estimates with intervals, the verdict, and why.

    Without an id it is the one that runs; when none does, how far the shadows agree with what is served. One may look
    at any time and as often as one likes: the intervals and the verdict hold at every look at once. The tests that are
    labelled as fixed horizon do not.
    """
    show_course(context, stream_name, experiment_id)


def show_course(context: Context, stream_name: str | None, experiment_id: str | None) -> None:
    """Print what is known of an experiment or rollout. Raises PenstockError when there is nothing to tell."""
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    course, report = run(_known(context.connection(settings), spec, experiment_id))
    context.write(document(course, report), lambda: "\n".join(lines(course, report, spec.ripens_ms)))


async def _known(
    connection: KafkaConnection, spec: StreamSpec, experiment_id: str | None
) -> tuple[Course | None, ExperimentReport | None]:
    registry = await read_registry(connection, spec)
    course = course_of(registry.deployments, experiment_id)
    if course is not None:
        since = course.steps[0].revision
        return course, await newest_report(connection, spec, course.experiment.experiment_id, since)
    report = await newest_report(connection, spec, "", registry.revision) if registry.shadows else None
    if report is None:
        raise PenstockError(_why_nothing(registry))
    return None, report


def _why_nothing(registry: RegistryView) -> str:
    past = [course.experiment.experiment_id for course in courses_of(registry.deployments)]
    told = (
        f"there were {', '.join(past)}; `penstock experiments show {past[-1]}` shows the last"
        if past
        else "there never was one"
    )
    begin = f"no experiment or rollout runs on stream {registry.spec.name}"
    if registry.shadows:
        return f"{begin} ({told}), and nothing is known of its shadows yet: is a worker with the role learn running?"
    return f"{begin}, and it has no shadow; {told}"


@experiments.command()
@click.argument("entity")
@stream_option
@json_option
@pass_context
def assignment(context: Context, entity: str, stream_name: str | None) -> None:
    """Say which variant serves an entity now. Nothing is looked up: it follows from the newest deployment.

    Where a Redis is set (ML_REDIS_URL), the answer is written there, too, for a day or until the shares change; if it
    is away, that is only a warning.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    found, warning = run(_assigned(context.connection(settings), settings, spec, entity))
    context.write(
        msgspec.to_builtins(found),
        lambda: printable(
            f"{found.entity_id} is in bucket {found.bucket} of experiment {found.experiment_id}: "
            f"variant {found.variant}, model {found.model_id} (revision {found.deployment_revision})"
        ),
    )
    if warning:
        click.echo(f"warning: {printable(warning)}", err=True)


async def _assigned(
    connection: KafkaConnection, settings: Settings, spec: StreamSpec, entity: str
) -> tuple[Assignment, str]:
    """Return the assignment, and a sentence when it could not be shown in Redis."""
    registry = await read_registry(connection, spec)
    if registry.newest is None:
        raise PenstockError(f"stream {spec.name} has no champion yet, so nothing serves its entities")
    found = assignment_of(registry.newest, entity)
    if not settings.redis_url:
        return found, ""
    redis = RedisViews(settings.redis_url)
    try:
        await redis.assign(found)
    except ViewsUnavailable as error:
        return found, f"the answer was not written to Redis: {error}"
    finally:
        await redis.close()
    return found, ""


def _require_different(names: Sequence[str]) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise click.UsageError(f"each variant is named once; twice: {', '.join(sorted(twice))}")
