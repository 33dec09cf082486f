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

    `owner` is a word that no other stage with blobs in this store has: equal states of two are different bytes then.
    `pack` is called again only when what it packed before was committed, or after `unpack` (or `forget`): so the last one
    packed, and the one that was unpacked, are committed when the next is.
    """

    def __init__(self, store: ArtifactStore, owner: str) -> None:
        self._store = store
        self._prefix = owner.encode() + b"\n"
        self._committed = ""

    async def pack(self, blob: bytes) -> BlobFields:
        """Return the fields that stand for `blob`, once it is safe."""
        if len(blob) <= INLINE_BYTES:
            return {"blob_base64": base64.b64encode(blob).decode(), "blob_sha256": "", "blob_bytes": len(blob)}
        whole = self._prefix + blob
        sha256 = await asyncio.to_thread(self._store.put, whole)
        before, self._committed, self._older = self._older, sha256, self._committed
        if before not in ("", sha256, self._older):
            await asyncio.to_thread(self._store.remove, before)
        return {"blob_base64": "", "blob_sha256": sha256, "blob_bytes": len(whole)}
