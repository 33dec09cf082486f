"""What the logs of deployments, audit and reports tell of two rollouts, held against how they should have gone."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from schemas.events import AuditEvent, Deployment
from schemas.experiments import CHAMPION, Experiment, ExperimentReport

PERSON: Final = "a person"
ROLLOUT: Final = "rollout "
"""What a rollout calls itself begins with this, and ends with its id."""


class Step(NamedTuple):
    """A change of the routing. `model` is the champion afterwards, or the challenger while there is one."""

    revision: int
    action: str
    model: str
    share: float | None
    by: str
    time_ms: int


def steps(deployments: Sequence[Deployment], audit: Sequence[AuditEvent], names: Mapping[str, str]) -> list[Step]:
    """Return every deployment as a step, with the action that the audit log names; models are called by `names`.

    `by` is a person, or the rollout itself. An action that the audit log does not tell of is empty.
    """
    answers = {event.correlation_id: event for event in audit if event.outcome == "done"}
    found = []
    for before, after in pairwise([None, *deployments]):
        assert after is not None
        answer = answers.get(after.correlation_id)
        running = (before.experiment if before else None) or after.experiment
        own = running is not None and after.changed_by == f"{ROLLOUT}{running.experiment_id}"
        model, share = _subject(after, running, answer.action if answer else "")
        found.append(
            Step(
                revision=after.revision,
                action=answer.action if answer else "",
                model=names.get(model, model),
                share=share,
                by="itself" if own else PERSON,
                time_ms=after.changed_time_ms,
            )
        )
    return found


def _subject(after: Deployment, running: Experiment | None, action: str) -> tuple[str, float | None]:
    """Return the model that a step is about, and its share. A rollout that is stopped is about its challenger."""
    if after.experiment is not None:
        challenger = challenger_of(after.experiment)
        return challenger.model_id, challenger.buckets / sum(variant.buckets for variant in after.experiment.variants)
    if action == "stop" and running is not None:
        return challenger_of(running).model_id, 0.0
    return after.champion, None


def challenger_of(experiment: Experiment) -> Any:
    """Return the only variant that is not the champion. Raises ValueError when there are more."""
    (challenger,) = (variant for variant in experiment.variants if variant.name != CHAMPION)
    return challenger


def expected(shares: Sequence[float], rollbacks: int) -> Iterator[tuple[str, str, float | None, str]]:
    """Yield (action, model, share, by) of every step of a run that goes as it should.

    After the rollouts a person rolls back and promotes the better model again, `rollbacks` times.
    """
    yield "promote", "january", None, PERSON
    yield "start", "better", shares[0], PERSON
    for share in shares[1:]:
        yield "reshare", "better", share, "itself"
    yield "promote", "better", None, "itself"
    yield "start", "worse", shares[0], PERSON
    yield "stop", "worse", 0.0, "itself"
    for _ in range(rollbacks):
        yield "rollback", "january", None, PERSON
        yield "promote", "better", None, PERSON


def step_flaws(found: Sequence[Step], shares: Sequence[float], rollbacks: int) -> list[str]:
    """Return a sentence for the first step that is not the one it should be, or when steps are missing or too many."""
    wanted = list(expected(shares, rollbacks))
    told = [(step.action, step.model, step.share, step.by) for step in found]
    for number, (is_one, should_be) in enumerate(zip(told, wanted, strict=False), start=1):
        if is_one != should_be:
            return [f"step {number} is {_words(*is_one)}, and should be {_words(*should_be)}"]
    return [f"there are {len(told)} steps, and should be {len(wanted)}"] if len(told) != len(wanted) else []


def _words(action: str, model: str, share: float | None, by: str) -> str:
    return f"{action or 'nothing'} {model}{'' if share is None else f' at {share:.0%}'} by {by}"


def log_flaws(deployments: Sequence[Deployment], audit: Sequence[AuditEvent]) -> list[str]:
    """Return what is doubled, missing or out of order in the two logs, whatever the steps are.

    A rollout that waits for control asks again, and each time is answered: then only the first answer tells of a step.
    """
    found = []
    revisions = [deployment.revision for deployment in deployments]
    if revisions != list(range(1, len(revisions) + 1)):
        found.append("the deployments are not numbered from 1 on, one by one")
    doubled = [c for c, n in Counter(d.correlation_id for d in deployments).items() if n > 1]
    found += [f"command {correlation_id} has changed the routing more than once" for correlation_id in doubled]
    found += [f"{event.issued_by} was refused: {event.reason}" for event in audit if event.outcome == "refused"]
    answers = Counter(event.correlation_id for event in audit)
    for deployment in deployments:
        n = answers[deployment.correlation_id]
        if n == 0 or (n > 1 and not deployment.changed_by.startswith(ROLLOUT)):
            found.append(f"revision {deployment.revision} has {n} audit events, and should have 1")
    order = {deployment.correlation_id: deployment.revision for deployment in deployments}
    told = list(dict.fromkeys(order[event.correlation_id] for event in audit if event.correlation_id in order))
    if told != sorted(told):
        found.append("the audit log tells of the deployments in another order")
    for before, after in pairwise(deployments):
        old, new = before.experiment, after.experiment
        if old and new and (old.experiment_id, old.epoch + 1) != (new.experiment_id, new.epoch):
            found.append(f"revision {after.revision} is not the next epoch of the experiment before it")
    return found


def repeated_answers(deployments: Sequence[Deployment], audit: Sequence[AuditEvent]) -> int:
    """Return how many audit events tell of a deployment that one before has told of."""
    known = {deployment.correlation_id for deployment in deployments}
    answers = [event.correlation_id for event in audit if event.correlation_id in known]
    return len(answers) - len(set(answers))


def report_flaws(reports: Sequence[ExperimentReport]) -> list[str]:
    """Return a sentence for each experiment whose reports are not numbered from 0 on, one by one."""
    numbers: dict[str, list[int]] = {}
    for report in reports:
        numbers.setdefault(report.experiment_id, []).append(report.number)
    return [
        f"the reports of {experiment_id or 'no experiment'} are not numbered from 0 on, one by one"
        for experiment_id, of_it in numbers.items()
        if of_it != list(range(len(of_it)))
    ]


def reasons(reports: Sequence[ExperimentReport], names: Mapping[str, str]) -> dict[str, Any]:
    """Return, by model and epoch, what the first report says that wants its rollout to take a step."""
    found: dict[str, Any] = {}
    for report in reports:
        if report.step in ("none", "hold"):
            continue
        model = next((v.model_id for v in report.variants if v.variant != CHAMPION), "")
        evidence = {
            "step": report.step,
            "verdict": report.verdict,
            "samples": report.samples,
            "broken": [guardrail.name for guardrail in report.guardrails if not guardrail.holds],
            "brier": [(c.difference, c.low, c.high) for c in report.contrasts if c.metric == "brier"],
            "why": report.why,
        }
        found.setdefault(f"{names.get(model, model)}, epoch {report.epoch}", evidence)
    return found
