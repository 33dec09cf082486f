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
    """Puts blobs where a checkpoint can name them. Of those in the store, the two newest are kept.

    Two, because the newest may belong to a commit that fails, and then the one before counts. What a worker that was
    killed left behind stays in the store.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._stored: list[str] = []

    async def pack(self, blob: bytes) -> BlobFields:
        """Return the fields that stand for `blob`, once it is safe."""
        if len(blob) <= INLINE_BYTES:
            return {"blob_base64": base64.b64encode(blob).decode(), "blob_sha256": "", "blob_bytes": len(blob)}
        sha256 = await asyncio.to_thread(self._store.put, blob)
        if sha256 not in self._stored:
            self._stored.append(sha256)
        for old in self._stored[:-2]:
            await asyncio.to_thread(self._store.remove, old)
        del self._stored[:-2]
        return {"blob_base64": "", "blob_sha256": sha256, "blob_bytes": len(blob)}

    async def unpack(self, checkpoint: Checkpoint) -> bytes:
        """Return the blob of `checkpoint`. Raises ArtifactMissing, ArtifactCorrupted or ArtifactUnavailable."""
        if not checkpoint.blob_sha256:
            return base64.b64decode(checkpoint.blob_base64)
        if checkpoint.blob_sha256 not in self._stored:
            self._stored.append(checkpoint.blob_sha256)
        return await asyncio.to_thread(self._store.get, checkpoint.blob_sha256, checkpoint.blob_bytes)
