"""What control answers to commands, and what it writes."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agents.control import LOAD_TIMEOUT_S, Control
from agents.shelf import ModelUnusable
from schemas.errors import PenstockError, RetryableError
from schemas.events import AuditEvent, Command, DeadLetter, Deployment, ModelVersion
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import Outbox, TopicPartition
from stream.metrics import Metrics
from stream.views import LogView
from tests.support import Entry, Model, batch, deployment_of, leap_through, version_of

SPEC = StreamSpec(name="flights", features=("a", "b"))
COMMANDS = TopicPartition("flights.commands", 0)


class Bench:
    """A control stage with its views; `written` is what it put into its outboxes, by topic."""

    def __init__(self) -> None:
        self.models: LogView[ModelVersion] = LogView("flights.models", ModelVersion)
        self.deployments: LogView[Deployment] = LogView("flights.deployments", Deployment)
        self.broken: dict[str, PenstockError] = {}
        self.late: list[ModelVersion] = []
        self.proved: list[tuple[str, ...]] = []
        self.metrics = Metrics()
        self.written: dict[str, list[tuple[bytes | None, bytes]]] = defaultdict(list)
        self.control = Control(
            SPEC,
            self.models,
            self.deployments,
            self._catch_up,
            self,  # type: ignore[arg-type]  # as much of a shelf as is used
            self.metrics,
            lambda: 7000,
        )

    async def get(self, spec: StreamSpec, version: ModelVersion, beside: Sequence[ModelVersion] = ()) -> Model:
        self.proved.append((version.model_id, *(other.model_id for other in beside)))
        if version.model_id in self.broken:
            raise self.broken[version.model_id]
        return Model()

    async def _catch_up(self) -> None:
        late, self.late = self.late, []
        self.models.fold(map(encode, late))

    async def take(self, *values: bytes | None) -> list[AuditEvent]:
        """Process one batch and return its answers."""
        outbox = Outbox()
        await self.control.process(batch(COMMANDS, [Entry(i, v, b"flights") for i, v in enumerate(values)]), outbox)
        for target, records in outbox.targets.items():
            assert target.partition == 0
            self.written[target.topic] += [(key, value) for key, value in records]
        new = outbox.targets.get(TopicPartition("flights.audit", 0), [])
        return [decode(AuditEvent, value) for _, value in new]

    @property
    def routing(self) -> list[Deployment]:
        return [decode(Deployment, value) for _, value in self.written["flights.deployments"]]


def _command(model_id: str = "m1", expected_revision: int | None = 0, **changes: Any) -> bytes:
    command = Command(
        stream="flights",
        action="promote",
        model_id=model_id,
        expected_revision=expected_revision,
        issued_by="ada",
        issued_time_ms=6000,
        correlation_id=f"{model_id}@{expected_revision}",
    )
    return encode(msgspec.structs.replace(command, **changes))


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    bench.models.fold(encode(version_of(SPEC, name)) for name in ("m1", "m2"))
    await bench.control.open({COMMANDS: 0})
    return bench


async def test_a_promotion_is_routed_and_answered_under_the_stream_s_key(bench: Bench) -> None:
    [answer] = await bench.take(_command())
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
    first, second = await bench.take(_command("m1"), _command("m2"))
    assert (first.outcome, second.outcome) == ("done", "refused")
    assert "at revision 1, not at 0 as the command expects" in second.reason
    assert second.revision == 1
    assert [deployment.champion for deployment in bench.routing] == ["m1"]


async def test_revisions_go_on_counting(bench: Bench) -> None:
    for revision, name in enumerate(("m1", "m2", "m1")):
        await bench.take(_command(name, revision))
    assert [(deployment.revision, deployment.champion) for deployment in bench.routing] == [
        (1, "m1"),
        (2, "m2"),
        (3, "m1"),
    ]


async def test_a_command_that_comes_again_is_answered_again_but_carried_out_once(bench: Bench) -> None:
    await bench.take(_command())
    [answer] = await bench.take(_command())
    assert answer.outcome == "done"
    assert len(bench.routing) == 1


async def test_it_goes_on_from_its_own_log_and_knows_what_was_carried_out_before(bench: Bench) -> None:
    bench.deployments.fold([encode(deployment_of(SPEC, "m2", 4))])
    await bench.control.open({COMMANDS: 0})
    again, newer = await bench.take(_command("m2", 3, correlation_id="command-4"), _command("m1", 4))
    assert (again.outcome, newer.outcome) == ("done", "done")
    assert [deployment.revision for deployment in bench.routing] == [5]


async def test_what_was_never_committed_is_forgotten_when_it_opens_again(bench: Bench) -> None:
    await bench.take(_command())
    await bench.control.open({COMMANDS: 0})
    [answer] = await bench.take(_command())
    assert answer.revision == 1
    assert [deployment.revision for deployment in bench.routing] == [1, 1]


async def test_a_model_registered_just_before_its_command_is_known(bench: Bench) -> None:
    bench.late = [version_of(SPEC, "m3")]
    [answer] = await bench.take(_command("m3"))
    assert answer.outcome == "done"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (_command("m9"), "no model 'm9' is registered in stream 'flights'"),
        (_command(stream="fraud"), "the command is for stream 'fraud'; this is 'flights'"),
        (_command(expected_revision=3), "the routing is at revision 0, not at 3 as the command expects"),
    ],
)
async def test_a_command_that_cannot_be_carried_out_is_refused_with_a_reason(
    bench: Bench, command: bytes, sentence: str
) -> None:
    [answer] = await bench.take(command)
    assert answer.outcome == "refused"
    assert sentence in answer.reason
    assert bench.routing == []


async def test_a_model_that_cannot_be_served_is_refused_before_anything_is_routed(bench: Bench) -> None:
    bench.broken["m1"] = ModelUnusable("the signature of model 'm1' is wrong")
    [answer] = await bench.take(_command())
    assert (answer.outcome, answer.reason, answer.revision) == ("refused", "the signature of model 'm1' is wrong", 0)
    assert bench.routing == []


async def test_a_record_that_is_no_command_is_a_dead_letter_and_the_next_one_is_heard(bench: Bench) -> None:
    unknown = msgspec.json.encode(msgspec.json.decode(_command()) | {"action": "explode"})
    [answer] = await bench.take(b"{broken", None, unknown, _command())
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
        _command("m1", 0),
        _command("s1", 1, action="shadow"),
        _command("s2", 2, action="shadow"),
        _command("s2", 3),
        _command("s1", 4, action="unshadow", correlation_id="away"),
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
    await bench.take(_command("m1", 0), _command("s1", 1, action="shadow"), _command("s2", 2, action="shadow"))
    bench.broken["s1"] = ModelUnusable("it is gone")
    await bench.take(_command("m2", 3), _command("s1", 4, action="unshadow"))
    assert bench.proved == [("m1",), ("s1", "m1"), ("s2", "m1", "s1"), ("m2", "s1", "s2")]
    assert bench.routing[-1].shadows == ("s2",)


async def test_a_shadow_that_cannot_be_loaded_is_refused(bench: Bench) -> None:
    await bench.take(_command("m1", 0))
    bench.broken["m2"] = ModelUnusable("model m2 was pruned")
    [answer] = await bench.take(_command("m2", 1, action="shadow"))
    assert (answer.outcome, answer.reason, answer.revision) == ("refused", "model m2 was pruned", 1)
    assert len(bench.routing) == 1


async def test_a_learner_s_version_follows_the_one_before_it_without_naming_a_revision(bench: Bench) -> None:
    bench.models.fold(
        encode(msgspec.structs.replace(version_of(SPEC, f"v{offset}"), lineage="online", samples_offset=offset))
        for offset in (10, 20, 30)
    )
    shadow = {"action": "shadow", "correlation_id": "first"}
    [_, first, second, late] = await bench.take(
        _command("m1", 0),
        _command("v10", None, **shadow),
        _command("v30", None, action="succeed"),
        _command("v20", None, action="succeed"),
    )
    assert (first.outcome, second.outcome, late.outcome) == ("done", "done", "refused")
    assert second.reason == "model v30 took the place of the routed version of its lineage"
    assert [d.shadows for d in bench.routing] == [(), ("v10",), ("v30",)]
    again, refused = await bench.take(_command("v10", None, **shadow), _command("v10", None, action="shadow"))
    assert (again.outcome, refused.outcome) == ("done", "refused")
    assert len(bench.routing) == 3


@pytest.mark.parametrize("action", ["shadow", "unshadow", "succeed"])
async def test_every_action_that_comes_again_is_carried_out_once_also_after_a_restart(
    bench: Bench, action: str
) -> None:
    for offset in (1, 2):
        version = msgspec.structs.replace(version_of(SPEC, f"v{offset}"), lineage="online", samples_offset=offset)
        bench.models.fold([encode(version)])
    await bench.take(_command("m1", 0), _command("v1", 1, action="shadow", correlation_id="before"))
    command = {
        "shadow": _command("m2", 2, action="shadow", correlation_id="c"),
        "unshadow": _command("v1", 2, action="unshadow", correlation_id="c"),
        "succeed": _command("v2", None, action="succeed", correlation_id="c"),
    }[action]
    first, second = await bench.take(command, command)
    bench.deployments.fold(value for _, value in bench.written["flights.deployments"])
    await bench.control.open({COMMANDS: 0})
    [third] = await bench.take(command)
    assert first == second == third
    assert (first.outcome, first.revision, len(bench.routing)) == ("done", 3, 3)


async def test_when_the_store_is_away_the_command_comes_again_unanswered(bench: Bench) -> None:
    bench.broken["m1"] = RetryableError("the store is away")
    with pytest.raises(RetryableError):
        await bench.take(_command())
    bench.broken.clear()
    [answer] = await bench.take(_command())
    assert (answer.outcome, answer.revision) == ("done", 1)


def test_a_model_that_takes_too_long_to_load_is_refused() -> None:
    class Slow(Bench):
        async def get(self, spec: StreamSpec, version: ModelVersion, beside: Sequence[ModelVersion] = ()) -> Model:
            await asyncio.sleep(2 * LOAD_TIMEOUT_S)
            return Model()

    async def scenario() -> None:
        bench = Slow()
        bench.models.fold([encode(version_of(SPEC, "m1"))])
        [answer] = await bench.take(_command())
        assert (answer.outcome, answer.reason) == ("refused", "model m1 could not be loaded within 45 s")

    leap_through(scenario())
