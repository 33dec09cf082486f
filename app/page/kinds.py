"""The kinds of alerts: how each is headed on the page, and what ends it.

Drift is over when the column is well in a later window, or the judged model scores no more; a figure that passed its
limit when a later mature window of the model is within it, or the model scores no more; a model that cannot be loaded
when it is routed no more; a baseline that cannot be used when a later window was judged for its model; an experiment
when it runs no more; a training run when a later one made a model; a candidate when it is routed. The latter two, and
kinds that are not known here, fade within a day. All but drift go by Kafka's timestamps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.page.drift import DriftFold
from app.page.models import ModelFold
from app.page.timeline import TimelineFold
from schemas.events import Alert, VariantPerformance


@dataclass(frozen=True, slots=True)
class Told:
    """An alert and Kafka's timestamp of it."""

    alert: Alert
    time_ms: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known beside the alerts."""

    drift: DriftFold
    models: ModelFold
    timeline: TimelineFold


HasEnded = Callable[[Told, Facts], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of alert; `heading` is of its subject. One that `fades` is over after a day."""

    heading: str
    has_ended: HasEnded
    fades: bool = False


def kind_of(name: str) -> Kind:
    """Return what is known of a kind; of one that this page does not know, next to nothing."""
    return _KINDS.get(name, _UNKNOWN)


def _never(told: Told, facts: Facts) -> bool:
    return False


def _drift_has_ended(told: Told, facts: Facts) -> bool:
    report = facts.drift.newest
    if report is None or report.to_time_ms < told.alert.raised_time_ms:
        return False
    model_id = facts.drift.model_at(told.alert.raised_time_ms)
    if model_id is not None and not facts.models.scores(model_id):
        return True
    column = facts.drift.columns.get(told.alert.subject)
    is_well = column is None or not column.judged or column.severity == "none"
    return report.to_time_ms > told.alert.raised_time_ms and is_well


def _scores_no_more(told: Told, facts: Facts) -> bool:
    return not facts.models.scores(told.alert.subject)


def _is_routed_no_more(told: Told, facts: Facts) -> bool:
    return facts.models.deployment is not None and told.alert.subject not in facts.models.routed


def _is_judged_again(told: Told, facts: Facts) -> bool:
    report = facts.drift.newest
    judged = report is not None and report.model_id == told.alert.subject and facts.drift.told_ms > told.time_ms
    return judged or _is_routed_no_more(told, facts)


def _is_taken(told: Told, facts: Facts) -> bool:
    return told.alert.subject in facts.models.routed


def _is_trained(told: Told, facts: Facts) -> bool:
    return facts.timeline.trained_ms > told.time_ms


def _runs_no_more(told: Told, facts: Facts) -> bool:
    deployment = facts.models.deployment
    if deployment is None:
        return False
    return deployment.experiment is None or deployment.experiment.experiment_id != told.alert.subject


def _within(figure: Callable[[VariantPerformance], float | None], *, above: bool) -> HasEnded:
    """Return what tells whether a figure is within its limit again."""

    def has_ended(told: Told, facts: Facts) -> bool:
        if _scores_no_more(told, facts):
            return True
        limit, window = told.alert.threshold, facts.models.matured_since(told.time_ms, told.alert.subject)
        value = figure(window) if window is not None else None
        if limit is None or value is None:
            return False
        return value >= limit if above else value <= limit

    return has_ended


_UNKNOWN: Final = Kind("There is an alert about {subject}", _never, fades=True)
_KINDS: Final[Mapping[str, Kind]] = {
    "drift": Kind("Column {subject} has drifted", _drift_has_ended),
    "accuracy": Kind(
        "The accuracy of {subject} is below its limit", _within(lambda figures: figures.accuracy, above=True)
    ),
    "false_positive_rate": Kind(
        "The false positive rate of {subject} is above its limit",
        _within(lambda figures: figures.false_positive_rate, above=False),
    ),
    "latency": Kind(
        "The latency of {subject} is above its limit", _within(lambda figures: figures.latency_p50_ms, above=False)
    ),
    "error_drift": Kind("Model {subject} errs more often than before", _scores_no_more),
    "champion_unusable": Kind("Champion {subject} cannot be loaded", _is_routed_no_more),
    "variant_unusable": Kind("Model {subject} of an experiment cannot be loaded", _is_routed_no_more),
    "shadow_unusable": Kind("Shadow {subject} cannot be loaded", _is_routed_no_more),
    "baseline_unusable": Kind("Nobody watches the drift of {subject}", _is_judged_again),
    "archive": Kind("Samples wait to be archived", _never),
    "training": Kind("Training run {subject} made no model", _is_trained, fades=True),
    "candidate": Kind("Model {subject} waits for a decision", _is_taken, fades=True),
    "experiment": Kind("There is news of experiment {subject}", _runs_no_more),
    "rollout": Kind("There is news of rollout {subject}", _runs_no_more),
    "guardrail": Kind("Experiment {subject} has broken a guardrail", _runs_no_more),
    "unequal_shares": Kind("The shares of experiment {subject} are not those that were asked for", _runs_no_more),
}
