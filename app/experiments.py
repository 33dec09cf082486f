"""Experiments and rollouts as the command line sees them: plans, what became of each, reports, and assignments."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from app.logs import events_of
from app.models import log_reader, require_topics
from app.settings import Settings
from ml.experiments.assignment import buckets_of, expanded
from schemas.errors import PenstockError
from schemas.events import Deployment
from schemas.experiments import BUCKETS, Experiment, ExperimentPlan, ExperimentReport
from schemas.streams import StreamSpec
from stores.views import Assignment
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from stream.tail import read_back
from topics import StreamTopics


def plan_of(settings: Settings, spec: StreamSpec, overrides: Mapping[str, Any]) -> ExperimentPlan:
    """Return the plan of an experiment: what the stream's table says, except for `overrides`, by the plan's fields.

    What the table leaves open comes from the settings. Without `steps` it is no rollout's: those are not taken over.
    """
    declared = spec.experiments
    usual: dict[str, Any] = {
        "metric": declared.metric or ("accuracy" if spec.task == "anomaly" else "brier"),
        "false_positive_cost": declared.false_positive_cost,
        "false_negative_cost": declared.false_negative_cost,
        "alpha": declared.alpha,
        "margin": declared.margin,
        "min_samples": declared.min_samples or settings.ab_min_samples,
        "max_error_share": declared.max_error_share,
        "max_call_ms": declared.max_call_ms,
        "max_score_psi": declared.max_score_psi,
        "guard_metrics": declared.guard_metrics,
    }
    return ExperimentPlan(**(usual | dict(overrides)))


@dataclass(frozen=True, slots=True)
class Course:
    """What became of an experiment: as it was last, each deployment that changed its shares, and the one that ended it.

    The first of `steps` started it. `ended` is None while it runs.
    """

    experiment: Experiment
    steps: tuple[Deployment, ...]
    ended: Deployment | None = None

    @property
    def outcome(self) -> str:
        """In what it ended, in a few words; empty while it runs."""
        if self.ended is None:
            return ""
        variants = {variant.model_id: variant.name for variant in self.experiment.variants}
        now = self.ended.champion
        if now == self.experiment.variants[0].model_id:
            return f"champion {now} stayed"
        if self.ended.held:  # only a roll-back changes the champion and holds the one that it brings
            return f"rolled back to {now}"
        return f"{variants[now]} {now} was promoted" if now in variants else f"{now} became the champion"


def courses_of(deployments: Iterable[Deployment]) -> list[Course]:
    """Return every experiment that `deployments`, all of a stream's in their order, tell of, oldest first."""
    found: list[Course] = []
    for deployment in deployments:
        runs, experiment = bool(found) and found[-1].ended is None, deployment.experiment
        if runs and (experiment is None or experiment.experiment_id != found[-1].experiment.experiment_id):
            found[-1] = replace(found[-1], ended=deployment)
            runs = False
        if experiment is None:
            continue
        if not runs:
            found.append(Course(experiment, (deployment,)))
            continue
        last = found[-1]
        changed = (deployment,) if experiment.epoch != last.experiment.epoch else ()
        found[-1] = replace(last, experiment=experiment, steps=(*last.steps, *changed))
    return found


def course_of(deployments: Sequence[Deployment], experiment_id: str | None) -> Course | None:
    """Return the experiment with this id; without one, the one that runs, and None when none does.

    Raises PenstockError when no experiment had this id.
    """
    courses = courses_of(deployments)
    if experiment_id is None:
        return courses[-1] if courses and courses[-1].ended is None else None
    found = next((course for course in courses if course.experiment.experiment_id == experiment_id), None)
    if found is None:
        known = ", ".join(course.experiment.experiment_id for course in courses) or "none"
        raise PenstockError(f"there was no experiment or rollout {experiment_id!r}; those that there were: {known}")
    return found


def share_of(experiment: Experiment, name: str) -> float:
    """Return the share of the buckets that the variant called `name` has, from 0 to 1."""
    return sum(variant.buckets for variant in experiment.variants if variant.name == name) / BUCKETS


def next_step(experiment: Experiment) -> float | None:
    """Return the share that the challenger of a rollout has next; None when it has had the last step.

    Raises PenstockError for an experiment that is no rollout.
    """
    if experiment.kind != "rollout":
        raise PenstockError(
            f"experiment {experiment.experiment_id} is no rollout and has no steps; `penstock experiments shares` "
            "changes its shares"
        )
    now = share_of(experiment, experiment.variants[1].name)
    return next((step for step in experiment.plan.steps if step > now + 0.5 / BUCKETS), None)


async def newest_report(
    connection: KafkaConnection, spec: StreamSpec, experiment_id: str, since_revision: int = 0
) -> ExperimentReport | None:
    """Return the newest committed report of an experiment, or None; with an empty id the newest of shadows alone.

    Reads back as far as to the first report of an earlier routing than `since_revision`.
    """
    await require_topics(connection, spec)
    source = TopicPartition(StreamTopics(spec.name).experiments, 0)
    async with aclosing(read_back(partial(log_reader, connection), source)) as pieces:
        async for records in pieces:
            for report in reversed(events_of(ExperimentReport, records)):
                if report.experiment_id == experiment_id:
                    return report
                if report.deployment_revision < since_revision:
                    return None
    return None


def assignment_of(deployment: Deployment, entity: str) -> Assignment:
    """Return the assignment of `entity` by a deployment. Raises PenstockError when there is no such thing."""
    if not entity:
        raise PenstockError("an entity's id is not empty")
    experiment = deployment.experiment
    if experiment is None:
        raise PenstockError(
            f"no experiment or rollout runs on stream {deployment.stream}: its champion {deployment.champion} serves "
            "every entity"
        )
    try:
        key = entity.encode()
    except UnicodeEncodeError as error:
        raise PenstockError("this entity's id is not UTF-8 text, which every id in a stream is") from error
    bucket = int(buckets_of([key], experiment.salt)[0])
    variant = experiment.variants[int(expanded(experiment.table)[bucket])]
    return Assignment(
        stream=deployment.stream,
        experiment_id=experiment.experiment_id,
        entity_id=entity,
        variant=variant.name,
        model_id=variant.model_id,
        bucket=bucket,
        epoch=experiment.epoch,
        deployment_revision=deployment.revision,
    )
