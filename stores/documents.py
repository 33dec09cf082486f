"""Small files that belong together, such as the card of a model: a folder of them in the model store.

All of this does file or network I/O and blocks: call it from a thread.
"""

import contextlib
import posixpath
from collections.abc import Mapping

from fsspec.core import url_to_fs

from schemas.errors import PenstockError, SettingsError
from stores.files import PART, place_of, working, write_whole


def card_folder(model_id: str) -> str:
    """Return the folder below `model_storage_dir` where a model's card is."""
    return f"cards/{model_id}"


class DocumentsMissing(PenstockError):
    """The store has no such folder."""


class Documents:
    """Folders under `root`, which is a folder or an fsspec URL. The files of a folder are told apart by their names."""

    def __init__(self, root: str) -> None:
        """Raise SettingsError when nothing installed can open such a URL. Nothing is read or written yet."""
        try:
            self._files, self._root = url_to_fs(root)
        except (ImportError, ValueError) as error:
            raise SettingsError(f"model_storage_dir {root!r} cannot be used: {error}") from error

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write `files`, by name, into `folder`; a file that is there already is replaced whole, the others stay.

        Raises ArtifactUnavailable.
        """
        path = self._path(folder)
        with self._working(path):
            for name, payload in files.items():
                write_whole(self._files, f"{path}/{_checked(name)}", payload)

    def get(self, folder: str) -> dict[str, bytes]:
        """Return the files of `folder` by name, in the order of their names.

        Raises DocumentsMissing or ArtifactUnavailable.
        """
        path = self._path(folder)
        with self._working(path):
            try:
                self._files.invalidate_cache()
                paths: list[str] = sorted(self._files.ls(path, detail=False))
            except FileNotFoundError as error:
                raise DocumentsMissing(f"the model store has nothing at {self._where(path)}") from error
            found = [found for found in paths if not found.endswith(PART)]
            return {posixpath.basename(each): self._files.cat_file(each) for each in found}

    def _path(self, folder: str) -> str:
        return "/".join((self._root, *map(_checked, folder.split("/"))))

    def _where(self, path: str) -> str:
        return place_of(self._files, path)

    def _working(self, path: str) -> contextlib.AbstractContextManager[None]:
        return working(self._files, path)


def _checked(name: str) -> str:
    """Return a name of a file or folder; a name may come from a record, and must not lead out of the store."""
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise PenstockError(f"{name!r} cannot be the name of a file or folder in the model store")
    return name
