"""Pickled models as payloads: a header that names the format, the CRC-32 of the pickle in 4 bytes, the pickle."""

import pickle
import zlib
from collections.abc import Set
from typing import Any

from ml.errors import ModelPayloadInvalid
from ml.models import unpickling

_PICKLE_PROTOCOL = 5


def header(algorithm: str, version: int = 1) -> bytes:
    return f"penstock {algorithm} {version}\n".encode()


def seal(algorithm: str, state: Any) -> bytes:
    pickled = pickle.dumps(state, _PICKLE_PROTOCOL)
    return header(algorithm) + zlib.crc32(pickled).to_bytes(4) + pickled


def unseal(algorithm: str, payload: bytes, allowed: Set[unpickling.ClassName]) -> Any:
    """Return the state that was sealed.

    Raises ModelPayloadInvalid when `payload` is of another algorithm or format, is damaged, or names a class
    that is not in `allowed`.
    """
    start = header(algorithm)
    if not payload.startswith(start):
        raise ModelPayloadInvalid(f"this is not a {algorithm} model: it does not begin with {start!r}")
    body = payload[len(start) :]
    if zlib.crc32(body[4:]).to_bytes(4) != body[:4]:
        raise ModelPayloadInvalid(f"this {algorithm} model is damaged: its checksum is wrong")
    return unpickling.loads(body[4:], allowed)
