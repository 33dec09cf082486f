"""Baselines: whose counts for a model, how it is opened, and what one is made of."""

import secrets
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.baselines import (
    LEAST_ROWS,
    BaselineUnusable,
    baseline_finder,
    baseline_of_rows,
    baseline_opener,
    require_columns,
)
from app.baselines import record_baseline, with_baseline
from app.csv_columns import read_matrix
from app.models import RegistryView
from ml.drift.baseline import Baseline
from ml.models.protocol import Matrix, Scores
from schemas.errors import PenstockError, SettingsError
from schemas.events import Deployment, ModelVersion
from schemas.streams import DriftSpec, StreamSpec
from schemas.wire import encode
from stores.artifacts import ArtifactCorrupted, ArtifactMissing, ArtifactStore
from stream.connection import KafkaConnection
from stream.views import LogView
from tests.support import Model, version_of

SPEC = StreamSpec(name="flights", features=("a", "b"), drift=DriftSpec(bins=5))
BIRDS = StreamSpec(name="birds", features=("a", "b"), task="multiclass", classes=("owl", "tit", "jay"))


class Fussy(Model):
    """Gives no finite score where b is missing."""

    def predict(self, matrix: Matrix) -> Scores:
        return np.where(np.isnan(matrix[:, 1]), np.nan, super().predict(matrix)).astype(np.float32)


class Chooses(Model):
    """Gives the first of three classes all of it when a is large, else the last."""

    classes = 3

    def predict(self, matrix: Matrix) -> Scores:
        first = matrix[:, 0] > 0.5
        return np.stack([first, np.zeros(len(matrix)), ~first], axis=1).astype(np.float32)


def rows(count: int) -> Matrix:
    return np.random.default_rng(0).random((count, 2)).astype(np.float32)


def store() -> ArtifactStore:
    return ArtifactStore(f"memory://{secrets.token_hex(4)}")


def test_a_baseline_is_of_the_rows_and_of_what_the_model_itself_makes_of_them() -> None:
    matrix = rows(20_000)
    baseline = Baseline.decode(baseline_of_rows(SPEC, Model(), matrix))
    require_columns(SPEC, baseline)
    assert [(column.name, column.n) for column in baseline.columns] == [("a", 20_000), ("b", 20_000), ("score", 20_000)]
    assert len(baseline.features[0].bin_names) == SPEC.drift.bins
    assert baseline.predictions[0].mean == pytest.approx(np.clip(matrix.sum(axis=1), 0, 1).mean(), rel=1e-6)


def test_a_baseline_of_a_multiclass_model_has_its_classes() -> None:
    baseline = Baseline.decode(baseline_of_rows(BIRDS, Chooses(), rows(1000)))
    require_columns(BIRDS, baseline)
    score, best = baseline.predictions
    assert (score.name, score.minimum, score.maximum) == ("score", 1.0, 1.0)
    assert (best.name, best.kind, best.minimum, best.maximum) == ("class", "values", 0.0, 2.0)


def test_rows_that_the_model_cannot_score_are_left_out() -> None:
    matrix = rows(LEAST_ROWS + 5)
    matrix[:5, 1] = np.nan
    baseline = Baseline.decode(baseline_of_rows(SPEC, Fussy(), matrix))
    assert [(column.n, column.missing) for column in baseline.columns] == [(LEAST_ROWS, 0)] * 3


@pytest.mark.parametrize(("count", "spoilt"), [(0, 0), (LEAST_ROWS - 1, 0), (LEAST_ROWS, 1)])
def test_too_few_rows_make_no_baseline(count: int, spoilt: int) -> None:
    matrix = rows(count)
    matrix[:spoilt, 1] = np.nan
    with pytest.raises(
        PenstockError, match=f"at least 100 rows that the model can score, and there are {count - spoilt}$"
    ):
        baseline_of_rows(SPEC, Fussy(), matrix)


async def test_a_baseline_comes_back_out_of_the_store_by_what_the_record_says() -> None:
    kept, payload = store(), baseline_of_rows(SPEC, Model(), rows(200))
    version = with_baseline(version_of(SPEC, "m1"), kept, payload)
    assert msgspec.structs.replace(version, baseline="", baseline_bytes=0) == version_of(SPEC, "m1")
    opened = await baseline_opener(kept)(version.baseline, version.baseline_bytes)
    assert opened.encode() == payload


async def test_what_a_model_becomes_while_its_baseline_is_stored_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    models: LogView[ModelVersion] = LogView("flights.models", ModelVersion)
    deployments: LogView[Deployment] = LogView("flights.deployments", Deployment)
    models.fold([encode(version_of(SPEC, "m1"))])

    class Slow(ArtifactStore):
        def put(self, payload: bytes) -> str:
            pruned = msgspec.structs.replace(models.events[-1], status="archived", pruned=True)
            models.fold([encode(pruned)])  # somebody else does that meanwhile
            return super().put(payload)

    async def read_registry(connection: KafkaConnection, spec: StreamSpec) -> RegistryView:
        return RegistryView(spec, models, deployments)

    async def record(connection: KafkaConnection, version: ModelVersion) -> None:
        models.fold([encode(version)])

    monkeypatch.setattr("app.baselines.read_registry", read_registry)
    monkeypatch.setattr("app.baselines.record", record)
    kept = Slow(f"memory://{secrets.token_hex(4)}")
    version = await record_baseline(KafkaConnection(bootstrap="nowhere"), kept, SPEC, "m1", b"made")
    assert (version.pruned, version.baseline_bytes, kept.get(version.baseline, 4)) == (True, 4, b"made")
    assert models.events[-1] == version


async def test_a_baseline_that_was_changed_is_gone_or_is_none_is_refused_with_a_sentence() -> None:
    kept = store()
    open_baseline = baseline_opener(kept)
    sha256 = kept.put(b"{}")
    with pytest.raises(BaselineUnusable):
        await open_baseline(sha256, 2)
    with pytest.raises(ArtifactCorrupted):
        await open_baseline(sha256, 3)
    with pytest.raises(ArtifactMissing):
        await open_baseline("0" * 64, 2)


def test_a_baseline_for_another_task_is_refused() -> None:
    with pytest.raises(BaselineUnusable, match="class"):
        require_columns(SPEC, Baseline.decode(baseline_of_rows(BIRDS, Chooses(), rows(200))))


async def test_a_baseline_is_found_by_its_hash_alone_also_when_its_record_comes_late() -> None:
    kept, payload = store(), baseline_of_rows(SPEC, Model(), rows(200))
    models: LogView[ModelVersion] = LogView("flights.models", ModelVersion)
    late = [with_baseline(version_of(SPEC, "m1"), kept, payload)]

    async def caught_up() -> None:
        models.fold(encode(late.pop()) for _ in late[:])

    [sha256] = [version.baseline for version in late]
    find = baseline_finder(models, caught_up, baseline_opener(kept))
    baseline, owners = await find(sha256)
    assert (baseline.encode(), owners) == (payload, {"m1"})
    models.fold([encode(version_of(SPEC, "m1"))])  # without one from now on, and it is still what was counted against
    models.fold([encode(with_baseline(version_of(SPEC, "m2"), kept, payload))])
    baseline, owners = await find(sha256)
    assert (baseline.encode(), owners) == (payload, {"m1", "m2"})
    with pytest.raises(BaselineUnusable, match=r"no record in flights.models names the baseline 00"):
        await find("0" * 64)


def test_columns_are_read_by_name_and_a_missing_value_is_nan(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("b;day;a\n1;mon;0.5\n;tue;NA\n\n 3e2 ;;-4\n")
    matrix = read_matrix(file, ("a", "b"))
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array([[0.5, 1], [np.nan, np.nan], [-4, 300]], np.float32))


def test_a_long_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n" + "".join(f"{i},{i % 7}\n" for i in range(25_001)))
    matrix = read_matrix(file, ("b", "a"))
    np.testing.assert_array_equal(matrix, np.stack([np.arange(25_001) % 7, np.arange(25_001)], axis=1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b\n", "has a header, but no rows"),
        ("a,c\n1,2\n", "has no column 'b'; its header has a, c"),
        ("a,b\n1,2\n1,x\n", "row 2, column 'b': 'x' is not a number"),
        ("a,b\n1,2\ninf,1\n", "row 2, column 'a': 'inf' is infinite"),
        ("a,b\n1,1e39\n", "row 1, column 'b': '1e39' is infinite, or beyond the range of a 32-bit float"),
        ("a,b\n1,2\n3\n", "row 2 has 1 fields, but the header has 2"),
        ("a,b,a\n1,2,3\n", "has 'a' as the name of more than one column"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        read_matrix(file, ("a", "b"))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
