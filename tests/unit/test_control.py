"""What control answers to commands, and what it writes."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from agents.control import LOAD_TIMEOUT_S, STORE_PATIENCE_S
from agents.shelf import ModelShelf, ModelUnusable
from schemas.events import Alert, AuditEvent, DeadLetter, Deployment, ModelVersion
from schemas.runs import TRAINER
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stores.artifacts import ArtifactUnavailable
from tests.controlling import COMMANDS, SPEC, Bench, command_of
from tests.support import Model, deployment_of, leap_through, now, version_of


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    bench.models.fold(encode(version_of(SPEC, name)) for name in ("m1", "m2"))
    await bench.control.open({COMMANDS: 0})
    return bench


async def test_a_promotion_is_routed_and_answered_under_the_stream_s_key(bench: Bench) -> None:
    [answer] = await bench.take(command_of())
    assert bench.routing == [
        Deployment(
            stream="flights",
            revision=1,
            champion="m1",
            changed_time_ms=7000,
            changed_by="ada",
            correlation_id="m1@0",
        )
    ]
    assert answer == AuditEvent(
        stream="flights",
        correlation_id="m1@0",
        action="promote",
        issued_by="ada",
        outcome="done",
        reason="model m1 is the champion",
        model_id="m1",
        revision=1,
        decided_time_ms=7000,
    )
    assert {key for records in bench.written.values() for key, _ in records} == {b"flights"}


async def test_of_two_who_saw_the_same_routing_the_second_is_refused(bench: Bench) -> None:
    first, second = await bench.take(command_of("m1"), command_of("m2"))
    assert (first.outcome, second.outcome) == ("done", "refused")
    assert "at revision 1, not at 0 as the command expects" in second.reason
    assert second.revision == 1
    assert [deployment.champion for deployment in bench.routing] == ["m1"]


async def test_revisions_go_on_counting(bench: Bench) -> None:
    for revision, name in enumerate(("m1", "m2", "m1")):
        await bench.take(command_of(name, revision))
    assert [(deployment.revision, deployment.champion) for deployment in bench.routing] == [
        (1, "m1"),
        (2, "m2"),
        (3, "m1"),
    ]


async def test_a_command_that_comes_again_is_answered_again_but_carried_out_once(bench: Bench) -> None:
    await bench.take(command_of())
    [answer] = await bench.take(command_of())
    assert answer.outcome == "done"
    assert len(bench.routing) == 1


async def test_it_goes_on_from_its_own_log_and_knows_what_was_carried_out_before(bench: Bench) -> None:
    bench.deployments.fold([encode(deployment_of(SPEC, "m2", 4))])
    await bench.control.open({COMMANDS: 0})
    again, newer = await bench.take(command_of("m2", 3, correlation_id="command-4"), command_of("m1", 4))
    assert (again.outcome, newer.outcome) == ("done", "done")
    assert [deployment.revision for deployment in bench.routing] == [5]


async def test_what_was_never_committed_is_forgotten_when_it_opens_again(bench: Bench) -> None:
    await bench.take(command_of())
    await bench.control.open({COMMANDS: 0})
    [answer] = await bench.take(command_of())
    assert answer.revision == 1
    assert [deployment.revision for deployment in bench.routing] == [1, 1]


async def test_a_model_registered_just_before_its_command_is_known(bench: Bench) -> None:
    bench.late = [version_of(SPEC, "m3")]
    [answer] = await bench.take(command_of("m3"))
    assert answer.outcome == "done"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (command_of("m9"), "no model 'm9' is registered in stream 'flights'"),
        (command_of(stream="fraud"), "the command is for stream 'fraud'; this is 'flights'"),
        (command_of(expected_revision=3), "the routing is at revision 0, not at 3 as the command expects"),
    ],
)
async def test_a_command_that_cannot_be_carried_out_is_refused_with_a_reason(
    bench: Bench, command: bytes, sentence: str
) -> None:
    [answer] = await bench.take(command)
    assert answer.outcome == "refused"
    assert sentence in answer.reason
    assert bench.routing == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (command_of(expected_revision=3, issued_by=TRAINER), "penstock models promote m1 --stream flights"),
        (command_of(expected_revision=3, issued_by=TRAINER, action="shadow"), "penstock models shadow m1 --stream"),
        (
            command_of("", 3, issued_by=TRAINER, action="start", experiment_id="m1"),
            "penstock rollouts start m1 --stream flights",
        ),
    ],
)
async def test_a_training_run_is_over_by_then_so_what_it_is_refused_a_person_is_asked(
    bench: Bench, command: bytes, words: str
) -> None:
    for _ in range(2):  # without transactions it may come again
        [answer] = await bench.take(command)
    first, again = [decode(Alert, value) for _, value in bench.written["flights.alerts"]]
    assert first == again
    assert (first.kind, first.severity, first.subject, first.stream) == ("candidate", "medium", "m1", "flights")
    assert answer.reason in first.message
    assert words in first.recommendation


async def test_what_is_done_or_refused_to_others_raises_no_alert(bench: Bench) -> None:
    await bench.take(command_of(expected_revision=3), command_of("m2", issued_by=TRAINER))
    assert bench.written["flights.alerts"] == []


async def test_a_model_that_cannot_be_served_is_refused_before_anything_is_routed(bench: Bench) -> None:
    bench.broken["m1"] = ModelUnusable("the signature of model 'm1' is wrong")
    [answer] = await bench.take(command_of())
    assert (answer.outcome, answer.reason, answer.revision) == ("refused", "the signature of model 'm1' is wrong", 0)
    assert bench.routing == []


async def test_a_record_that_is_no_command_is_a_dead_letter_and_the_next_one_is_heard(bench: Bench) -> None:
    unknown = msgspec.json.encode(msgspec.json.decode(command_of()) | {"action": "explode"})
    [answer] = await bench.take(b"{broken", None, unknown, command_of())
    assert answer.outcome == "done"
    letters = [decode(DeadLetter, value) for _, value in bench.written["flights.commands.dead"]]
    assert [(letter.offset, letter.reason, letter.stage) for letter in letters] == [
        (0, "malformed_json", "control"),
        (1, "empty", "control"),
        (2, "invalid_field", "control"),
    ]
    assert "'explode'" in letters[2].message
    labels = {"stream": "flights", "stage": "control", "reason": "empty"}
    assert bench.metrics.registry.get_sample_value("ml_dead_letters_total", labels) == 1


async def test_shadows_come_and_go_and_a_promotion_keeps_the_others(bench: Bench) -> None:
    bench.models.fold(encode(version_of(SPEC, name)) for name in ("s1", "s2"))
    answers = await bench.take(
        command_of("m1", 0),
        command_of("s1", 1, action="shadow"),
        command_of("s2", 2, action="shadow"),
        command_of("s2", 3),
        command_of("s1", 4, action="unshadow", correlation_id="away"),
    )
    assert [(answer.outcome, answer.reason) for answer in answers] == [
        ("done", "model m1 is the champion"),
        ("done", "model s1 is a shadow"),
        ("done", "model s2 is a shadow"),
        ("done", "model s2 is the champion"),
        ("done", "model s1 is no shadow any more"),
    ]
    assert [(d.revision, d.champion, d.shadows) for d in bench.routing] == [
        (1, "m1", ()),
        (2, "m1", ("s1",)),
        (3, "m1", ("s1", "s2")),
        (4, "s2", ("s1",)),
        (5, "s2", ()),
    ]


async def test_every_candidate_is_proved_with_room_beside_all_that_is_routed_with_it(bench: Bench) -> None:
    bench.models.fold(encode(version_of(SPEC, name)) for name in ("s1", "s2"))
    await bench.take(command_of("m1", 0), command_of("s1", 1, action="shadow"), command_of("s2", 2, action="shadow"))
    bench.broken["s1"] = ModelUnusable("it is gone")
    await bench.take(command_of("m2", 3), command_of("s1", 4, action="unshadow"))
    assert bench.proved == [("m1",), ("s1", "m1"), ("s2", "m1", "s1"), ("m2", "s1", "s2")]
    assert bench.routing[-1].shadows == ("s2",)


async def test_a_shadow_that_cannot_be_loaded_is_refused(bench: Bench) -> None:
    await bench.take(command_of("m1", 0))
    bench.broken["m2"] = ModelUnusable("model m2 was pruned")
    [answer] = await bench.take(command_of("m2", 1, action="shadow"))
    assert (answer.outcome, answer.reason, answer.revision) == ("refused", "model m2 was pruned", 1)
    assert len(bench.routing) == 1


async def test_a_learner_s_version_follows_the_one_before_it_without_naming_a_revision(bench: Bench) -> None:
    bench.models.fold(
        encode(msgspec.structs.replace(version_of(SPEC, f"v{offset}"), lineage="online", samples_offset=offset))
        for offset in (10, 20, 30)
    )
    shadow = {"action": "shadow", "correlation_id": "first"}
    [_, first, second, late] = await bench.take(
        command_of("m1", 0),
        command_of("v10", None, **shadow),
        command_of("v30", None, action="succeed"),
        command_of("v20", None, action="succeed"),
    )
    assert (first.outcome, second.outcome, late.outcome) == ("done", "done", "refused")
    assert second.reason == "model v30 took the place of the routed version of its lineage"
    assert [d.shadows for d in bench.routing] == [(), ("v10",), ("v30",)]
    again, refused = await bench.take(command_of("v10", None, **shadow), command_of("v10", None, action="shadow"))
    assert (again.outcome, refused.outcome) == ("done", "refused")
    assert len(bench.routing) == 3


@pytest.mark.parametrize("action", ["shadow", "unshadow", "succeed"])
async def test_every_action_that_comes_again_is_carried_out_once_also_after_a_restart(
    bench: Bench, action: str
) -> None:
    for offset in (1, 2):
        version = msgspec.structs.replace(version_of(SPEC, f"v{offset}"), lineage="online", samples_offset=offset)
        bench.models.fold([encode(version)])
    await bench.take(command_of("m1", 0), command_of("v1", 1, action="shadow", correlation_id="before"))
    command = {
        "shadow": command_of("m2", 2, action="shadow", correlation_id="c"),
        "unshadow": command_of("v1", 2, action="unshadow", correlation_id="c"),
        "succeed": command_of("v2", None, action="succeed", correlation_id="c"),
    }[action]
    first, second = await bench.take(command, command)
    bench.deployments.fold(value for _, value in bench.written["flights.deployments"])
    await bench.control.open({COMMANDS: 0})
    [third] = await bench.take(command)
    assert first == second == third
    assert (first.outcome, first.revision, len(bench.routing)) == ("done", 3, 3)


def test_a_store_that_is_away_is_waited_for_and_then_the_command_is_refused() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.models.fold(encode(version_of(SPEC, name)) for name in ("m1", "m2"))
        bench.broken["m1"] = ArtifactUnavailable("it is away")
        asyncio.get_running_loop().call_later(STORE_PATIENCE_S / 2, bench.broken.clear)
        [answer] = await bench.take(command_of())
        assert (answer.outcome, answer.revision) == ("done", 1)
        bench.broken["m2"] = ArtifactUnavailable("it is away")
        began_s = now()
        [refused] = await bench.take(command_of("m2", 1))
        assert now() - began_s <= STORE_PATIENCE_S + 1.0
        assert (refused.outcome, refused.revision) == ("refused", 1)
        assert refused.reason == "the model store does not answer: it is away; try again"
        bench.broken.clear()
        [answer] = await bench.take(command_of("m2", 1))  # the same command
        assert (answer.outcome, answer.revision) == ("done", 2)

    leap_through(scenario())


async def test_a_roll_back_to_what_is_loaded_needs_no_store() -> None:
    away: list[str] = []

    def open_model(version: ModelVersion) -> Model:
        if version.model_id in away:
            raise ArtifactUnavailable("it is away")
        return Model()

    shelf = ModelShelf(open_model, 1000)
    bench = Bench()
    bench.get = shelf.get  # type: ignore[method-assign]
    bench.models.fold(encode(version_of(SPEC, name)) for name in ("m1", "m2"))
    await bench.take(command_of("m1", 0), command_of("m2", 1))
    away += ["m1", "m2"]
    [answer] = await bench.take(command_of("", 2, action="rollback"))
    assert (answer.outcome, bench.routing[-1].champion) == ("done", "m1")


async def test_a_command_whose_statuses_were_never_written_writes_them_when_it_comes_again(bench: Bench) -> None:
    await bench.take(command_of("m1", 0))
    bench.deployments.fold(value for _, value in bench.written["flights.deployments"])
    bench.models.fold(value for _, value in bench.written["flights.models"])
    halfway = msgspec.structs.replace(
        deployment_of(SPEC, "m2", 2), correlation_id="m2@1", previous="m1", changed_time_ms=7000
    )
    bench.deployments.fold([encode(halfway)])
    await bench.control.open({COMMANDS: 0})
    before = len(bench.statuses)
    [first, again] = await bench.take(command_of("m2", 1), command_of("m2", 1))
    assert (first.outcome, again.outcome, len(bench.routing)) == ("done", "done", 1)
    assert bench.statuses[before:] == [("m2", "production", 1, "ada"), ("m1", "staging", 2, "ada")]


async def test_a_command_that_comes_again_undoes_nothing_that_was_moved_since(bench: Bench) -> None:
    await bench.take(command_of("m1", 0), command_of("m2", 1))
    version = bench.control._find("m1")
    assert version is not None
    later = msgspec.structs.replace(version, status="archived", changes=9, changed_time_ms=8000)
    bench.models.fold([encode(later)])
    before = len(bench.statuses)
    [answer] = await bench.take(command_of("m2", 1))
    assert (answer.outcome, bench.statuses[before:]) == ("done", [])


async def test_statuses_change_in_the_transaction_of_the_routing(bench: Bench) -> None:
    bench.models.fold(encode(version_of(SPEC, name)) for name in ("m3", "s1"))
    commands = [command_of("m1", 0), command_of("s1", 1, action="shadow"), command_of("m2", 2), command_of("m3", 3)]
    await bench.take(*commands, command_of("", 4, action="rollback", reason="it is worse"))
    assert bench.statuses == [
        ("m1", "production", 1, "ada"),
        ("s1", "testing", 1, "ada"),
        ("m2", "production", 1, "ada"),
        ("m1", "staging", 2, "ada"),
        ("m3", "production", 1, "ada"),
        ("m2", "staging", 2, "ada"),
        ("m1", "archived", 3, "ada"),
        ("m2", "production", 3, "ada"),
        ("m3", "staging", 2, "ada"),
    ]
    rolled_back = decode(ModelVersion, bench.written["flights.models"][-1][1])
    assert (rolled_back.reason, rolled_back.changed_time_ms) == ("rolled back: it is worse", 7000)
    labels = {"stream": "flights", "from_status": "production", "to_status": "staging"}
    assert bench.metrics.registry.get_sample_value("ml_model_promotion_total", labels) == 3


async def test_a_roll_back_brings_the_champion_before_back_and_holds_it(bench: Bench) -> None:
    await bench.take(command_of("m1", 0), command_of("m2", 1))
    command = command_of("", 2, action="rollback", reason="too many alarms", correlation_id="back")
    answer, again = await bench.take(command, command)
    assert answer == again
    assert (answer.outcome, answer.reason, answer.model_id) == ("done", "model m1 is the champion again", "m1")
    assert answer.asked_reason == "too many alarms"
    newest = bench.routing[-1]
    assert (newest.champion, newest.previous, newest.held, newest.reason) == ("m1", "", True, "too many alarms")
    assert len(bench.routing) == 3


async def test_a_roll_back_proves_the_champion_that_comes_back_and_no_other(bench: Bench) -> None:
    bench.models.fold([encode(version_of(SPEC, "s1"))])
    await bench.take(command_of("m1", 0), command_of("s1", 1, action="shadow"), command_of("m2", 2))
    bench.proved.clear()
    bench.broken["m1"] = ModelUnusable("its file is damaged")
    [refused] = await bench.take(command_of("", 3, action="rollback"))
    assert (refused.outcome, refused.reason) == ("refused", "its file is damaged")
    assert bench.proved == [("m1", "s1")]
    assert bench.routing[-1].champion == "m2"
    assert bench.statuses[-1][:2] == ("m1", "staging")


def test_a_model_that_takes_too_long_to_load_is_refused() -> None:
    class Slow(Bench):
        async def get(self, spec: StreamSpec, version: ModelVersion, beside: Sequence[ModelVersion] = ()) -> Model:
            await asyncio.sleep(2 * LOAD_TIMEOUT_S)
            return Model()

    async def scenario() -> None:
        bench = Slow()
        bench.models.fold([encode(version_of(SPEC, "m1"))])
        [answer] = await bench.take(command_of())
        assert (answer.outcome, answer.reason) == ("refused", "model m1 could not be loaded within 45 s")

    leap_through(scenario())
