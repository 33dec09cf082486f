"""A fingerprint of an object that depends on what it holds, not on how it lies in memory.

Two pickles of equal objects can differ: by what is one object or two equal ones, and by the order of dicts and sets.
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import Any

_PLAIN = (type(None), bool, int, str, bytes)


def fingerprint(value: Any) -> bytes:
    """Return 32 bytes that are the same for equal values: for objects, of the same class with equal state.

    State is what pickle would store. Floats are equal when their bits are. Raises RecursionError where objects
    contain themselves. Cost: about 3 µs per number or object.
    """
    return _Fingerprints().of(value)


class _Fingerprints:
    def __init__(self) -> None:
        # By identity; with the object, so that no other can come to have its identity meanwhile.
        self._known: dict[int, tuple[Any, bytes]] = {}

    def of(self, value: Any) -> bytes:
        kind = type(value)
        if kind in _PLAIN:
            return _digest(kind.__name__, [repr(value).encode()])
        if kind is float:
            return _digest("float", [struct.pack("<d", value)])
        if kind in (list, tuple):
            return _digest("list", map(self.of, value))
        if kind in (set, frozenset):
            return _digest("set", sorted(map(self.of, value)))
        if kind is dict:
            return self._pairs(value.items())
        if callable(value) and hasattr(value, "__qualname__"):
            return _digest("name", [f"{value.__module__}.{value.__qualname__}".encode()])
        return self._object(value)

    def _pairs(self, items: Any) -> bytes:
        return _digest("dict", sorted(self.of(key) + self.of(held) for key, held in items))

    def _object(self, value: Any) -> bytes:
        if id(value) not in self._known:
            make, arguments, state, listed, mapped = (*value.__reduce_ex__(4), None, None, None)[:5]
            parts = [
                self.of(make),
                self.of(arguments),
                self.of(state),
                self.of(list(listed or ())),
                self._pairs(mapped or ()),
            ]
            self._known[id(value)] = value, _digest("object", parts)
        return self._known[id(value)][1]


def _digest(kind: str, parts: Iterable[bytes]) -> bytes:
    whole = hashlib.sha256(kind.encode() + b":")
    for part in parts:
        whole.update(part)
    return whole.digest()
