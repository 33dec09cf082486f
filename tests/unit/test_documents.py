"""Small files in the model store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from schemas.errors import PenstockError, SettingsError
from stores.artifacts import ArtifactUnavailable
from stores.documents import Documents, DocumentsMissing

FILES = {"card.md": b"# A card", "roc.svg": b"<svg/>"}


@pytest.fixture(params=["folder", "memory"])
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Documents]:
    yield Documents(str(tmp_path / "store") if request.param == "folder" else "memory://documents")
    MemoryFileSystem.store.clear()


def test_what_is_put_is_got_by_name(documents: Documents) -> None:
    documents.put("cards/flights-1", FILES)
    documents.put("cards/flights-2", {"card.md": b"another"})
    assert documents.get("cards/flights-1") == FILES
    assert list(documents.get("cards/flights-1")) == sorted(FILES)


def test_a_file_is_replaced_and_the_others_stay(documents: Documents) -> None:
    documents.put("cards/m", FILES)
    documents.put("cards/m", {"card.md": b"again"})
    assert documents.get("cards/m") == FILES | {"card.md": b"again"}


def test_a_folder_that_is_not_there_is_said(documents: Documents) -> None:
    with pytest.raises(DocumentsMissing, match="cards/nobody"):
        documents.get("cards/nobody")


def test_what_a_crash_left_half_written_is_no_document(tmp_path: Path) -> None:
    documents = Documents(str(tmp_path))
    documents.put("cards/m", FILES)
    (tmp_path / "cards/m/.card.md.0123.part").write_bytes(b"# A c")
    assert documents.get("cards/m") == FILES


@pytest.mark.parametrize("folder", ["", "../elsewhere", "cards/..", "cards//m", "/etc", "cards/.hidden"])
def test_no_name_leads_out_of_the_store(documents: Documents, folder: str) -> None:
    with pytest.raises(PenstockError, match="cannot be the name"):
        documents.put(folder, FILES)
    with pytest.raises(PenstockError, match="cannot be the name"):
        documents.get(folder)
    with pytest.raises(PenstockError, match="cannot be the name"):
        documents.put("cards/m", {"../card.md": b""})


def test_a_store_that_fails_may_work_later_and_leaves_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object) -> None:
        raise OSError(28, "No space left on device")

    documents = Documents(str(tmp_path))
    monkeypatch.setattr("stores.files.reach_disk", full)
    with pytest.raises(ArtifactUnavailable, match="No space left"):
        documents.put("cards/m", FILES)
    assert list((tmp_path / "cards/m").iterdir()) == []


def test_a_url_that_nothing_opens_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="nonsense"):
        Documents("nonsense://bucket")
