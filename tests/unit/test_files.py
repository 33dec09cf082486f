"""Files that appear whole."""

import io
from pathlib import Path

import pytest
from fsspec.core import url_to_fs

from stores.artifacts import load_or_create_key
from stores.files import write_whole


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("fails", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_until_it_is_on_the_disk_a_file_has_a_hidden_name_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: BaseException
) -> None:
    seen: list[str] = []

    def full(file: io.IOBase) -> None:
        seen.extend(names(tmp_path))
        raise fails

    files, root = url_to_fs(str(tmp_path))
    write_whole(files, f"{root}/a folder/a file", b"old")
    monkeypatch.setattr("stores.files.reach_disk", full)
    with pytest.raises(type(fails)):
        write_whole(files, f"{root}/a folder/a file", b"new")
    [part] = set(seen) - {"a file"}
    assert part.startswith(".a file.")
    assert part.endswith(".part")
    assert names(tmp_path) == ["a file"]
    assert (tmp_path / "a folder/a file").read_bytes() == b"old"


def test_a_key_that_is_not_written_yet_is_hidden_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("stores.artifacts.reach_disk", lambda file: seen.extend(names(tmp_path)))
    load_or_create_key(tmp_path / "key")
    assert [name[:5] for name in seen] == [".key."]
