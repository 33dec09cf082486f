"""What control answers to commands of experiments, to moves, and to bad commands, and what it writes."""

from typing import Any

import msgspec
import pytest

from agents.shelf import ModelUnusable
from schemas.events import ModelVersion
from schemas.experiments import ExperimentPlan
from schemas.wire import decode, encode
from tests.controlling import COMMANDS, SPEC, Bench, command_of
from tests.support import version_of


def _start(revision: int = 1, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "action": "start",
        "experiment_id": "x",
        "plan": ExperimentPlan(metric="brier"),
        "variants": {"b": "m2", "c": "m3"},
        "shares": {"b": 0.25, "c": 0.05},
        "correlation_id": "start",
    }
    return command_of("", revision, **(fields | changes))


@pytest.fixture
async def serving() -> Bench:
    bench = Bench()
    bench.models.fold(encode(version_of(SPEC, name)) for name in ("m1", "m2", "m3", "s1"))
    await bench.control.open({COMMANDS: 0})
    await bench.take(command_of("m1", 0))
    bench.deployments.fold(value for _, value in bench.written["flights.deployments"])
    bench.models.fold(value for _, value in bench.written["flights.models"])
    bench.proved.clear()
    bench.written.clear()
    return bench


async def test_an_experiment_starts_gets_other_shares_and_ends(serving: Bench) -> None:
    other = {"experiment_id": "x", "expected_epoch": 0, "shares": {"b": 0.5, "c": 0.1}}
    answers = await serving.take(
        _start(reason="try two"),
        command_of("", None, action="reshare", correlation_id="more", **other),
        command_of("", 3, action="stop", experiment_id="x", correlation_id="stop"),
    )
    assert [(answer.outcome, answer.reason, answer.experiment_id) for answer in answers] == [
        ("done", "experiment x runs: champion has 70 %, b has 25 %, c has 5 %", "x"),
        ("done", "experiment x runs: champion has 40 %, b has 50 %, c has 10 %", "x"),
        ("done", "experiment x has ended: the champion serves all", "x"),
    ]
    first, second, third = serving.routing
    assert first.experiment is not None
    assert second.experiment is not None
    assert (first.revision, first.reason, first.experiment.started_time_ms) == (2, "try two", 7000)
    assert (second.experiment.epoch, third.experiment) == (1, None)
    assert serving.statuses == [("m2", "testing", 1, "ada"), ("m3", "testing", 1, "ada")]


async def test_every_variant_is_proved_with_room_for_all_that_is_routed_together(serving: Bench) -> None:
    await serving.take(command_of("s1", 1, action="shadow"))
    serving.proved.clear()
    await serving.take(_start(2))
    assert serving.proved == [("m2", "m1", "s1", "m3"), ("m3", "m1", "s1", "m2")]
    serving.proved.clear()
    other = {"experiment_id": "x", "shares": {"b": 0.5, "c": 0.1}}
    await serving.take(
        command_of("", 3, action="reshare", **other), command_of("", 4, action="stop", experiment_id="x")
    )
    assert serving.proved == []


@pytest.mark.parametrize("action", ["start", "reshare", "stop"])
async def test_a_command_of_an_experiment_that_comes_again_changes_nothing_also_after_a_restart(
    serving: Bench, action: str
) -> None:
    if action != "start":
        await serving.take(_start(1))
    revision = 1 if action == "start" else 2
    command = {
        "start": _start(revision),
        "reshare": command_of("", 2, action="reshare", experiment_id="x", shares={"b": 0.5, "c": 0.1}),
        "stop": command_of("", 2, action="stop", experiment_id="x"),
    }[action]
    first, second = await serving.take(command, command)
    deployments, statuses = len(serving.routing), len(serving.statuses)
    serving.deployments.fold(value for _, value in serving.written["flights.deployments"])
    serving.models.fold(value for _, value in serving.written["flights.models"])
    await serving.control.open({COMMANDS: 0})
    [third] = await serving.take(command)
    assert first == second == third
    assert (first.outcome, first.revision) == ("done", revision + 1)
    assert (len(serving.routing), len(serving.statuses)) == (deployments, statuses)


async def test_the_promotion_of_a_variant_says_which_experiment_it_ended(serving: Bench) -> None:
    await serving.take(_start(1))
    [answer] = await serving.take(command_of("m2", 2))
    assert (answer.outcome, answer.experiment_id, serving.routing[-1].experiment) == ("done", "x", None)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (_start(variants={"b": "m9"}, shares={"b": 0.1}), "no model 'm9' is registered"),
        (_start(variants={"b": "old"}, shares={"b": 0.1}), "model old is archived; restore it first"),
        (_start(0), "is at revision 1, not at 0"),
        (_start(shares={"b": 0.9, "c": 0.2}), "add up to 110 %, which is more than 100 %"),
        (_start(variants={"b": "damaged"}, shares={"b": 0.1}), "the file of model damaged is damaged"),
        (_start(plan=None), "must have a plan"),
        (command_of("m2", 1, action="move"), "a command to move must name a status"),
        (command_of("m1", 1, action="move", status="archived"), "model m1 is the champion"),
        (command_of("", 1, action="reshare", experiment_id="x"), "experiment 'x' does not run"),
        (command_of("", 1, action="stop"), "a command to stop must name the experiment"),
        (command_of("", 1, action="rollback"), "there is no previous champion to go back to"),
        (command_of("", 1), "a command to promote must name a model"),
        (command_of("", 1, action="shadow"), "a command to shadow must name a model"),
        (command_of("", 1, action="succeed"), "a command to succeed must name a model"),
        (command_of("damaged", 1), "the file of model damaged is damaged"),
    ],
)
async def test_a_bad_command_is_refused_explained_and_audited_and_changes_nothing(
    serving: Bench, command: bytes, sentence: str
) -> None:
    archived = msgspec.structs.replace(version_of(SPEC, "old"), status="archived")
    serving.models.fold([encode(archived), encode(version_of(SPEC, "damaged"))])
    serving.broken["damaged"] = ModelUnusable("the file of model damaged is damaged")
    [answer] = await serving.take(command)
    assert (answer.outcome, answer.revision) == ("refused", 1)
    assert sentence in answer.reason
    assert set(serving.written) == {"flights.audit"}


async def test_a_second_experiment_is_refused_while_one_runs(serving: Bench) -> None:
    await serving.take(_start())
    serving.written.clear()
    [answer] = await serving.take(_start(2, experiment_id="y", correlation_id="second"))
    assert (answer.outcome, answer.experiment_id) == ("refused", "y")
    assert (
        answer.reason
        == "experiment 'x' runs, and a stream has one at a time; stop it first: penstock experiments stop x"
    )
    assert set(serving.written) == {"flights.audit"}


async def test_a_model_is_moved_without_any_routing_and_once(serving: Bench) -> None:
    command = command_of("m2", None, action="move", status="archived", reason="no use")
    answers = await serving.take(command, command, command_of("m2", 1))
    assert [(answer.outcome, answer.reason) for answer in answers] == [
        ("done", "model m2 has the status archived"),
        ("done", "model m2 has the status archived"),
        ("refused", "model m2 is archived; restore it first: penstock models move m2 staging"),
    ]
    assert serving.statuses == [("m2", "archived", 1, "ada")]
    assert serving.routing == []
    restored, promoted = await serving.take(
        command_of("m2", None, action="move", status="staging"), command_of("m2", 1, correlation_id="now")
    )
    assert (restored.outcome, promoted.outcome) == ("done", "done")


async def test_what_is_said_of_a_version_meanwhile_is_kept_with_its_new_status(serving: Bench) -> None:
    await serving.take(command_of("m2", None, action="move", status="testing"))
    measured = msgspec.structs.replace(version_of(SPEC, "m2"), baseline="1" * 64, baseline_bytes=9)
    serving.models.fold([encode(measured)])
    await serving.take(command_of("m2", None, action="move", status="staging"))
    newest = decode(ModelVersion, serving.written["flights.models"][-1][1])
    assert (newest.status, newest.changes, newest.baseline) == ("staging", 2, "1" * 64)
