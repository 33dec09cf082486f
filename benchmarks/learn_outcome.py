"""What join, learn and evaluate have left on Kafka after a chaos run, held against what it should be."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from agents.blobs import Blobs
from agents.learn import LearnState
from app.settings import load_settings
from app.stages import learner_of
from benchmarks import synthetic
from benchmarks.fold_checker import Fold, LogRecord, Published, Told, evaluation, learner_differences
from benchmarks.label_checker import LabelTally, Predicted, Refused, Sampled, Truth, tally
from benchmarks.label_producer import Journaled
from benchmarks.label_script import DRAWN
from benchmarks.plain import Kafka
from ml.learning.online import OnlineLearner
from ml.models.registry import learner_type
from schemas.events import Checkpoint, ModelVersion
from schemas.streams import StreamSpec
from stores.artifacts import ArtifactStore
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)


class Outcome:
    """What is committed, beside what should be. A fault that is planted is in the samples log as it was read."""

    def __init__(self, cluster: Kafka, folder: Path, plant: str | None) -> None:
        self._cluster = cluster
        self._folder = folder
        self._settings = load_settings({}, folder / "penstock.toml")
        self._spec: StreamSpec = self._settings.streams[0]
        self._store = ArtifactStore(str(folder / "artifacts"))
        self._log = [LogRecord(row.offset, row.time_ms, row.key, row.value) for row in cluster.read(_TOPICS.samples)]
        middle = len(self._log) // 2
        if plant is not None:
            self._log[middle : middle + 1] = [] if plant == "skip" else [self._log[middle]] * 2
        self.snapshots_compared = 0
        self.performance_records = 0

    def labels(self, seed: int) -> LabelTally:
        """Count the outcomes of all labels."""
        values = synthetic.draw(DRAWN, seed)
        scores = list(synthetic.expected_scores(synthetic.train(seed), values).values())
        rows = [tuple(None if value != value else value for value in row) for row in values.tolist()]
        journal = (self._folder / "journal").read_bytes().splitlines()
        predictions = {p.event_id: p for p in self._read(_TOPICS.predictions, Predicted)}
        sampled = msgspec.json.Decoder(Sampled).decode
        return tally(
            map(msgspec.json.Decoder(Journaled).decode, journal),
            predictions,
            [sampled(record.value or b"") for record in self._log],
            self._read(_TOPICS.labels_dead, Refused),
            Truth(lambda number: rows[number % DRAWN], lambda number: scores[number % DRAWN]),
        )

    def learners(self) -> list[str]:
        """Compare every snapshot and the newest checkpoint of each learner with a fold over the log."""
        checkpoints = {row.key: row for row in self._cluster.read(_TOPICS.checkpoints)}
        found = []
        for lineage, chosen in self._spec.learners.items():
            learner = learner_of(self._settings, chosen)
            checkpoint = checkpoints.get(f"learn-{lineage}.0".encode())
            if checkpoint is None:
                found.append(f"learner {lineage} has no checkpoint")
                continue
            told = self._told(lineage, chosen.algorithm, msgspec.json.decode(checkpoint.value or b"", type=Checkpoint))
            self.snapshots_compared += sum(snapshot.model is not None for snapshot in told.snapshots)
            differences = learner_differences(Fold(self._spec, lineage, learner), self._log, told)
            found += [f"learner {lineage}: {difference}" for difference in differences]
        return found

    def _told(self, lineage: str, algorithm: str, checkpoint: Checkpoint) -> Told:
        records = [v for v in self._read(_TOPICS.models, ModelVersion) if v.lineage == lineage]
        pruned = {version.model_id for version in records if version.pruned}  # their files may be gone
        published: dict[str, ModelVersion] = {}
        for version in records:  # the first of a version; then come its changes
            published.setdefault(version.model_id, version)
        kind = learner_type(algorithm)
        snapshots = [
            Published(
                v.samples_offset or 0,
                None if v.model_id in pruned else kind.load(self._store.get(v.sha256, v.size_bytes)).canonical(),
            )
            for v in published.values()
        ]
        dumped = asyncio.run(Blobs(self._store, f"{self._spec.name} learn {lineage}").unpack(checkpoint))
        return Told(
            snapshots=snapshots,
            offset=checkpoint.offsets[_TOPICS.samples],
            taken=msgspec.json.decode(checkpoint.state, type=LearnState).taken,
            state=OnlineLearner.load(algorithm, len(self._spec.features), 1, dumped).canonical(),
        )

    async def evaluation(self) -> list[str]:
        """Compare all that was said of the models' performance with what a fresh evaluator says."""
        expected = await evaluation(self._spec, self._log)
        said: Mapping[str, list[bytes]] = {
            topic: [row.value or b"" for row in self._cluster.read(topic)]
            for topic in (_TOPICS.performance, _TOPICS.alerts, _TOPICS.retrain)
        }
        self.performance_records = len(said[_TOPICS.performance])
        return [
            f"{topic} has {len(values)} records that are not those {len(expected.get(topic, []))} of a fresh evaluator"
            for topic, values in said.items()
            if values != expected.get(topic, []) or (topic == _TOPICS.performance and not values)
        ]

    def _read(self, topic: str, kind: type[Any]) -> list[Any]:
        decode = msgspec.json.Decoder(kind).decode
        return [decode(row.value or b"") for row in self._cluster.read(topic)]
