"""Is what learners and the evaluator say what one uninterrupted fold over the samples log gives?

The fold here starts from nothing, reads the committed log in order and keeps no checkpoint. It uses the learner itself,
but nothing of the stage that hosts it: not its batches, checkpoints, transactions or repetitions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from agents.blobs import Blobs
from agents.evaluate import Evaluate
from agents.learn import opener_of
from agents.learn.reader import LearnableReader
from ml.learning.samples import Samples
from schemas.events import Checkpoint
from schemas.streams import LearnerSpec, StreamSpec
from stores.artifacts import ArtifactStore
from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics

_PIECE: Final = 1_000


class LogRecord(NamedTuple):
    """A record of the samples log."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Published(NamedTuple):
    """A snapshot: which samples it has learnt (all before `next_offset`), and its model's canonical bytes."""

    next_offset: int
    model: bytes | None


@dataclass(frozen=True)
class Told:
    """What the stage left of one learner: its snapshots in their order, and its newest checkpoint.

    The model of a snapshot whose artifact was pruned is None. `taken` is how many samples the checkpoint says that it
    took, `state` the canonical bytes of the learner in it, `offset` the next sample it would take.
    """

    snapshots: Sequence[Published]
    offset: int
    taken: int
    state: bytes


class Fold:
    """A learner that takes the log from its first record on."""

    def __init__(self, spec: StreamSpec, lineage: str, learner: LearnerSpec) -> None:
        """`learner` has its strategy, batch size and buffer set."""
        self._every = learner.publish_every
        self._reader = LearnableReader(spec, lineage, learner)
        self._learner = opener_of(spec, learner)()
        self.taken = 0
        self.snapshots: list[Published] = []

    def take(self, records: Sequence[LogRecord]) -> None:
        """Take the next records, and note each snapshot that is due."""
        for start in range(0, len(records), _PIECE):
            for run in self._reader.read(records[start : start + _PIECE]):
                if isinstance(run, Samples):
                    self._learn(run)
                else:
                    self._learner.trigger()

    def _learn(self, samples: Samples) -> None:
        start = 0
        while start < len(samples):
            stop = min(len(samples), start + self._every - self.taken % self._every)
            self._learner.take(samples.between(start, stop))
            self.taken += stop - start
            start = stop
            if self.taken % self._every == 0:
                snapshot = Published(self._learner.next_offset, self._learner.model.canonical())
                if self.snapshots[-1:] != [snapshot]:
                    self.snapshots.append(snapshot)

    def canonical(self) -> bytes:
        """Return the canonical bytes of the learner: its model and whatever it keeps beside it."""
        return self._learner.canonical()


def learner_differences(fold: Fold, records: Sequence[LogRecord], told: Told) -> list[str]:
    """Return a sentence for each way in which `told` is not what `fold` makes of the whole log `records`."""
    found = []
    before = [record for record in records if record.offset < told.offset]
    fold.take(before)
    if fold.taken != told.taken:
        found.append(f"the checkpoint took {told.taken} samples, the fold {fold.taken}")
    if fold.canonical() != told.state:
        ours, theirs = (msgspec.msgpack.decode(state) for state in (fold.canonical(), told.state))
        parts = [part for part, value in ours.items() if value != theirs[part]]
        found.append(f"the checkpoint at offset {told.offset} differs from the fold in its {', '.join(parts)}")
    fold.take(records[len(before) :])
    offsets = [snapshot.next_offset for snapshot in told.snapshots]
    expected = [snapshot.next_offset for snapshot in fold.snapshots]
    if offsets != expected:
        found.append(f"{len(offsets)} snapshots were published where the fold has {len(expected)}, or at other offsets")
    models = {snapshot.next_offset: snapshot.model for snapshot in fold.snapshots}
    others = [offset for offset, model in told.snapshots if model is not None and model != models.get(offset)]
    if others:
        found.append(f"{len(others)} snapshots, the first at offset {others[0]}, are other models than the fold's")
    if not any(snapshot.model for snapshot in told.snapshots):
        found.append("there is no snapshot to compare")
    return found


async def evaluation(spec: StreamSpec, records: Sequence[LogRecord]) -> dict[str, list[bytes]]:
    """Return what a fresh evaluator says of the log, by topic."""
    source = TopicPartition(f"{spec.name}.samples", 0)
    stage, said = Evaluate(spec, _Nothing(), Blobs(ArtifactStore("memory://unused"), ""), Metrics()), Outbox()
    await stage.open({source: 0})
    for start in range(0, len(records), _PIECE):
        await stage.process(Batch(source, records[start : start + _PIECE]), said)
    return {target.topic: [value for _, value in written] for target, written in said.targets.items()}


class _Nothing:
    """The memory of a stage that never ran before."""

    async def newest(self, committed: Mapping[TopicPartition, int]) -> Checkpoint | None:
        return None

    async def read(self, source: TopicPartition, start: int, stop: int) -> Any:
        return
        yield

    def save(self, checkpoint: Checkpoint, outbox: Outbox) -> None:
        raise AssertionError("a fold that is never interrupted saves nothing")
