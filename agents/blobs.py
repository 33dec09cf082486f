"""The large part of a checkpoint: in its record while it is small, else in the artifact store, found by its hash."""

import asyncio
import base64
from typing import TypedDict

from schemas.events import Checkpoint
from stores.artifacts import ArtifactStore

INLINE_BYTES = 256 * 1024


class BlobFields(TypedDict):
    """The fields of a Checkpoint that hold a blob."""

    blob_base64: str
    blob_sha256: str
    blob_bytes: int


class Blobs:
    """Puts the blobs of one stage where a checkpoint can name them, and takes out those that have no use any more.

    `owner` is a word that no other stage with blobs in this store has, so that equal states of two are different bytes.
    `pack` is called again only once what it packed before was committed, or after `unpack`. So the blob before the
    newest is the one to fall back to, and those before that can go. What a stage leaves behind when another worker
    takes over, at most one blob, stays in the store.
    """

    def __init__(self, store: ArtifactStore, owner: str, inline_bytes: int = INLINE_BYTES) -> None:
        """Blobs of more than `inline_bytes` go to the store."""
        self._store = store
        self._inline_bytes = inline_bytes
        self._head = owner.encode() + b"\n"
        self._kept: list[str] = []

    async def pack(self, blob: bytes) -> BlobFields:
        """Return the fields that stand for `blob`, once it is safe."""
        if len(blob) <= self._inline_bytes:
            return {"blob_base64": base64.b64encode(blob).decode(), "blob_sha256": "", "blob_bytes": len(blob)}
        whole = self._head + blob
        sha256 = await asyncio.to_thread(self._store.put, whole)
        if sha256 not in self._kept:
            self._kept.append(sha256)
        while len(self._kept) > 2:
            await asyncio.to_thread(self._store.remove, self._kept.pop(0))
        return {"blob_base64": "", "blob_sha256": sha256, "blob_bytes": len(whole)}

    async def unpack(self, checkpoint: Checkpoint | None) -> bytes:
        """Return the blob of the checkpoint that counts, empty without one. What was packed after it is not committed.

        Raises ArtifactMissing, ArtifactCorrupted or ArtifactUnavailable.
        """
        sha256 = "" if checkpoint is None else checkpoint.blob_sha256
        for uncommitted in self._kept:
            if uncommitted != sha256:
                await asyncio.to_thread(self._store.remove, uncommitted)
        self._kept = [sha256] if sha256 else []
        if checkpoint is None or not sha256:
            return b"" if checkpoint is None else base64.b64decode(checkpoint.blob_base64)
        whole = await asyncio.to_thread(self._store.get, sha256, checkpoint.blob_bytes)
        return whole[len(self._head) :]
