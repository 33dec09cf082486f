"""What is written when a training run has ended: the candidate, and what is done with it."""

from collections.abc import Sequence
from typing import Any, cast, get_args

import msgspec
import pytest

from agents.routing import rerouted
from agents.train.ending import Note, Registered, failed, made, queued, skipped
from agents.train.job import Failed, Made
from agents.train.queue import Asked, Run, Skip
from schemas.errors import PenstockError
from schemas.events import Alert, AuditEvent, Command, Deployment, ModelVersion
from schemas.experiments import ExperimentPlan
from schemas.runs import TrainingEvent
from schemas.streams import StreamSpec
from schemas.training import Approval
from schemas.wire import decode
from tests.support import deployment_of, experiment_of, version_of
from tests.training import job_of, made_of, spec_of
from topics.specs import StreamTopics

TOPICS = StreamTopics("flights")
TYPES: dict[str, type[msgspec.Struct]] = {
    TOPICS.models: ModelVersion,
    TOPICS.audit: AuditEvent,
    TOPICS.commands: Command,
    TOPICS.alerts: Alert,
    TOPICS.training: TrainingEvent,
}
NOW_MS = 1234
ASKED = Asked(id="r1", reason="drift", time_ms=5, by="judge")
PLAN = ExperimentPlan(metric="brier", steps=(0.1, 0.5, 1.0))
CHAMPION = version_of(spec_of(), "champion")


def run_of(champion: ModelVersion | None = CHAMPION) -> Run:
    return Run(run_id="run-1", requests=(ASKED,), started_time_ms=1000, stop_offset=100, champion=champion, attempt=2)


def known_of(*history: Deployment, versions: Sequence[ModelVersion] = (CHAMPION,)) -> Registered:
    return Registered({version.model_id: version for version in versions}, history, PLAN)


def read(notes: Sequence[Note]) -> dict[str, Any]:
    """Return what is written, by topic; one record for each."""
    found = {note.topic: decode(TYPES[note.topic], bytes(note.value)) for note in notes}
    assert len(found) == len(notes)
    return found


def written(
    approve: Approval, *history: Deployment, candidate: Made | None = None, champion: ModelVersion | None = CHAMPION
) -> dict[str, Any]:
    spec = spec_of(approve=approve)
    candidate = candidate or made_of(job_of())
    return read(made(spec, run_of(champion), candidate, known_of(*history), NOW_MS))


def test_a_candidate_is_registered_with_its_number_and_the_audit_log_says_by_which_run() -> None:
    versions = [msgspec.structs.replace(CHAMPION, version="3.1.0")]
    notes = made(
        spec_of(), run_of(), made_of(job_of()), known_of(deployment_of(spec_of(), "champion", 4), versions=versions), 9
    )
    found = read(notes)
    version, audit, event = found[TOPICS.models], found[TOPICS.audit], found[TOPICS.training]
    assert (version.version, version.run_id, version.status) == ("3.2.0", "run-1", "draft")
    assert (audit.action, audit.outcome, audit.model_id) == ("register", "done", version.model_id)
    assert (audit.correlation_id, audit.revision, audit.issued_by) == ("run-1", 4, "train")
    assert (event.outcome, event.attempt, event.champion) == ("accepted", 2, "champion")
    assert (event.request_ids, event.reasons) == (("r1",), ("drift",))
    assert (event.samples, event.metrics, event.gates) == (1000, {"accuracy": 0.75}, made_of(job_of()).gates)
    assert (event.started_time_ms, event.time_ms) == (1000, 9)


def test_a_person_is_asked_and_told_the_very_command() -> None:
    found = written("manual", deployment_of(spec_of(), "champion", 1))
    alert = found[TOPICS.alerts]
    model_id = found[TOPICS.models].model_id
    assert (alert.kind, alert.subject) == ("candidate", model_id)
    assert alert.recommendation.endswith(f"penstock models promote {model_id} --stream flights")
    assert TOPICS.commands not in found


@pytest.mark.parametrize(
    ("approve", "action", "words"),
    [
        ("shadow", "shadow", "control is asked to score with it beside the champion"),
        ("rollout", "start", "control is asked to roll it out"),
        ("auto", "promote", "control is asked to promote it"),
    ],
)
def test_control_is_asked_for_what_the_stream_wants_and_would_do_it(approve: Approval, action: str, words: str) -> None:
    history = [deployment_of(spec_of(), "champion", 7)]
    found = written(approve, *history)
    command, version = found[TOPICS.commands], found[TOPICS.models]
    expected = (command.expected_champion, command.expected_revision)
    assert (command.action, *expected) == (action, "champion", None), "a learner moves the revision all the time"
    assert (command.issued_by, command.correlation_id) == ("train", f"run-1-{action}")
    assert found[TOPICS.training].follow_up == words
    assert TOPICS.alerts not in found
    routes = rerouted(command, history, {version.model_id: version, "champion": CHAMPION}.get, NOW_MS)
    assert version.model_id in routes.routed
    if approve == "rollout":
        assert routes.experiment is not None
        assert (routes.experiment.kind, routes.experiment.plan) == ("rollout", PLAN)
        assert (command.experiment_id, command.shares) == (version.model_id, {"challenger": 0.1})


@pytest.mark.parametrize("approve", ["rollout", "auto"])
def test_while_an_experiment_runs_a_person_is_asked_instead(approve: Approval) -> None:
    busy = msgspec.structs.replace(
        deployment_of(spec_of(), "champion", 7), experiment=experiment_of("champion", "other", experiment_id="x")
    )
    found = written(approve, busy)
    alert = found[TOPICS.alerts]
    assert TOPICS.commands not in found
    assert "'x' runs" in alert.message
    assert found[TOPICS.training].follow_up.startswith("an alert asks a person, for control would refuse")


@pytest.mark.parametrize("approve", ["shadow", "rollout"])
def test_the_first_model_of_a_stream_can_only_be_promoted(approve: Approval) -> None:
    found = written(approve, champion=None)
    assert "no champion yet" in found[TOPICS.alerts].message
    assert "penstock models promote" in found[TOPICS.alerts].recommendation
    assert "promote" in written("auto", champion=None)[TOPICS.commands].action


@pytest.mark.parametrize("approve", get_args(Approval))
def test_a_candidate_that_did_not_pass_is_put_away_whatever_the_stream_wants(approve: Approval) -> None:
    history = deployment_of(spec_of(), "champion", 1)
    found = written(approve, history, candidate=made_of(job_of(), passed=False))
    version, alert, event = found[TOPICS.models], found[TOPICS.alerts], found[TOPICS.training]
    assert (version.status, version.changes, version.changed_by) == ("archived", 0, "train")
    assert alert.severity == "low"
    assert (event.outcome, event.message) == ("rejected", version.reason)
    assert "ROC AUC 0.52 of 0.7" in alert.message
    assert TOPICS.commands not in found


@pytest.mark.parametrize("approve", ["manual", "rollout", "auto"])
@pytest.mark.parametrize(
    ("champion", "present", "held", "words"),
    [
        (CHAMPION, "other", False, "it was compared with champion, and other serves by now"),
        (None, "other", False, "it was compared with no champion, and other serves by now"),
        (CHAMPION, "champion", True, "champion champion was brought back by a roll-back"),
    ],
)
def test_over_a_champion_that_it_was_not_compared_with_or_that_was_brought_back_a_person_is_asked(
    approve: Approval, champion: ModelVersion | None, present: str, held: bool, words: str
) -> None:
    routed = msgspec.structs.replace(deployment_of(spec_of(), present, 7), held=held)
    found = read(
        made(
            spec_of(approve=approve),
            run_of(champion),
            made_of(job_of()),
            known_of(routed, versions=[CHAMPION, version_of(spec_of(), "other")]),
            NOW_MS,
        )
    )
    assert TOPICS.commands not in found
    assert words in found[TOPICS.alerts].message
    assert "penstock" in found[TOPICS.alerts].recommendation


@pytest.mark.parametrize(("lineage", "asks"), [("sgd", TOPICS.commands), ("trees", TOPICS.alerts), ("", TOPICS.alerts)])
def test_a_newer_version_of_the_champion_s_lineage_counts_as_the_champion(lineage: str, asks: str) -> None:
    before = msgspec.structs.replace(CHAMPION, lineage="sgd" if lineage else "")
    newer = msgspec.structs.replace(version_of(spec_of(), "newer"), lineage=lineage)
    known = known_of(deployment_of(spec_of(), "newer", 7), versions=[before, newer])
    found = read(made(spec_of(approve="auto"), run_of(before), made_of(job_of()), known, NOW_MS))
    assert asks in found


def test_a_shadow_takes_nobody_s_place_so_it_begins_beside_whatever_serves() -> None:
    versions = [CHAMPION, version_of(spec_of(), "other")]
    known = known_of(deployment_of(spec_of(), "other", 7), versions=versions)
    found = read(made(spec_of(approve="shadow"), run_of(), made_of(job_of()), known, NOW_MS))
    assert found[TOPICS.commands].action == "shadow"


def test_a_failure_says_why_and_that_the_champion_stays() -> None:
    why = Failed(message="only one class in the training data", again=False, samples=12, from_time_ms=55, to_time_ms=99)
    found = read(failed(spec_of(), run_of(), why, NOW_MS))
    alert, event = found[TOPICS.alerts], found[TOPICS.training]
    assert (alert.kind, alert.severity, alert.subject) == ("training", "medium", "run-1")
    assert why.message in alert.message
    assert "champion champion stays" in alert.recommendation
    assert (event.outcome, event.message, event.samples) == ("failed", why.message, 12)
    assert (event.from_time_ms, event.to_time_ms) == (55, 99)
    assert set(found) == {TOPICS.alerts, TOPICS.training}


def test_what_is_written_again_has_the_same_ids() -> None:
    history = deployment_of(spec_of(), "champion", 1)
    first, second = (written(approve, history) for approve in ("manual", "manual"))
    assert first == second
    other = read(failed(spec_of(), run_of(), Failed(message="why", again=False), NOW_MS + 1))
    same = read(failed(spec_of(), run_of(), Failed(message="why", again=False), NOW_MS))
    assert other[TOPICS.alerts].id == same[TOPICS.alerts].id


def test_a_candidate_that_nobody_could_read_back_is_refused_with_a_sentence() -> None:
    candidate = made_of(job_of(), metrics={"roc_auc": float("nan")})
    with pytest.raises(PenstockError, match="cannot be recorded"):
        written("manual", deployment_of(spec_of(), "champion", 1), candidate=candidate)


def test_a_skipped_request_and_one_that_waits_say_so() -> None:
    spec: StreamSpec = spec_of()
    event = decode(TrainingEvent, bytes(skipped(spec, Skip(ASKED, "it is too early"), NOW_MS).value))
    assert (event.outcome, event.request_ids, event.message) == ("skipped", ("r1",), "it is too early")
    waiting = decode(TrainingEvent, bytes(queued(spec, [ASKED], "run-0", NOW_MS).value))
    assert (waiting.phase, waiting.run_id, waiting.outcome) == ("waiting", event.run_id, None)
    assert waiting.message == "it waits for the end of run-0"


def test_every_way_to_approve_has_its_words() -> None:
    for approve in get_args(Approval):
        found = written(cast(Approval, approve), deployment_of(spec_of(), "champion", 1))
        assert found[TOPICS.training].follow_up
