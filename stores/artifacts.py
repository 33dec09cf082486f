"""Model bytes: a store addressed by content, and the signature without which nothing in it is opened.

To open a model: `Signer.verify(version)`, then `ArtifactStore.get(version.sha256, version.size_bytes)`.
All of this does file or network I/O and blocks: call it from a thread.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from fsspec.core import url_to_fs

from schemas.errors import PenstockError, SettingsError
from schemas.events import ModelVersion
from stores.files import PART, place_of, reach_disk, working, write_whole
from stores.files import ArtifactUnavailable as ArtifactUnavailable

_SIGNATURE_FORMAT = "penstock-artifact-1"


class ArtifactMissing(PenstockError):
    """The store has no artifact with this hash."""


class ArtifactCorrupted(PenstockError):
    """The stored bytes are not those that were put there."""


class ArtifactUntrusted(PenstockError):
    """The model's registration is not signed, or not with our key."""


class ArtifactStore:
    """Artifacts under `root`, a folder or an fsspec URL, at `<root>/<first two hex digits>/<sha256>`."""

    def __init__(self, root: str) -> None:
        """Raise SettingsError when nothing installed can open such a URL. Nothing is read or written yet."""
        try:
            self._files, self._root = url_to_fs(root)
        except (ImportError, ValueError) as error:
            raise SettingsError(f"model_storage_dir {root!r} cannot be used: {error}") from error

    def put(self, payload: bytes) -> str:
        """Store `payload` and return its SHA-256. What is already there is left alone, or mended when damaged.

        The final name appears only when every byte is written: a crash leaves at most a hidden `.part` file.
        """
        sha256 = hashlib.sha256(payload).hexdigest()
        try:
            self.get(sha256, len(payload))
        except (ArtifactMissing, ArtifactCorrupted):
            with self._working(sha256):
                write_whole(self._files, self._path(sha256), payload)
        return sha256

    def get(self, sha256: str, size_bytes: int) -> bytes:
        """Return the artifact, whose hash and size are then known to be right. Reads at most size_bytes + 1.

        Raises ArtifactMissing, ArtifactCorrupted or ArtifactUnavailable.
        """
        payload = self._read(sha256, max(size_bytes, 0) + 1)
        if len(payload) != size_bytes or hashlib.sha256(payload).hexdigest() != sha256:
            raise ArtifactCorrupted(
                f"the model file {self._where(sha256)} was changed since it was stored: its size or SHA-256 is wrong; "
                "restore it from a backup, or register the model again"
            )
        return payload

    def remove(self, sha256: str) -> None:
        """Delete an artifact, if it is there. Raises ArtifactUnavailable."""
        with self._working(sha256), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(sha256))

    def probe(self) -> None:
        """Store a few bytes, get them and remove them; raise what goes wrong."""
        payload = f"probe {secrets.token_hex(16)}".encode()
        sha256 = self.put(payload)
        self.get(sha256, len(payload))
        self.remove(sha256)

    def _read(self, sha256: str, at_most_bytes: int) -> bytes:
        with self._working(sha256):
            try:
                payload: bytes = self._files.cat_file(self._path(sha256), start=0, end=at_most_bytes)
            except FileNotFoundError as error:
                raise ArtifactMissing(
                    f"the model file {self._where(sha256)} does not exist; "
                    "check model_storage_dir (all workers need the same), or register the model again"
                ) from error
        return payload

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _where(self, sha256: str) -> str:
        return place_of(self._files, self._path(sha256))

    def _working(self, sha256: str) -> contextlib.AbstractContextManager[None]:
        return working(self._files, self._path(sha256))


class Signer:
    """Signs what a model's bytes may be used as, so that nobody can swap them or pass them off as something else.

    The signature is HMAC-SHA256 (RFC 2104), in hex, over a JSON array of the fields in `sign`: JSON, because
    it shows where each field ends.
    """

    def __init__(self, key: bytes) -> None:
        if not key:
            raise SettingsError("model_signing_key is empty")
        self._key = key

    def sign(self, version: ModelVersion) -> str:
        """Return the signature for `version`; what its own `signature` field holds does not matter."""
        signed = (
            _SIGNATURE_FORMAT,
            version.stream,
            version.algorithm,
            version.task,
            version.features,
            version.classes,
            version.sha256,
            version.size_bytes,
            version.memory_bytes,
            version.model_id,
        )
        return hmac.new(self._key, json.dumps(signed).encode(), hashlib.sha256).hexdigest()

    def verify(self, version: ModelVersion) -> None:
        """Raise ArtifactUntrusted unless `version` carries our signature."""
        if not version.signature:
            raise ArtifactUntrusted(
                f"model {version.model_id!r} is not signed; register it with `penstock models register`"
            )
        if not hmac.compare_digest(self.sign(version).encode(), version.signature.encode(errors="replace")):
            raise ArtifactUntrusted(
                f"the signature of model {version.model_id!r} is wrong: its record was changed, or it was registered "
                "with another model_signing_key than this worker has"
            )


def load_or_create_key(path: str | Path) -> bytes:
    """Return the signing key in the file `path`; where there is none, make one (32 random bytes, in hex, mode 0600).

    The key is the file's text without white space around it, so the same text in `ML_MODEL_SIGNING_KEY` is the same
    key. Of several processes that start at once, one makes the key and all return it.
    Raises SettingsError when the file is empty, cannot be read or written, or other users may open it.
    """
    path = Path(path)
    try:
        if not path.exists():
            _create_key(path)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise SettingsError(f"the signing key {path} is open to other users; run: chmod 600 {path}")
        key = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"the signing key {path} cannot be read or made: {error}") from error
    if not key:
        raise SettingsError(f"the signing key {path} is empty; delete the file to get a new key")
    return key


def _create_key(path: Path) -> None:
    """Make a whole key appear at once: the hard link fails if another process was first, whose key then counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_hex(32).encode() + b"\n")
            reach_disk(file)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)
