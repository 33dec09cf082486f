"""What scoring, counting and judging have left on Kafka after a chaos run, held against what it should be."""

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import xgboost
from numpy.typing import NDArray

from app.settings import load_settings
from app.stages import drift_of
from benchmarks import histogram_checker, synthetic
from benchmarks.comparison import differences
from benchmarks.histogram_checker import Scale
from benchmarks.plain import Kafka
from ml.drift.baseline import Baseline
from schemas.drift import DriftReport, PartialHistogram
from schemas.events import ModelVersion
from stores.artifacts import ArtifactStore
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)


class Outcome:
    """What is committed, beside what should be. A fault that is planted is in the partials as they were read."""

    def __init__(self, cluster: Kafka, folder: Path, plant: str | None) -> None:
        self._cluster = cluster
        self._settings = load_settings({}, folder / "penstock.toml")
        self._baseline_id, self._scales = self._champions_baseline(ArtifactStore(str(folder / "artifacts")))
        self._partials = self._read(_TOPICS.histograms, PartialHistogram)
        self._reports = self._read(_TOPICS.drift, DriftReport)
        middle = len(self._partials) // 2
        if plant is not None:
            self._partials[middle : middle + 1] = [] if plant == "skip" else [self._partials[middle]] * 2
        self._columns: list[NDArray[np.float32]] = []

    def predictions(self, booster: xgboost.Booster, values: NDArray[np.float64]) -> list[str]:
        """Compare the predictions with a direct one of every event, whose features are `values` (events, 10).

        The scores are counted from here on as they should be: as they are, if nothing differs.
        """
        expected = synthetic.expected_scores(booster, values)
        scores = np.array(list(expected.values()), dtype=np.float32)
        self._columns = [*values.astype(np.float32).T, scores]
        found = differences(expected, self._cluster.read(_TOPICS.predictions))
        if dead := sum(1 for _ in self._cluster.read(_TOPICS.features_dead)):
            found.append(f"{dead} dead letters")
        return found

    def histograms(self) -> list[str]:
        """Compare the partials with one pass over the events, and what they cover with the committed offsets."""
        committed = self._cluster.committed("penstock-score", _TOPICS.features)
        others = sum(partial.baseline != self._baseline_id for partial in self._partials)
        return [
            *([f"{others} partials are of another baseline than the champion's"] if others else []),
            *histogram_checker.count_differences(self._scales, self._partials, self._columns),
            *histogram_checker.cover_differences(self._partials, committed),
        ]

    def reports(self) -> list[str]:
        """Compare the drift reports with the windows into which the log of partials falls."""
        window_events = drift_of(self._settings, self._settings.streams[0]).window_events
        assert window_events is not None
        return histogram_checker.report_differences(self._partials, self._reports, window_events)

    def as_dict(self) -> dict[str, int]:
        """Return how many partials and reports are committed, and how many partials were written but never were."""
        written = sum(1 for _ in self._cluster.read(_TOPICS.histograms, committed=False))
        return {
            "partials": len(self._partials),
            "replayed_partials": written - len(self._partials),
            "reports": len(self._reports),
        }

    def _champions_baseline(self, store: ArtifactStore) -> tuple[str, list[Scale]]:
        version = self._read(_TOPICS.models, ModelVersion)[0]  # the only one; then come its changes
        baseline = Baseline.decode(store.get(version.baseline, version.baseline_bytes))
        scales = [Scale(column.name, column.edges, column.mean, column.deviation) for column in baseline.columns]
        return version.baseline, scales

    def _read(self, topic: str, kind: type[Any]) -> list[Any]:
        decode = msgspec.json.Decoder(kind).decode
        return [decode(row.value or b"") for row in self._cluster.read(topic)]
