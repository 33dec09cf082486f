"""What is said of an experiment, and asked of control: each once. Pure functions of a look and of what was said."""

import hashlib
from collections.abc import Iterator
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from agents.compare.tracked import Tracked
from ml.experiments.monitor import MAX_EPOCHS, Look
from schemas.events import Alert, Command
from schemas.experiments import BUCKETS, Experiment, Step, Variant

SAMPLES_BETWEEN: Final = 100  # reports, mature ones
EVENTS_BETWEEN: Final = 1_000

Severity = Literal["low", "medium", "high"]
_ACTIONS: Final[dict[Step, str]] = {"advance": "advance", "promote": "promote", "roll_back": "stop"}


class Asked(msgspec.Struct, frozen=True):
    """A step that control was asked to take, and how many events were counted then."""

    epoch: int
    step: Step
    events: int


class Told(msgspec.Struct, frozen=True):
    """What was said of an experiment: how many reports, what the last one said, the last command, the alerts."""

    experiment_id: str
    number: int = 0
    epoch: int = -1
    samples: int = 0
    events: int = 0
    verdict: str = ""
    step: str = ""
    asked: Asked | None = None
    alerted: tuple[str, ...] = ()


def is_news(tracked: Tracked, look: Look, told: Told) -> bool:
    """Whether a report is due: another epoch, verdict or step, or enough samples or events more than in the last."""
    return (
        (tracked.experiment.epoch, look.verdict, look.step) != (told.epoch, told.verdict, told.step)
        or abs(look.samples - told.samples) >= SAMPLES_BETWEEN  # fewer, when some were lost to retention
        or abs(tracked.events - told.events) >= EVENTS_BETWEEN
    )


def says_more(tracked: Tracked, look: Look, told: Told) -> bool:
    """Whether a last report would say anything that the one before it did not."""
    return is_news(tracked, look, told) or (look.samples, tracked.events) != (told.samples, told.events)


def reported(tracked: Tracked, look: Look, told: Told) -> Told:
    """Return what was said once the report of this look is out."""
    return replace(
        told,
        number=told.number + 1,
        epoch=tracked.experiment.epoch,
        samples=look.samples,
        events=tracked.events,
        verdict=look.verdict,
        step=look.step,
    )


def asked_of(tracked: Tracked, look: Look, told: Told) -> tuple[Command | None, Told]:
    """Return the command that is due, if any, and what was said with it.

    A rollout's step is asked for once. When nothing came of it while as many events again were counted, and no fewer
    than a verdict needs samples, it is asked for again under the same correlation id: control carries out one of them.
    A rollout that is not automatic only goes back by itself.
    """
    experiment, asked = tracked.experiment, told.asked
    wished = look.step in _ACTIONS and (experiment.plan.automatic or look.step == "roll_back")
    if experiment.kind != "rollout" or not wished:
        return None, told
    repeated = asked is not None and (asked.epoch, asked.step) == (experiment.epoch, look.step)
    patience = max(experiment.plan.min_samples, asked.events) if asked is not None else 0
    if repeated and asked is not None and abs(tracked.events - asked.events) < patience:
        return None, told
    now = Asked(experiment.epoch, look.step, tracked.events)
    return command_of(tracked, look), replace(told, asked=now)


def command_of(tracked: Tracked, look: Look) -> Command:
    """Return the command for the step of a look, which is to advance, to promote or to roll back."""
    experiment = tracked.experiment
    challenger = experiment.variants[1]
    action = _ACTIONS[look.step]
    stop = Command(
        stream=tracked.deployment.stream,
        action="stop",
        issued_by=f"{experiment.kind} {experiment.experiment_id}",
        issued_time_ms=tracked.to_time_ms,
        correlation_id=f"{experiment.experiment_id}-{experiment.epoch}-{action}",
        reason=look.why,
        experiment_id=experiment.experiment_id,
        expected_epoch=experiment.epoch,
    )
    if action == "advance":
        return replace(stop, action="reshare", shares={challenger.name: next_share(experiment)})
    return replace(stop, action="promote", model_id=challenger.model_id) if action == "promote" else stop


def next_share(experiment: Experiment) -> float:
    """Return the challenger's share of the traffic at the next step of a rollout; the last one when it has that."""
    steps, buckets = experiment.plan.steps, experiment.variants[1].buckets
    return next((step for step in steps if step * BUCKETS > buckets + 0.5), steps[-1])


def alerts_of(tracked: Tracked, look: Look, told: Told) -> tuple[list[Alert], Told]:
    """Return the alerts that were not raised yet, and what was said with them."""
    found: list[Alert] = []
    alerted = told.alerted
    for about, alert in _alerts(tracked, look):
        if about not in alerted:
            alerted = (*alerted, about)
            found.append(alert)
    return found, replace(told, alerted=alerted)


def _alerts(tracked: Tracked, look: Look) -> Iterator[tuple[str, Alert]]:
    """Yield the alerts that a look is worth, each with what it is about: a verdict, or a step of an epoch."""
    experiment, stream = tracked.experiment, tracked.deployment.stream
    name = f"{experiment.kind} {experiment.experiment_id}"
    stop = f"`penstock experiments stop {experiment.experiment_id} --stream {stream}` ends it; the champion stays."

    def verdict(kind: str, severity: Severity, recommendation: str) -> tuple[str, Alert]:
        message = f"{name}: {look.why}"
        return look.verdict, _alert(tracked, kind, severity, look.verdict, message, recommendation)

    match look.verdict:
        case "better" if experiment.kind == "experiment":
            winner = _variant(experiment, look.winner)
            promote = f"`penstock models promote {winner.model_id} --stream {stream}` makes it the champion."
            yield verdict("experiment", "low", promote)
        case "worse" | "no_winner" if experiment.kind == "experiment":
            yield verdict("experiment", "low", stop)
        case "broken_guardrail" if experiment.kind == "experiment":  # a rollout goes back, which is told as that
            yield verdict("guardrail", "high", stop)
        case "unequal_shares":
            yield verdict(
                "unequal_shares",
                "medium",
                "Find out why labels of one variant are missing or come late: until then nothing can be concluded. "
                + stop,
            )
    if look.stuck:
        window = f"epoch {experiment.epoch} hold"
        message = f"{name} waits for a person to decide: {look.why}"
        yield window, _alert(tracked, "rollout", "medium", window, message, _choices(experiment, stream))
    if experiment.kind == "rollout" and look.step in _ACTIONS:
        window = f"epoch {experiment.epoch} {look.step}"
        severity, message, recommendation = _step_words(experiment, stream, look.step)
        said = _alert(tracked, "rollout", severity, window, f"{name} {message}: {look.why}", recommendation)
        yield window, said


def _choices(experiment: Experiment, stream: str) -> str:
    """Return what a person can do with a rollout in which no more can become known."""
    challenger, steps = experiment.variants[1], experiment.plan.steps
    ways = [f"`penstock models promote {challenger.model_id} --stream {stream}` makes it the champion"]
    if len(steps) > 1 and experiment.epoch + 1 < MAX_EPOCHS:
        shares = f"{experiment.experiment_id} {challenger.name}={100 * steps[-2]:.10g}"
        ways.append(f"`penstock experiments shares {shares} --stream {stream}` compares it with the champion again")
    ways.append(f"`penstock rollouts stop --stream {stream}` goes back to the champion")
    return "; ".join(ways) + "."


def _step_words(experiment: Experiment, stream: str, step: Step) -> tuple[Severity, str, str]:
    """Return severity, message and recommendation for a step of a rollout."""
    challenger = experiment.variants[1]
    share = f"{next_share(experiment):.4g}"
    show = f"`penstock rollouts show {experiment.experiment_id} --stream {stream}` shows"
    if step == "roll_back":
        return "high", "goes back to the champion", f"{show} why. Find out before you try {challenger.model_id} again."
    if experiment.plan.automatic and step == "advance":
        return "low", f"goes on to a share of {share}", f"Nothing needs to be done; {show} what is known."
    if experiment.plan.automatic:
        return "low", f"ends: {challenger.model_id} becomes the champion", f"Nothing needs to be done; {show} why."
    if step == "advance":
        command = f"`penstock rollouts advance --stream {stream}` does so."
        return "medium", f"waits for a person to go on to a share of {share}", command
    command = f"`penstock models promote {challenger.model_id} --stream {stream}` does so."
    return "medium", f"waits for a person to promote {challenger.model_id}", command


def _alert(tracked: Tracked, kind: str, severity: Severity, window: str, message: str, recommendation: str) -> Alert:
    stream, subject = tracked.deployment.stream, tracked.experiment.experiment_id
    parts = ("alert", stream, kind, subject, window)
    return Alert(
        id=hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32],
        stream=stream,
        kind=kind,
        severity=severity,
        subject=subject,
        message=message,
        recommendation=recommendation,
        raised_time_ms=tracked.to_time_ms,
        window=window,
    )


def _variant(experiment: Experiment, name: str) -> Variant:
    return next(variant for variant in experiment.variants if variant.name == name)
