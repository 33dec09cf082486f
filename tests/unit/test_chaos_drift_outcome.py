"""What the chaos run of counting reads off Kafka is right when all is well, and a planted fault is found in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xgboost

from benchmarks import drift_producer, histogram_checker, synthetic
from benchmarks.drift_outcome import Outcome
from benchmarks.histogram_checker import Scale
from benchmarks.plain import Row
from ml.drift.baseline import Baseline, make_baseline
from schemas.drift import ColumnCounts, DriftReport, PartialHistogram
from schemas.events import ModelVersion
from schemas.wire import encode
from stores.artifacts import ArtifactStore

EVENTS, SEED, PIECE = 2_400, 5, 600
VALUES = drift_producer.draw(EVENTS, SEED)


class FakeKafka:
    """Topics with what a run without any flaw leaves, all of it scored on one partition."""

    def __init__(self, folder: Path, booster: xgboost.Booster) -> None:
        (folder / "penstock.toml").write_text(synthetic.CONFIG, encoding="utf-8")
        self.scores = synthetic.expected_scores(booster, VALUES)
        predicted = np.array(list(self.scores.values()), dtype=np.float32)
        matrix = VALUES.astype(np.float32)
        self.baseline = make_baseline(matrix[:500], synthetic.FEATURES, {"score": predicted[:500]})
        sha256 = ArtifactStore(str(folder / "artifacts")).put(self.baseline.encode())
        places = range(0, EVENTS, PIECE)
        columns = [*matrix.T, predicted]
        self.topics: dict[str, list[Any]] = {
            "models": [version(sha256, len(self.baseline.encode()))],
            "predictions": [{"event_id": id, "score": score} for id, score in self.scores.items()],
            "histograms": [partial(sha256, self.baseline, [c[i : i + PIECE] for c in columns], i) for i in places],
            "drift": [report(number, 2 * PIECE * number) for number in range(EVENTS // PIECE // 2)],
        }

    def read(self, topic: str, *, committed: bool = True) -> Iterator[Row]:
        for offset, event in enumerate(self.topics.get(topic.removeprefix(f"{synthetic.STREAM}."), [])):
            yield Row(
                b"", encode(event) if isinstance(event, msgspec.Struct) else msgspec.json.encode(event), 0, offset, 0
            )

    def committed(self, group: str, topic: str) -> dict[int, int]:
        assert (group, topic) == ("penstock-score", f"{synthetic.STREAM}.features")
        return {0: EVENTS}


def version(baseline: str, size: int) -> ModelVersion:
    return ModelVersion(
        model_id="m1",
        stream=synthetic.STREAM,
        algorithm="xgboost",
        task="binary",
        created_time_ms=0,
        sha256="0" * 64,
        signature="",
        size_bytes=1,
        memory_bytes=1,
        features=synthetic.FEATURES,
        baseline=baseline,
        baseline_bytes=size,
    )


def partial(sha256: str, baseline: Baseline, columns: list[np.ndarray], first: int) -> PartialHistogram:
    counts = []
    for column, values in zip(baseline.columns, columns, strict=True):
        found, _ = histogram_checker.count(Scale(column.name, column.edges, column.mean, column.deviation), values)
        filled = np.flatnonzero(found.cells)
        cells, counted = tuple(filled.tolist()), tuple(found.cells[filled].tolist())
        counts.append(ColumnCounts(missing=found.missing, cells=cells, counts=counted, sums=tuple(found.sums.tolist())))
    return PartialHistogram(
        stream=synthetic.STREAM,
        baseline=sha256,
        model_id="m1",
        partition=0,
        from_offset=first,
        to_offset=first + PIECE,
        from_time_ms=first,
        to_time_ms=first + PIECE - 1,
        n=PIECE,
        columns=tuple(counts),
    )


def report(number: int, first: int) -> DriftReport:
    return DriftReport(
        stream=synthetic.STREAM,
        number=number,
        model_id="m1",
        baseline="",
        from_time_ms=first,
        to_time_ms=first + 2 * PIECE - 1,
        n=2 * PIECE,
        severity="none",
        drifted_share=0.0,
        features=(),
        predictions=(),
        recommendation="",
    )


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    return synthetic.train(SEED, trees=3)


@pytest.fixture
def kafka(tmp_path: Path, booster: xgboost.Booster) -> FakeKafka:
    return FakeKafka(tmp_path, booster)


def differences(kafka: Any, folder: Path, booster: xgboost.Booster, plant: str | None = None) -> dict[str, list[str]]:
    outcome = Outcome(kafka, folder, plant)
    return {
        "predictions": outcome.predictions(booster, VALUES),
        "histograms": outcome.histograms(),
        "reports": outcome.reports(),
    }


def test_a_run_without_a_flaw_is_right(kafka: FakeKafka, tmp_path: Path, booster: xgboost.Booster) -> None:
    assert differences(kafka, tmp_path, booster) == {"predictions": [], "histograms": [], "reports": []}


@pytest.mark.parametrize("plant", ["skip", "double"])
def test_a_partial_that_is_skipped_or_doubled_on_purpose_is_found_in_every_column(
    kafka: FakeKafka, tmp_path: Path, booster: xgboost.Booster, plant: str
) -> None:
    found = differences(kafka, tmp_path, booster, plant)
    assert found["predictions"] == []
    for name in (*synthetic.FEATURES, "score"):
        assert any(difference.startswith(f"{name}: ") for difference in found["histograms"])
    assert any(difference.startswith("partition 0: ") for difference in found["histograms"])
    assert found["reports"]


def test_an_event_that_was_scored_and_not_counted_is_found(
    kafka: FakeKafka, tmp_path: Path, booster: xgboost.Booster
) -> None:
    last = kafka.topics["histograms"][-1]
    columns = list(last.columns)
    columns[0] = msgspec.structs.replace(columns[0], counts=(columns[0].counts[0] - 1, *columns[0].counts[1:]))
    kafka.topics["histograms"][-1] = msgspec.structs.replace(last, columns=tuple(columns))
    assert differences(kafka, tmp_path, booster)["histograms"] == [
        "f0: 1 cells differ from numpy.histogram, by -1 values in all"
    ]


def test_partials_of_another_baseline_are_found(kafka: FakeKafka, tmp_path: Path, booster: xgboost.Booster) -> None:
    first = kafka.topics["histograms"][0]
    kafka.topics["histograms"][0] = msgspec.structs.replace(first, baseline="f" * 64)
    found = differences(kafka, tmp_path, booster)["histograms"]
    assert found == ["1 partials are of another baseline than the champion's"]


def test_a_prediction_too_few_is_found(kafka: FakeKafka, tmp_path: Path, booster: xgboost.Booster) -> None:
    kafka.topics["predictions"].pop()
    assert differences(kafka, tmp_path, booster)["predictions"] == [f"1 not scored: {synthetic.event_id(EVENTS - 1)}"]


def test_the_producers_events_do_not_depend_on_how_many_are_drawn() -> None:
    np.testing.assert_array_equal(drift_producer.draw(30_000, SEED)[:EVENTS], VALUES)
    assert len({row.tobytes() for row in drift_producer.draw(30_000, SEED)}) == 30_000
