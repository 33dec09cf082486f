"""UBJSON, as far as XGBoost writes it, read without trusting a byte.

The format (big-endian; see ubjson.org and XGBoost's json_io.h): an object is `{`, then keys and values, then
`}`. An array is `[#`, a length, its values; or `[$`, the type of its numbers, `#`, a length, the bare numbers.
A text is `S` and a key is nothing, then a length and that much UTF-8. A length is `L` and a 64-bit integer.
"""

import struct
from typing import Any

import numpy as np

_KINDS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_NUMBERS = {marker: np.dtype(kind) for marker, kind in _KINDS.items()}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}
_LENGTH = struct.Struct(">cq")
_NUMBERS_HEADER = struct.Struct(">2sc2sq")


def parse(payload: bytes) -> Any:
    """Return the document: dicts, lists, strings and numbers; arrays of numbers are views of `payload`.

    Raises ValueError where the bytes are not one whole document, RecursionError where it nests too deeply.
    Cost: about 2 µs per value, however long an array is.
    """
    reader = _Reader(payload)
    document = reader.value()
    if reader.position != len(payload):
        raise ValueError(f"it goes on after its end at byte {reader.position}")
    return document


class _Reader:
    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.position = 0

    def value(self) -> Any:
        if self.payload.startswith(b"[$", self.position):
            return self._numbers()
        marker = self._take(1)
        if marker == b"{":
            return self._object()
        if marker == b"[":
            return self._array()
        if marker == b"S":
            return self._text()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        return self._number(marker)

    def _object(self) -> dict[str, Any]:
        found = {}
        while not self.payload.startswith(b"}", self.position):
            key = self._text()
            found[key] = self.value()
        self.position += 1
        return found

    def _array(self) -> list[Any]:
        if self._take(1) != b"#":
            raise ValueError(f"the array before byte {self.position} has no length")
        return [self.value() for _ in range(self._length())]

    def _numbers(self) -> Any:
        _, kind, marks, count = _NUMBERS_HEADER.unpack(self._take(_NUMBERS_HEADER.size))
        if marks != b"#L" or kind not in _NUMBERS:
            raise ValueError(f"the array before byte {self.position} has no known type and length")
        dtype = _NUMBERS[kind]
        return np.frombuffer(self.payload, dtype, count, self._advance(count * dtype.itemsize))

    def _number(self, kind: bytes) -> int | float:
        if kind not in _NUMBERS:
            raise ValueError(f"the value before byte {self.position} has the unknown type {kind!r}")
        dtype = _NUMBERS[kind]
        number: int | float = np.frombuffer(self._take(dtype.itemsize), dtype)[0].item()
        return number

    def _text(self) -> str:
        return self._take(self._length()).decode()

    def _length(self) -> int:
        marker, length = _LENGTH.unpack(self._take(_LENGTH.size))
        if marker != b"L" or length < 0:
            raise ValueError(f"no length before byte {self.position}")
        return int(length)

    def _take(self, size: int) -> bytes:
        start = self._advance(size)
        return self.payload[start : self.position]

    def _advance(self, size: int) -> int:
        """Move over `size` bytes and return where they start."""
        start = self.position
        end = start + size
        if not start <= end <= len(self.payload):
            raise ValueError(f"it is cut off: byte {start} promises {size} bytes more, {len(self.payload)} are there")
        self.position = end
        return start
