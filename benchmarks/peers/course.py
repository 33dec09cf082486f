"""What contestants run on: a stream of its own on Kafka, with one model and one baseline for all of them."""

from pathlib import Path
from typing import Final

import msgspec

from benchmarks import synthetic
from benchmarks.histogram_checker import Scale
from benchmarks.peers.common.work import Job
from benchmarks.plain import Kafka
from benchmarks.workers import Penstock
from ml.drift.baseline import Baseline
from schemas.events import ModelVersion
from stores.artifacts import ArtifactStore
from topics.specs import StreamTopics


class Course:
    """A stream, and the deployment of Penstock that knows no other stream.

    `scales` are the columns that all count for drift, those of the model's baseline: the features, then the score.
    """

    def __init__(self, cluster: Kafka, penstock: Penstock, stream: str, model_file: Path, baseline_rows: Path) -> None:
        """Make the topics, and make the model the champion. Takes about ten seconds."""
        self.cluster: Final = cluster
        self.penstock: Final = penstock
        self.topics: Final = StreamTopics(stream)
        self._model_file = model_file
        penstock.run("topics", "apply")
        self.model_id: Final = penstock.deploy(stream, model_file, baseline_rows)
        self.scales: Final = self._scales()

    def clear(self, *, events: bool = False) -> None:
        """Empty the outputs, and with `events` the source, too. The broker will stamp the predictions."""
        outputs = [self.topics.predictions, self.topics.histograms, self.topics.features_dead]
        self.cluster.delete_topics(*outputs, *[self.topics.features] * events)
        self.penstock.run("topics", "apply")
        self.cluster.stamp_by_broker(self.topics.predictions)

    def job(self, group: str) -> Job:
        """Return what a peer is told to do."""
        return Job(
            bootstrap=self.cluster.bootstrap,
            group=group,
            source=self.topics.features,
            predictions=self.topics.predictions,
            histograms=self.topics.histograms,
            partitions=synthetic.PARTITIONS,
            model_file=str(self._model_file),
            model_id=self.model_id,
            features=list(synthetic.FEATURES),
            edges=[list(scale.edges) for scale in self.scales],
        )

    def _scales(self) -> list[Scale]:
        *_, row = self.cluster.read(self.topics.models)  # a version has a record for each of its changes
        version = msgspec.json.decode(row.value or b"", type=ModelVersion)
        store = ArtifactStore(str(self.penstock.folder / "artifacts"))
        baseline = Baseline.decode(store.get(version.baseline, version.baseline_bytes))
        return [Scale(column.name, column.edges, column.mean, column.deviation) for column in baseline.columns]


def config_of(stream: str) -> str:
    """Return what penstock.toml says of a stream like the synthetic one, by another name."""
    return synthetic.CONFIG.replace(f"[streams.{synthetic.STREAM}]", f"[streams.{stream}]")
