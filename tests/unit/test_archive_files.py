"""What the archive's rows and files are."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agents.archive.rows import conform, schema_of, table_of
from schemas.errors import SettingsError
from schemas.events import ShadowScore
from schemas.streams import StreamSpec
from stores.archive import Archive, ArchiveFile
from stores.artifacts import ArtifactCorrupted, ArtifactUnavailable
from tests.archiving import NOON_MS, entry, spec_of

FILE = ArchiveFile("s", "20231115T120000000", 7, 20, date(2023, 11, 15))
NAME = "archive/s/log=20231115T120000000/date=2023-11-15/00000000000000000007-00000000000000000020.parquet"
TABLE = pa.table({"offset": [7, 9], "label": [1, 0]})
SHADOWS = (ShadowScore(variant="b", model_id="m2", score=0.25), ShadowScore(variant="c", model_id="m3", score=0.75))


def test_a_row_says_all_that_the_sample_says() -> None:
    spec = spec_of(features=("a", "air time"))
    given = {
        "features": (1 / 3, None),
        "revision": 2,
        "replaces": 0,
        "weight": 0.5,
        "latency_ms": 12,
        "assumed": True,
        "shadows": SHADOWS,
        "scored_time_ms": NOON_MS + 5,
        "label_time_ms": NOON_MS + 3_000,
    }
    [row] = table_of(spec, [entry(4, offset=70, timestamp=NOON_MS + 9, **given)]).to_pylist()
    assert row == {
        "offset": 70,
        "recorded_time": datetime.fromtimestamp(NOON_MS / 1000 + 0.009, UTC),
        "event_id": "e4",
        "entity_id": "N1",
        "revision": 2,
        "event_time": datetime.fromtimestamp(NOON_MS / 1000 + 0.004, UTC),
        "label_time": datetime.fromtimestamp(NOON_MS / 1000 + 3, UTC),
        "scored_time": datetime.fromtimestamp(NOON_MS / 1000 + 0.005, UTC),
        "label": 1,
        "replaces": 0,
        "weight": 0.5,
        "score": 0.5,
        "predicted": 1,
        "model_id": "m1",
        "variant": "champion",
        "deployment_revision": 1,
        "latency_ms": 12,
        "assumed": True,
        "shadows": [{"variant": s.variant, "model_id": s.model_id, "score": s.score} for s in SHADOWS],
        "f_a": 1 / 3,
        "f_air time": None,
    }


def test_each_row_has_its_own_shadows() -> None:
    entries = [entry(0, shadows=SHADOWS), entry(1), entry(2, shadows=SHADOWS[:1])]
    rows = table_of(spec_of(), entries)["shadows"].to_pylist()
    assert [[shadow["model_id"] for shadow in row] for row in rows] == [["m2", "m3"], [], ["m2"]]


def test_of_several_classes_labels_are_words_and_every_class_has_a_score() -> None:
    spec = spec_of(task="multiclass", classes=("early", "late"))
    entries = [
        entry(0, label="late", predicted="early", scores=[0.75, 0.25], score=0.75),
        entry(1, label="late", predicted=1, replaces=0, scores=[0.5, 0.5]),  # of a task that it had before
        entry(2, label="lost", predicted="early", scores=[0.5, 0.5]),
        entry(3, label="late", predicted="early", scores=[0.5]),
        entry(4, label="late", predicted="early"),
    ]
    table = table_of(spec, entries)
    assert table["offset"].to_pylist() == [0, 1]
    assert table["scores"].to_pylist() == [[0.75, 0.25], [0.5, 0.5]]
    assert [table[name].to_pylist() for name in ("label", "predicted", "replaces")] == [
        ["late", "late"],
        ["early", None],
        [None, None],
    ]
    assert table.schema == schema_of(spec)


@pytest.mark.parametrize(
    "changes",
    [
        {"features": (1.0, 2.0)},
        {"label": 2},
        {"label": "late"},
        {"weight": 1e300},
        {"event_time_ms": 10**15},
        {"scored_time_ms": -1},
        {"latency_ms": 2**60},
    ],
)
def test_what_no_fold_can_use_is_no_row(changes: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    table = table_of(spec_of(), [entry(0), entry(1, **changes), entry(2)])
    assert table["offset"].to_pylist() == [0, 2]
    assert "s.samples" in caplog.text


def test_without_a_sample_there_is_a_table_without_rows() -> None:
    table = table_of(spec_of(), [])
    assert (table.num_rows, table.schema) == (0, schema_of(spec_of()))


def test_rows_of_another_list_of_features_lack_what_they_never_had() -> None:
    old, new = spec_of(features=("a",)), spec_of(features=("b", "a"))
    [row] = conform(table_of(old, [entry(0)]), schema_of(new)).select(["f_b", "f_a"]).to_pylist()
    assert row == {"f_b": None, "f_a": 1.0}
    with pytest.raises(pa.ArrowException):
        conform(pa.table({"label": ["late"]}), pa.schema([schema_of(new).field("label")]))


def test_a_file_is_where_its_name_says_and_comes_back_as_it_was(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    archive.write(FILE, TABLE)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == [NAME]
    assert archive.files("s", FILE.log) == [FILE]
    assert archive.read([FILE]) == TABLE
    assert archive.read([FILE], ["label", "unknown"]) == TABLE.select(["label"])
    assert pq.ParquetFile(tmp_path / NAME).metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_same_rows_are_the_same_bytes_however_they_are_cut(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    found = set()
    for table in (TABLE, pa.concat_tables([TABLE[:1], TABLE[1:]])):
        archive.write(FILE, table)
        found.add((tmp_path / NAME).read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize("root", ["folder", "memory"])
def test_files_are_listed_by_offset_and_date_and_only_those_of_the_log(root: str, tmp_path: Path) -> None:
    archive = Archive(str(tmp_path) if root == "folder" else "memory://listed")
    assert archive.files("s", "l") == []
    files = [ArchiveFile("s", "l", first, first + 5, date(2024, 1, day)) for first in (0, 5, 10) for day in (1, 2)]
    for file in (*reversed(files), ArchiveFile("s", "other", 0, 5, date(2024, 1, 1)), FILE):
        archive.write(file, TABLE)
    assert archive.files("s", "l") == files
    archive.remove([files[0], files[0], files[3]])
    assert archive.files("s", "l") == [files[1], files[2], *files[4:]]


def test_columns_that_only_newer_files_have_are_null_in_the_older_ones(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    newer = ArchiveFile("s", FILE.log, 20, 30, FILE.date)
    archive.write(FILE, TABLE)
    archive.write(newer, pa.table({"offset": [21], "label": [1], "f_b": [0.5]}))
    assert archive.read([FILE, newer])["f_b"].to_pylist() == [None, None, 0.5]
    archive.write(newer, pa.table({"offset": [21], "label": ["late"]}))
    with pytest.raises(ArtifactCorrupted, match="archived samples of s"):
        archive.read([FILE, newer])


def test_a_damaged_file_and_one_that_cannot_be_written_are_told_apart(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    archive.write(FILE, TABLE)
    (tmp_path / NAME).write_bytes(b"no parquet")
    with pytest.raises(ArtifactCorrupted, match=r"parquet is no Parquet file any more"):
        archive.read([FILE])
    blocked = Archive(str(tmp_path / NAME))  # a file stands where a folder should
    with pytest.raises(ArtifactUnavailable, match="the archive failed at"):
        blocked.write(FILE, TABLE)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stores.files.reach_disk", full)
    with pytest.raises(ArtifactUnavailable, match="No space left"):
        Archive(str(tmp_path)).write(FILE, TABLE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_address_that_nothing_can_open_is_told_at_once() -> None:
    with pytest.raises(SettingsError, match="model_storage_dir 'nowhere://x'"):
        Archive("nowhere://x")


def test_a_stream_without_an_archive_has_no_group_for_it() -> None:
    from app.stages import inputs_of
    from schemas.training import ArchiveSpec

    spec = StreamSpec(name="s", features=("a",), archive=ArchiveSpec(enabled=False))
    assert "archive" not in inputs_of(spec, "learn")
    assert inputs_of(spec_of(), "learn")["archive"] == ("s.samples",)
