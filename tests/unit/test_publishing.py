"""Publishing: which snapshots ask to serve, and which are deleted, as the routing changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.baselines import Ancestry
from agents.learn.lineage import is_learner, is_snapshot, model_id_of, sender_of
from agents.learn.publishing import Publisher
from agents.registry import Registry
from ml.learning.online import Snapshot
from schemas.errors import RetryableError
from schemas.events import AuditEvent, Command, Deployment, ModelVersion
from schemas.streams import LearnerSpec, StreamSpec
from schemas.wire import decode, encode
from stores.artifacts import ArtifactMissing, ArtifactStore, ArtifactUntrusted, Signer
from stream.batches import Outbox, TopicPartition
from stream.views import LogView
from tests.support import deployment_of, experiment_of, version_of
from topics import StreamTopics

SPEC = StreamSpec(name="flights", features=("a", "b"))
TOPICS = StreamTopics("flights")
SHADOW = LearnerSpec(algorithm="river-logistic", publish_every=100, keep_snapshots=2, shadow=True)


class Bench:
    """A publisher whose records reach its own views at once, and a control that does whatever it is asked."""

    def __init__(self, folder: Path, learner: LearnerSpec = SHADOW) -> None:
        self.models = LogView(TOPICS.models, ModelVersion)
        self.deployments = LogView(TOPICS.deployments, Deployment)
        self.store = ArtifactStore(str(folder))
        self.commands: list[Command] = []
        self.audit: list[AuditEvent] = []
        self.publisher = Publisher(
            SPEC, "online", learner, self.models, self.deployments, self.store, Signer(b"key"), lambda: 7
        )

    async def publish(self, offset: int) -> list[str]:
        """Publish a snapshot at `offset`; return what was pruned."""
        outbox = Outbox()
        snapshot = Snapshot(payload=b"model %d" % offset, memory_bytes=1, learnt=offset, next_offset=offset)
        told = await self.publisher.publish(self.publisher.prepare(snapshot, None, 0), outbox)
        for target, records in outbox.targets.items():
            if target.topic == TOPICS.models:
                self.models.fold(value for _, value in records)
            if target.topic == TOPICS.commands:
                self.commands += [decode(Command, value) for _, value in records]
            if target.topic == TOPICS.audit:
                self.audit += [decode(AuditEvent, value) for _, value in records]
        return [update.model_id or "" for update in told if update.action == "pruned"]

    def route(self, champion: str, *shadows: str, **changes: Any) -> None:
        revision = len(self.deployments.events) + 1
        self.deployments.events.append(
            msgspec.structs.replace(deployment_of(SPEC, champion, revision), shadows=shadows, **changes)
        )

    def asked(self) -> Sequence[tuple[str, str]]:
        return [(command.action, command.model_id) for command in self.commands]

    def stored(self) -> list[int]:
        """The offsets of the snapshots whose bytes are still there."""
        found = []
        for version in {version.model_id: version for version in self.models.events}.values():
            try:
                self.store.get(version.sha256, version.size_bytes)
            except ArtifactMissing:
                continue
            found.append(version.samples_offset or 0)
        return found


async def test_a_shadow_that_was_replaced_has_never_served_and_is_pruned(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for offset in range(100, 800, 100):
        await bench.publish(offset)
        bench.route("champion", model_id_of("online", offset))
    # Two are kept beside the one that is a shadow when the newest is published, and that itself; the file of the
    # one that was pruned last goes the next time.
    assert bench.stored() == [300, 400, 500, 600, 700]
    assert [v.model_id for v in bench.models.events if v.pruned] == [
        "online@100",
        "online@200",
        "online@300",
    ]


async def test_what_was_champion_once_is_never_pruned(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.publish(100)
    bench.route("online@100")
    bench.route("another")
    for offset in range(200, 800, 100):
        await bench.publish(offset)
    assert bench.stored() == [100, 500, 600, 700]


async def test_what_was_a_variant_once_is_never_pruned_for_its_predictions_are_to_be_explained(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.publish(100)
    bench.route("m1", experiment=experiment_of("m1", "online@100"))
    bench.route("m1")
    for offset in range(200, 800, 100):
        await bench.publish(offset)
    assert bench.stored() == [100, 500, 600, 700]


async def test_what_a_roll_back_would_bring_back_is_never_pruned(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for offset in range(100, 700, 100):
        await bench.publish(offset)
        bench.route("m1", previous="online@100")
    assert bench.stored() == [100, 400, 500, 600]


async def test_what_a_person_has_put_into_staging_is_not_pruned(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.publish(100)
    staged = msgspec.structs.replace(bench.models.events[0], status="staging", changes=1)
    bench.models.fold([encode(staged)])
    for offset in range(200, 700, 100):
        await bench.publish(offset)
    assert bench.stored() == [100, 400, 500, 600]


async def test_a_new_status_from_an_old_copy_brings_no_pruned_version_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for offset in range(100, 500, 100):
        await bench.publish(offset)
    assert [v.model_id for v in bench.models.events if v.pruned] == ["online@100", "online@200"]
    old = msgspec.structs.replace(bench.models.events[0], status="testing", changes=1)
    bench.models.fold([encode(old)])
    assert await bench.publish(500) == ["online@300"]
    assert bench.stored() == [300, 400, 500]


async def test_a_variant_s_lineage_is_routed_and_what_only_was_before_is_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(SHADOW, shadow=False))
    bench.route("m1", experiment=experiment_of("m1", "online@50"))
    await bench.publish(100)
    bench.route("m1", previous="online@50")
    await bench.publish(200)
    assert bench.asked() == [("succeed", "online@100")]


async def test_while_a_champion_is_held_newer_snapshots_do_not_pile_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.publish(100)
    bench.route("online@100", held=True)
    for offset in range(200, 800, 100):
        await bench.publish(offset)
    assert bench.stored() == [100, 500, 600, 700]


async def test_a_snapshot_says_what_it_learnt_and_is_audited(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.route("m1")
    await bench.publish(100)
    [version] = bench.models.events
    assert (version.training_from_offset, version.training_to_offset, version.status) == (0, 100, "draft")
    assert bench.audit == [
        AuditEvent(
            stream="flights",
            correlation_id="online@100",
            action="register",
            issued_by="learner online",
            outcome="done",
            reason="version 1.0.0: a snapshot of learner online",
            model_id="online@100",
            revision=1,
            decided_time_ms=7,
        )
    ]


async def test_a_file_goes_only_when_the_log_says_that_its_version_is_pruned(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(SHADOW, shadow=False))
    for offset in range(100, 400, 100):
        await bench.publish(offset)
    committed = len(bench.models.events)
    assert [v.model_id for v in bench.models.events if v.pruned] == ["online@100"]
    snapshot = Snapshot(payload=b"model 400", memory_bytes=1, learnt=400, next_offset=400)
    await bench.publisher.publish(bench.publisher.prepare(snapshot, None, 0), Outbox())  # its commit fails
    assert bench.stored() == [200, 300]
    bench.publisher.reset()
    assert await bench.publish(400) == ["online@200"]
    assert bench.stored() == [200, 300, 400]
    assert len(bench.models.events) == committed + 2


async def test_a_version_that_is_routed_while_it_is_pruned_keeps_its_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(SHADOW, shadow=False))
    for offset in range(100, 400, 100):
        await bench.publish(offset)
    bench.route("online@100")
    await bench.publish(400)
    assert bench.stored() == [100, 200, 300, 400]


async def test_files_that_a_killed_learner_did_not_delete_go_when_it_publishes_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(SHADOW, shadow=False))
    for offset in range(100, 400, 100):
        await bench.publish(offset)
    bench.publisher.reset()
    await bench.publish(400)
    assert bench.stored() == [200, 300, 400]


async def test_many_snapshots_in_one_commit_have_their_parents_and_are_pruned_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(SHADOW, shadow=False))
    outbox = Outbox()
    for offset in range(100, 1100, 100):
        snapshot = Snapshot(payload=b"model %d" % offset, memory_bytes=1, learnt=offset, next_offset=offset)
        await bench.publisher.publish(bench.publisher.prepare(snapshot, None, 0), outbox)
    models = outbox.targets[TopicPartition(TOPICS.models, 0)]
    written = [decode(ModelVersion, value) for _, value in models]
    registered = [version for version in written if not version.pruned]
    assert [v.parent for v in registered] == [None, *(v.model_id for v in registered[:-1])]
    assert [v.version for v in registered] == [f"1.0.{number}" for number in range(10)]
    assert [v.samples_offset for v in written if v.pruned] == list(range(100, 900, 100))
    bench.publisher.reset()  # the commit failed: nothing of it was there
    assert await bench.publish(100) == []


async def test_what_control_may_still_decide_upon_is_not_deleted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.publish(100)
    bench.route("champion", "online@100")
    for offset in range(200, 900, 100):  # control is far behind
        await bench.publish(offset)
    assert bench.stored() == list(range(100, 900, 100))


async def test_bytes_that_another_version_shares_stay(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.publish(100)
    twin = msgspec.structs.replace(bench.models.events[0], model_id="a copy", lineage="")
    bench.models.events.append(twin)
    for offset in range(200, 600, 100):
        await bench.publish(offset)
    assert any(version.pruned for version in bench.models.events)
    bench.store.get(twin.sha256, twin.size_bytes)


async def test_a_lineage_that_somebody_took_out_stays_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.publish(100)
    await bench.publish(200)  # control refused the first: there was no champion yet
    bench.route("champion", "online@200")
    await bench.publish(300)
    bench.route("champion")
    await bench.publish(400)
    assert bench.asked() == [("shadow", "online@100"), ("shadow", "online@200"), ("succeed", "online@300")]


async def test_what_a_learner_started_from_is_where_its_snapshots_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(SHADOW, shadow=False, start_from="root"))
    bench.route("root")
    await bench.publish(100)
    assert bench.asked() == [("succeed", "online@100")]
    assert bench.models.events[0].parent == "root"


async def test_a_start_is_waited_for_and_must_be_signed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(SHADOW, start_from="root"))
    with pytest.raises(RetryableError, match="waits for model 'root'"):
        await bench.publisher.starting_payload()
    bench.models.events.append(version_of(SPEC, "root"))
    with pytest.raises(ArtifactUntrusted):
        await bench.publisher.starting_payload()


@pytest.mark.parametrize(
    ("model_id", "is_one"),
    [("online@100", True), ("online@", False), ("online", False), ("other@100", False), ("online@x", False)],
)
def test_a_snapshot_is_known_by_its_id(model_id: str, is_one: bool) -> None:
    assert is_snapshot("online", model_id) is is_one


async def test_what_a_learner_sends_is_known_to_be_a_learners(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.route("champion", "online@0")
    await bench.publish(100)
    [command] = bench.commands
    assert command.issued_by == sender_of("online")
    assert all(is_learner(event.issued_by) for event in (command, *bench.audit))
    assert len(bench.audit) == 1
    assert not is_learner("learners of today")


async def test_a_snapshot_is_measured_against_its_nearest_ancestor_s_baseline_also_a_pruned_one_s(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(SHADOW, start_from="start", keep_snapshots=1))
    signed = version_of(SPEC, "start")
    bench.models.events.append(msgspec.structs.replace(signed, baseline="1" * 64, baseline_bytes=9))
    ancestry = Ancestry(bench.models)
    for offset in (100, 200):
        await bench.publish(offset)
    assert ancestry.baseline_of("online@200") is bench.models.events[0]
    second = Registry(bench.models).find("online@200")
    assert second is not None
    bench.models.fold([encode(msgspec.structs.replace(second, baseline="2" * 64, baseline_bytes=9))])
    for offset in range(300, 700, 100):
        bench.route("champion", model_id_of("online", offset - 100))
        await bench.publish(offset)
    pruned = {version.model_id for version in bench.models.events if version.pruned}
    assert "online@200" in pruned
    found = ancestry.baseline_of("online@600")
    assert found is not None
    assert (found.model_id, found.baseline) == ("online@200", "2" * 64)
