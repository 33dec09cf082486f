"""Learn: what it makes of samples and triggers, what it publishes, and how it comes back."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.blobs import INLINE_BYTES, BlobFields, Blobs
from agents.learn import Learn
from agents.learn.hosts import Apart, Here, Host
from agents.learn.publishing import Publisher
from ml.models.river_logistic import RiverLogisticModel
from schemas.errors import PenstockError, RetryableError
from schemas.events import Checkpoint, Command, Deployment, ModelUpdate, ModelVersion, Sample, ShadowScore, Trigger
from schemas.streams import EvaluationSpec, JoinSpec, LearnerSpec, StreamSpec
from schemas.wire import decode, encode
from stores.artifacts import ArtifactMissing, ArtifactStore, Signer
from stream.batches import Outbox, TopicPartition
from stream.metric_values import Metrics
from stream.views import LogView
from tests.support import Entry, LogMemory, MemoryKafka, batch, deployment_of, sample_of, version_of
from topics import StreamTopics

SPEC = StreamSpec(
    name="flights",
    features=("a", "b"),
    evaluation=EvaluationSpec(maturity_minutes=0),
    join=JoinSpec(lateness_minutes=0),
)
TOPICS = StreamTopics("flights")
SAMPLES = TopicPartition(TOPICS.samples, 0)
LEARNER = LearnerSpec(
    algorithm="river-logistic",
    strategy="incremental",
    batch_size=10,
    max_buffer=50,
    publish_every=100,
    keep_snapshots=2,
)
SIGNER = Signer(b"a key for tests")


def sample(number: int, **changes: object) -> Sample:
    """The sample at a place in a made-up log: label 1 when `a` is positive."""
    a, b = np.random.default_rng(number).normal(size=2).round(3).tolist()
    return sample_of(number, **{"features": (a, b), "label": int(a > 0)} | changes)


class Bench:
    """A Learn stage over a log in memory. `run` processes, saves and commits; `restart` opens another instance."""

    def __init__(
        self,
        folder: Path,
        learner: LearnerSpec = LEARNER,
        host: Callable[[], Host] = Here,
        inline_bytes: int = INLINE_BYTES,
    ) -> None:
        self.inline_bytes = inline_bytes
        self.kafka = MemoryKafka()
        self.memory = LogMemory(self.kafka.logs)
        self.models = LogView(TOPICS.models, ModelVersion)
        self.deployments = LogView(TOPICS.deployments, Deployment)
        self.store = ArtifactStore(str(folder))
        self.learner = learner
        self.now_s = 0.0
        self.committed = 0
        self.sent: dict[str, list[bytes]] = {}
        self._host = host
        self.stage = self._new_stage()

    def _new_stage(self) -> Learn:
        publisher = Publisher(
            SPEC, "online", self.learner, self.models, self.deployments, self.store, SIGNER, lambda: 7
        )
        return Learn(
            SPEC,
            "online",
            self.learner,
            self._host(),
            self.memory,
            Blobs(self.store, "online", self.inline_bytes),
            publisher,
            Metrics(),
            10.0,
            lambda: self.now_s,
        )

    def append(self, values: Iterable[Sample | Trigger | bytes]) -> None:
        for value in values:
            raw = value if isinstance(value, bytes) else encode(value)
            key = b"trigger" if isinstance(value, Trigger) else b"flights"
            self.kafka.logs[SAMPLES].append(Entry(self.kafka.ends[SAMPLES], raw, key))
            self.kafka.ends[SAMPLES] += 1

    async def open(self) -> None:
        await self.stage.open({SAMPLES: self.committed})

    async def run(self, cut: int = 64, *, commit: bool = True) -> None:
        """Process what is new, in pieces of `cut`; commit each with its checkpoint and outputs."""
        new = self.kafka.logs[SAMPLES][self.committed :]
        if not new:
            return
        for piece in batch(SAMPLES, new).cut(cut):
            outbox = Outbox()
            await self.stage.process(piece, outbox)
            await self.stage.save(outbox)
            if commit:
                self._commit(outbox, piece.next_offset)

    async def restart(self) -> None:
        await self.stage.close()
        self.stage = self._new_stage()
        await self.open()

    def _commit(self, outbox: Outbox, next_offset: int) -> None:
        self.committed = next_offset
        self.memory.commit(outbox)
        for target, records in outbox.targets.items():
            values = [value for _, value in records]
            self.sent.setdefault(target.topic, []).extend(values)
            for view in (self.models, self.deployments):
                if view.topic == target.topic:
                    view.fold(values)

    async def canonical(self) -> bytes:
        found: bytes = await self.stage._host.call("canonical")
        return found

    def updates(self) -> list[ModelUpdate]:
        return [decode(ModelUpdate, value) for value in self.sent.get(TOPICS.updates, [])]

    def commands(self) -> list[Command]:
        return [decode(Command, value) for value in self.sent.get(TOPICS.commands, [])]

    def load(self, version: ModelVersion) -> RiverLogisticModel:
        SIGNER.verify(version)
        return RiverLogisticModel.load(self.store.get(version.sha256, version.size_bytes))


def fold(samples: Iterable[Sample]) -> bytes:
    """The canonical state of a model that has learnt `samples`, by river-logistic's own hand."""
    model = RiverLogisticModel(2)
    for one in samples:
        matrix = np.array([one.features], dtype=np.float32)
        model.learn(matrix, np.array([one.label], dtype=np.int64), np.array([one.weight]))
    return model.canonical()


async def test_a_snapshot_is_the_fold_of_all_samples_before_its_offset(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.open()
    samples = [sample(i) for i in range(250)]
    bench.append(samples)
    await bench.run()
    assert [version.model_id for version in bench.models.events] == ["online@100", "online@200"]
    for version in bench.models.events:
        assert version.samples_offset is not None
        assert bench.load(version).canonical() == fold(samples[: version.samples_offset])
    assert [v.parent for v in bench.models.events] == [None, "online@100"]


@pytest.mark.parametrize("cut", [1, 7, 1000])
@pytest.mark.parametrize("strategy", ["incremental", "mini_batch", "periodic", "adaptive"])
async def test_what_is_learnt_and_told_does_not_depend_on_batches_or_restarts(
    tmp_path: Path, cut: int, strategy: str
) -> None:
    learner = msgspec.structs.replace(LEARNER, strategy=strategy, period_minutes=1)
    whole, broken = Bench(tmp_path / "a", learner), Bench(tmp_path / "b", learner)
    await whole.open()
    await broken.open()
    samples = [sample(i) for i in range(330)]
    whole.append(samples)
    await whole.run()
    for start in range(0, 330, 110):
        broken.append(samples[start : start + 110])
        await broken.run(cut, commit=False)  # what is not committed is lost with the worker
        await broken.restart()
        await broken.run(cut)
        broken.now_s += 6.0  # so that some checkpoints are older than what is committed
        await broken.restart()
    assert await broken.canonical() == await whole.canonical()
    assert broken.sent.get(TOPICS.updates) == whole.sent.get(TOPICS.updates)
    assert [v.model_id for v in broken.models.events] == [v.model_id for v in whole.models.events]


async def test_only_what_came_after_the_checkpoint_is_learnt_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.open()
    bench.append(sample(i) for i in range(60))
    bench.now_s = 11.0
    await bench.run()
    bench.append(sample(i) for i in range(60, 90))
    await bench.run()
    await bench.restart()
    assert bench.memory.reads[-1] == (SAMPLES, 60, 90)


async def test_a_checkpoint_of_another_algorithm_or_ahead_of_the_group_is_not_used(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.open()
    samples = [sample(i) for i in range(60)]
    bench.append(samples)
    bench.now_s = 11.0
    await bench.run()
    bench.committed = 40  # somebody reset the group
    await bench.restart()
    assert bench.memory.reads[-1] == (SAMPLES, 0, 40)
    bench.committed = 60
    bench.learner = msgspec.structs.replace(LEARNER, algorithm="river-hoeffding-tree")
    await bench.restart()
    assert bench.memory.reads[-1] == (SAMPLES, 0, 60)


async def test_a_trigger_makes_its_learner_learn_what_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(LEARNER, strategy="mini_batch", batch_size=50))
    await bench.open()
    trigger = Trigger(stream="flights", lineage="online", issued_by="eve", issued_time_ms=1, correlation_id="c")
    bench.append([sample(0), sample(1), msgspec.structs.replace(trigger, lineage="other"), trigger, sample(2), b"{}"])
    await bench.run()
    assert [(u.action, u.reason, u.samples, u.last_offset) for u in bench.updates()] == [("learnt", "manual", 2, 1)]


@pytest.mark.parametrize(("revisions", "learnt"), [("ignore", [0, 2]), ("apply", [0, 1, 2])])
async def test_corrected_labels_are_learnt_when_the_learner_says_so(
    tmp_path: Path, revisions: str, learnt: list[int]
) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(LEARNER, revisions=revisions, publish_every=len(learnt)))
    await bench.open()
    samples = [sample(0), sample(0, revision=1, label=1, replaces=0), sample(1)]
    bench.append(samples)
    await bench.run()
    assert bench.load(bench.models.events[0]).canonical() == fold(samples[i] for i in learnt)


async def test_a_lineage_that_serves_asks_control_to_take_its_newest_snapshot(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.models.events.append(msgspec.structs.replace(version_of(SPEC, "online@0"), lineage="online"))
    bench.deployments.events.append(deployment_of(SPEC, "online@0", 1))
    await bench.open()
    bench.append(sample(i) for i in range(100))
    await bench.run()
    assert [(c.action, c.model_id, c.expected_revision) for c in bench.commands()] == [("succeed", "online@100", None)]


@pytest.mark.parametrize(("shadow", "actions"), [(True, ["shadow"]), (False, [])])
async def test_a_lineage_that_is_nowhere_becomes_a_shadow_only_if_it_shall(
    tmp_path: Path, shadow: bool, actions: list[str]
) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(LEARNER, shadow=shadow))
    await bench.open()
    bench.append(sample(i) for i in range(100))
    await bench.run()
    assert [command.action for command in bench.commands()] == actions


async def test_a_snapshot_that_is_worse_than_the_one_in_use_is_kept_back_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(LEARNER, shadow=True))
    await bench.open()

    def scored(number: int, right: float) -> Sample:
        true = sample(number)
        score = right if true.label else 1 - right
        return msgspec.structs.replace(true, shadows=(ShadowScore(variant="online", model_id="online@0", score=score),))

    bench.append(scored(i, 0.99) for i in range(200))  # the one in use knows nearly everything
    await bench.run()
    assert [update.action for update in bench.updates()] == ["kept_back", "kept_back"]
    assert "Brier score" in bench.updates()[1].reason
    kept = bench.models.events[0]
    assert (kept.status, kept.changes, kept.changed_by) == ("archived", 0, "learner online")
    assert kept.reason == bench.updates()[0].reason
    assert bench.commands() == []
    bench.append(scored(i, 0.01) for i in range(200, 300))  # and now nothing
    await bench.run()
    assert bench.updates()[2].action == "published"
    assert [command.model_id for command in bench.commands()] == ["online@300"]


async def test_snapshots_that_never_served_are_pruned_and_the_others_stay(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.open()
    bench.append(sample(i) for i in range(100))
    await bench.run()
    bench.deployments.events += [deployment_of(SPEC, "online@100", 1), deployment_of(SPEC, "champion-2", 2)]
    bench.append(sample(i) for i in range(100, 600))
    await bench.run()
    newest = {version.model_id: version for version in bench.models.events}
    alive = [version.model_id for version in newest.values() if not version.pruned]
    assert alive == ["online@100", "online@500", "online@600"]  # served; two kept
    bench.append(sample(i) for i in range(600, 700))
    await bench.run()  # which deletes the files of those that were pruned before
    for version in newest.values():
        if not version.pruned:
            bench.load(version)
        else:
            with pytest.raises(ArtifactMissing):
                bench.store.get(version.sha256, version.size_bytes)
    pruned = [update.model_id for update in bench.updates() if update.action == "pruned"]
    assert pruned == ["online@200", "online@300", "online@400", "online@500"]


async def test_a_lineage_can_start_from_a_registered_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(LEARNER, start_from="root"))
    with pytest.raises(PenstockError, match="waits for model 'root'"):
        await bench.open()
    root = RiverLogisticModel(2)
    root.learn(np.array([[1.0, 2.0]], dtype=np.float32), np.array([1]), None)
    payload = root.dump()
    version = msgspec.structs.replace(
        version_of(SPEC, "root"), sha256=bench.store.put(payload), size_bytes=len(payload), algorithm="river-logistic"
    )
    bench.models.events.append(msgspec.structs.replace(version, signature=SIGNER.sign(version)))
    await bench.open()
    bench.append(sample(i) for i in range(100))
    await bench.run()
    for one in (sample(i) for i in range(100)):
        root.learn(np.array([one.features], dtype=np.float32), np.array([one.label]), None)
    assert bench.load(bench.models.events[-1]).canonical() == root.canonical()
    assert bench.models.events[-1].parent == "root"


async def test_a_learner_in_a_process_of_its_own_learns_the_same_and_comes_back_when_it_dies(tmp_path: Path) -> None:
    near, far = Bench(tmp_path / "a"), Bench(tmp_path / "b", host=Apart)
    samples = [sample(i) for i in range(150)]
    for bench in (near, far):
        await bench.open()
        bench.append(samples[:100])
        await bench.run()
    host = far.stage._host
    assert isinstance(host, Apart)
    assert host._process is not None
    host._process.kill()
    await asyncio.to_thread(host._process.join)
    far.append(samples[100:])
    with pytest.raises(RetryableError, match="process has ended"):
        await far.run()
    await far.restart()
    await far.run()
    near.append(samples[100:])
    await near.run()
    assert await far.canonical() == await near.canonical()
    await far.stage.close()


async def test_a_large_state_goes_to_the_store_and_old_ones_leave_it(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    keeper = Blobs(store, "online")
    states = [bytes([i]) * (INLINE_BYTES + 1) for i in range(4)]
    packed = [await keeper.pack(state) for state in states]
    for fields in packed[:2]:
        with pytest.raises(ArtifactMissing):
            store.get(fields["blob_sha256"], fields["blob_bytes"])
    for fields, state in list(zip(packed, states, strict=True))[2:]:
        assert store.get(fields["blob_sha256"], fields["blob_bytes"]) == b"online\n" + state
    assert (await keeper.pack(b"small"))["blob_sha256"] == ""


async def test_a_failed_commit_costs_no_blob_that_counts(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    keeper = Blobs(store, "online")

    def checkpoint(fields: BlobFields) -> Checkpoint:
        return Checkpoint(stage="learn", partition=0, format=1, offsets={}, state=msgspec.Raw(b"{}"), **fields)

    states = [bytes([i]) * (INLINE_BYTES + 1) for i in range(4)]
    await keeper.pack(states[0])
    committed = checkpoint(await keeper.pack(states[1]))
    await keeper.pack(states[2])  # its commit fails, and the task opens again
    assert await keeper.unpack(committed) == states[1]
    await keeper.pack(states[3])  # its commit fails, too, and another worker takes over
    assert await Blobs(store, "online").unpack(committed) == states[1]


async def test_the_settings_reach_the_learner(tmp_path: Path) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(LEARNER, strategy="mini_batch", batch_size=3))
    await bench.open()
    bench.append(sample(i) for i in range(10))
    await bench.run()
    assert [update.samples for update in bench.updates()] == [3, 3, 3]


async def test_a_state_in_the_store_is_found_again(tmp_path: Path) -> None:
    learner = msgspec.structs.replace(LEARNER, algorithm="river-hoeffding-tree")
    bench = Bench(tmp_path, learner, inline_bytes=100)
    await bench.open()
    samples = [sample(i) for i in range(300)]
    bench.append(samples)
    bench.now_s = 11.0
    await bench.run()
    before = await bench.canonical()
    assert bench.memory.committed is not None
    assert bench.memory.committed.blob_sha256
    await bench.restart()
    assert await bench.canonical() == before
    assert bench.memory.reads[-1][1] > 0
