"""`penstock rollouts start|advance|stop|show`."""

from typing import Any

import click

from app.cli.asking import WHO_MAY, ask_for, asks_control, revision_option
from app.cli.context import Context, json_option, pass_context, run, stream_option
from app.cli.experiment_options import plan_options, split_plan
from app.cli.experiments import show_course
from app.cli.types import StepsType
from app.experiments import next_step, plan_of
from app.models import read_registry
from app.settings import Settings
from schemas.errors import PenstockError
from schemas.experiments import CHALLENGER, Experiment
from schemas.streams import StreamSpec


@click.group(epilog=WHO_MAY)
def rollouts() -> None:
    """Put a model in the champion's place step by step, as far as the evidence carries it.

    A rollout is an experiment with two variants. It goes on when the challenger is good enough, waits while that is
    unclear, goes back by itself when a guardrail breaks or the challenger is worse, and ends with its promotion.
    `penstock models rollback` undoes that.
    """


@rollouts.command()
@click.argument("model_id")
@click.option("--id", "experiment_id", help="What the rollout is called; default: as the model.")
@click.option("--steps", type=StepsType(), help="The model's shares of the entities in per cent, such as 10,50,100.")
@click.option("--by-step", is_flag=True, help="Wait for a person at each step; it still goes back by itself.")
@plan_options
@revision_option
@asks_control
def start(
    context: Context,
    stream_name: str | None,
    timeout_s: float,
    model_id: str,
    experiment_id: str | None,
    by_step: bool,
    **asked: Any,
) -> None:
    """Begin to roll a model out: the first step is taken at once.

    What no option says of its plan is taken from `[streams.<name>.experiments]`. Asks control, waits for its answer and
    prints it; exit code 1 when refused.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    given, others = split_plan(asked)
    plan = plan_of(settings, spec, {"steps": spec.experiments.steps, "automatic": not by_step} | given)
    ask_for(
        context,
        settings,
        spec,
        timeout_s,
        "start",
        experiment_id=experiment_id or model_id,
        plan=plan,
        variants={CHALLENGER: model_id},
        shares={CHALLENGER: plan.steps[0]},
        **others,
    )


@rollouts.command()
@revision_option
@asks_control
def advance(
    context: Context, stream_name: str | None, timeout_s: float, expected_revision: int | None, reason: str
) -> None:
    """Take the next step now, whatever the evidence says; after the last one, promote the model.

    Asks control, as `start` does.
    """
    settings, spec, running, revision = _running(context, stream_name)
    step, challenger = next_step(running), running.variants[1]
    asked: dict[str, Any] = {
        "reason": reason,
        "expected_revision": revision if expected_revision is None else expected_revision,
    }
    if step is None:
        asked["model_id"] = challenger.model_id
    else:
        asked |= {"experiment_id": running.experiment_id, "shares": {challenger.name: step}}
    ask_for(context, settings, spec, timeout_s, "promote" if step is None else "reshare", **asked)


@rollouts.command()
@revision_option
@asks_control
def stop(
    context: Context, stream_name: str | None, timeout_s: float, expected_revision: int | None, reason: str
) -> None:
    """Give the rollout up: the champion serves every entity again. Asks control, as `start` does."""
    settings, spec, running, revision = _running(context, stream_name)
    next_step(running)  # only a rollout has one
    ask_for(
        context,
        settings,
        spec,
        timeout_s,
        "stop",
        experiment_id=running.experiment_id,
        expected_revision=revision if expected_revision is None else expected_revision,
        reason=reason,
    )


@rollouts.command()
@click.argument("experiment_id", required=False)
@stream_option
@json_option
@pass_context
def show(context: Context, experiment_id: str | None, stream_name: str | None) -> None:
    """Show how far a rollout is and what is known, as `penstock experiments show` does. Default: the one that runs."""
    show_course(context, stream_name, experiment_id)


def _running(context: Context, stream_name: str | None) -> tuple[Settings, StreamSpec, Experiment, int]:
    """Return the settings, the stream, what runs on it, and the revision of its routing."""
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    registry = run(read_registry(context.connection(settings), spec))
    if registry.experiment is None:
        raise PenstockError(f"no rollout runs on stream {spec.name}; `penstock rollouts start MODEL_ID` begins one")
    return settings, spec, registry.experiment, registry.revision
