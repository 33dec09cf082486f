"""What is written when a run has ended: the candidate, what is done with it, and the one record that tells of the run.

Pure functions. Every id follows from the run, so that whatever is written again is the same.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from agents.registry import next_version
from agents.routes import routes_of
from agents.routing import rerouted
from agents.train.job import Failed, Made
from agents.train.queue import Asked, Run, Skip, run_id_of
from schemas.errors import InvalidEvent, PenstockError
from schemas.events import Alert, AuditEvent, Command, Deployment, ModelVersion
from schemas.experiments import CHALLENGER, ExperimentPlan
from schemas.runs import TRAINER, Phase, TrainingEvent
from schemas.streams import StreamSpec
from schemas.training import Approval
from schemas.wire import decode, encode
from topics.specs import StreamTopics

_BY_HAND: Final[Mapping[Approval, str]] = {
    "manual": "models promote",
    "shadow": "models shadow",
    "rollout": "rollouts start",
    "auto": "models promote",
}
_ASKED: Final[Mapping[Approval, str]] = {
    "shadow": "to score with it beside the champion",
    "rollout": "to roll it out",
    "auto": "to promote it",
}


class Note(msgspec.Struct, frozen=True):
    """A record that is to be written: its value, and the topic."""

    topic: str
    value: msgspec.Raw


class Registered(NamedTuple):
    """What is registered and routed at the moment, and by what plan a rollout of the stream goes."""

    versions: Mapping[str, ModelVersion]
    history: Sequence[Deployment]
    plan: ExperimentPlan

    @property
    def revision(self) -> int:
        """The revision of the routing; 0 before the first."""
        return self.history[-1].revision if self.history else 0


def event_of(spec: StreamSpec, run: Run, phase: Phase, now_ms: int, **said: Any) -> TrainingEvent:
    """Return what is told of a run; `said` are more fields of the event."""
    return TrainingEvent(
        stream=spec.name,
        run_id=run.run_id,
        request_ids=run.request_ids,
        reasons=run.reasons,
        attempt=run.attempt,
        phase=phase,
        time_ms=now_ms,
        started_time_ms=run.started_time_ms,
        champion=run.champion.model_id if run.champion is not None else "",
        asked_because=run.asked_because,
        **said,
    )


def note_of(topic: str, event: msgspec.Struct) -> Note:
    """Return the note that writes `event`."""
    return Note(topic, msgspec.Raw(encode(event)))


def queued(spec: StreamSpec, waiting: Sequence[Asked], behind: str, now_ms: int) -> Note:
    """Return the record of requests that wait together for the end of a run or an experiment, `behind`."""
    event = TrainingEvent(
        stream=spec.name,
        run_id=run_id_of(spec.name, waiting[0].id),
        request_ids=tuple(asked.id for asked in waiting),
        reasons=tuple(dict.fromkeys(asked.reason for asked in waiting)),
        attempt=0,
        phase="waiting",
        time_ms=now_ms,
        started_time_ms=now_ms,
        message=f"it waits for the end of {behind}",
    )
    return note_of(StreamTopics(spec.name).training, event)


def skipped(spec: StreamSpec, skip: Skip, now_ms: int) -> Note:
    """Return the record of a request that becomes no run."""
    event = TrainingEvent(
        stream=spec.name,
        run_id=run_id_of(spec.name, skip.asked.id),
        request_ids=(skip.asked.id,),
        reasons=(skip.asked.reason,),
        attempt=0,
        phase="ended",
        time_ms=now_ms,
        started_time_ms=now_ms,
        message=skip.why,
        outcome="skipped",
    )
    return note_of(StreamTopics(spec.name).training, event)


def failed(spec: StreamSpec, run: Run, why: Failed, now_ms: int) -> tuple[Note, ...]:
    """Return what is written of a run that made no model: an alert, and that it ended."""
    topics = StreamTopics(spec.name)
    stays = f"champion {run.champion.model_id} stays" if run.champion is not None else "no model serves"
    alert = _alert(
        run,
        spec,
        now_ms,
        kind="training",
        severity="medium",
        subject=run.run_id,
        message=f"training run {run.run_id} made no model: {why.message}",
        recommendation=f"Mend the reason and ask again: penstock retrain --stream {spec.name}. Until then {stays}.",
    )
    event = event_of(
        spec,
        run,
        "ended",
        now_ms,
        outcome="failed",
        message=why.message,
        follow_up=stays,
        samples=why.samples,
        from_time_ms=why.from_time_ms,
        to_time_ms=why.to_time_ms,
    )
    return note_of(topics.alerts, alert), note_of(topics.training, event)


def made(spec: StreamSpec, run: Run, made: Made, known: Registered, now_ms: int) -> tuple[Note, ...]:
    """Return what is written of a candidate: its version, the audit, what is asked of control or people, the end.

    A command that control would refuse as things are becomes an alert that says why. Raises PenstockError when the
    version is none that could be read back.
    """
    topics = StreamTopics(spec.name)
    version = _numbered(run, made, known, now_ms)
    asked, follow_up = _follow_up(spec, run, made, version, known, now_ms)
    event = event_of(
        spec,
        run,
        "ended",
        now_ms,
        outcome="accepted" if made.passed else "rejected",
        message="; ".join((_verdict(made, version), *made.notes)),
        model_id=version.model_id,
        follow_up=follow_up,
        gates=made.gates,
        metrics=version.metrics,
        samples=made.samples,
        from_time_ms=made.from_time_ms,
        to_time_ms=made.to_time_ms,
    )
    audit = AuditEvent(
        stream=spec.name,
        correlation_id=run.run_id,
        action="register",
        issued_by=version.registered_by or TRAINER,
        outcome="done",
        reason=f"version {version.version}: made by training run {run.run_id} ({', '.join(run.reasons)})",
        model_id=version.model_id,
        revision=known.revision,
        decided_time_ms=now_ms,
    )
    where = topics.commands if isinstance(asked, Command) else topics.alerts
    return (
        note_of(topics.models, version),
        note_of(topics.audit, audit),
        note_of(where, asked),
        note_of(topics.training, event),
    )


def _numbered(run: Run, made: Made, known: Registered, now_ms: int) -> ModelVersion:
    """Return the version as it is registered. One that did not pass is put away; a person can restore it.

    That counts as no change, so that whatever control decides of it weighs more.
    """
    version = msgspec.structs.replace(
        made.version, version=next_version(known.versions.values(), made.version), run_id=run.run_id
    )
    if not made.passed:
        version = msgspec.structs.replace(
            version, status="archived", changed_by=TRAINER, changed_time_ms=now_ms, reason=_verdict(made, version)
        )
    try:
        return decode(ModelVersion, encode(version))
    except InvalidEvent as error:
        raise PenstockError(f"the candidate {version.model_id} cannot be recorded: {error}") from error


def _verdict(made: Made, version: ModelVersion) -> str:
    if made.passed:
        return f"model {version.model_id} passed {_count(len(made.gates))}"
    against = "; ".join(gate.message for gate in made.gates if not gate.passed)
    return f"model {version.model_id} did not pass: {against}"


def _count(gates: int) -> str:
    return "its gate" if gates == 1 else f"all {gates} gates" if gates else "without a gate"


def _follow_up(
    spec: StreamSpec, run: Run, made: Made, version: ModelVersion, known: Registered, now_ms: int
) -> tuple[Command | Alert, str]:
    """Return what is asked for of control or of people, and that in words."""
    assert spec.training is not None
    if not made.passed:
        return _rejection(spec, run, made, version, now_ms), "it is archived, and nothing else changes"
    approve: Approval = spec.training.approve
    why = _why_not_compared(run, known)
    if approve == "manual":
        return _proposal(spec, run, made, version, why, now_ms), "an alert asks for its promotion"
    if why and approve != "shadow":  # which takes nobody's place
        return _proposal(spec, run, made, version, why, now_ms), f"an alert asks a person, for {why}"
    command = _command(spec, run, version, known, approve, now_ms)
    try:
        rerouted(command, known.history, _finder(known, version), now_ms)
    except PenstockError as error:
        why = f"control would refuse {_ASKED[approve]}: {error}"
        return _proposal(spec, run, made, version, why, now_ms), f"an alert asks a person, for {why}"
    return command, f"control is asked {_ASKED[approve]}"


def _why_not_compared(run: Run, known: Registered) -> str:
    """Return why it may not take the place of what serves by now, in words; an empty text if it may.

    A learner puts a newer version of its lineage in the place of the older all the time: that is the same champion.
    """
    routes = routes_of(known.history)
    before, now = run.champion, routes.champion
    if routes.held:
        return f"champion {now} was brought back by a roll-back, and stays until a person promotes another"
    if now == (before.model_id if before is not None else None):
        return ""
    present = known.versions.get(now or "")
    if before is not None and present is not None and before.lineage and before.lineage == present.lineage:
        return ""
    compared = before.model_id if before is not None else "no champion"
    return f"it was compared with {compared}, and {now or 'no model'} serves by now"


def _finder(known: Registered, version: ModelVersion) -> Callable[[str], ModelVersion | None]:
    """Return what finds versions with the newest one among them."""
    return {version.model_id: version, **known.versions}.get


def _command(
    spec: StreamSpec, run: Run, version: ModelVersion, known: Registered, approve: Approval, now_ms: int
) -> Command:
    fields: dict[str, Any]
    match approve:
        case "rollout":
            fields = {
                "action": "start",
                "experiment_id": version.model_id,
                "plan": known.plan,
                "variants": {CHALLENGER: version.model_id},
                "shares": {CHALLENGER: known.plan.steps[0]},
            }
        case "shadow":
            fields = {"action": "shadow", "model_id": version.model_id}
        case _:
            fields = {"action": "promote", "model_id": version.model_id}
    return Command(
        stream=spec.name,
        expected_champion=routes_of(known.history).champion or "",
        issued_by=TRAINER,
        issued_time_ms=now_ms,
        correlation_id=f"{run.run_id}-{fields['action']}",
        reason=f"it passed the gates of training run {run.run_id}",
        **fields,
    )


def _proposal(spec: StreamSpec, run: Run, made: Made, version: ModelVersion, why: str, now_ms: int) -> Alert:
    """Return the alert that asks a person to use a candidate, and `why` that was not done."""
    assert spec.training is not None
    by_hand = _BY_HAND[spec.training.approve] if run.champion is not None else _BY_HAND["manual"]
    return _alert(
        run,
        spec,
        now_ms,
        kind="candidate",
        severity="medium",
        subject=version.model_id,
        message="; ".join(filter(None, (_verdict(made, version), *made.notes, why))),
        recommendation=_by_hand(by_hand, version.model_id, spec.name),
    )


def refused(command: Command, reason: str, now_ms: int) -> Alert:
    """Return the alert that asks a person, where control has refused what a run has asked for."""
    approve: Approval = "rollout" if command.action == "start" else "shadow" if command.action == "shadow" else "auto"
    model_id = command.model_id or command.experiment_id
    return Alert(
        id=_id_of("alert", command.stream, "candidate", command.correlation_id),
        stream=command.stream,
        kind="candidate",
        severity="medium",
        subject=model_id,
        message=f"model {model_id} passed its gates, and control refused {_ASKED[approve]}: {reason}",
        recommendation=_by_hand(_BY_HAND[approve], model_id, command.stream),
        raised_time_ms=now_ms,
    )


def _by_hand(words: str, model_id: str, stream: str) -> str:
    return (
        f"Read its card (penstock models card {model_id} --stream {stream}), then: "
        f"penstock {words} {model_id} --stream {stream}"
    )


def _rejection(spec: StreamSpec, run: Run, made: Made, version: ModelVersion, now_ms: int) -> Alert:
    return _alert(
        run,
        spec,
        now_ms,
        kind="candidate",
        severity="low",
        subject=version.model_id,
        message="; ".join((_verdict(made, version), *made.notes)),
        recommendation=f"Nothing has to be done: what serves goes on serving. To use it all the same, read its card "
        f"(penstock models card {version.model_id} --stream {spec.name}) and restore it: "
        f"penstock models move {version.model_id} staging --stream {spec.name}",
    )


def _alert(
    run: Run,
    spec: StreamSpec,
    now_ms: int,
    *,
    kind: Literal["candidate", "training"],
    severity: Literal["low", "medium"],
    subject: str,
    message: str,
    recommendation: str,
) -> Alert:
    return Alert(
        id=_id_of("alert", spec.name, kind, run.run_id),
        stream=spec.name,
        kind=kind,
        severity=severity,
        subject=subject,
        message=message,
        recommendation=recommendation,
        raised_time_ms=now_ms,
    )


def _id_of(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
