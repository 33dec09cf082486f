"""Kafka's default partitioner, for a whole batch of keys at once.

Java clients, aiokafka and Penstock place a key on `(murmur2(key) & 0x7fffffff) % partitions`; librdkafka's
default is CRC32. Features and labels of one entity meet only if everybody agrees, so every key is checked.
murmur2: Austin Appleby, MurmurHash2, 32 bits, seed 0x9747b28c, as in Apache Kafka's `Utils.murmur2`.
"""

from collections.abc import Sequence
from struct import iter_unpack

import numpy as np
from numpy.typing import NDArray

_M = np.uint32(0x5BD1E995)
_SEED = 0x9747B28C
_FEW = 16  # keys: up to so many are hashed sooner one by one


def murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return the murmur2 hash of each key, shape (len(keys),).

    About 0.2 µs per key of 10 bytes in a batch of 1,000, and 2 µs where there are only a few.
    """
    if len(keys) <= _FEW:
        return np.array([_murmur2(key) for key in keys], dtype=np.uint32)
    hashes = np.empty(len(keys), dtype=np.uint32)
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        chosen = keys if rows.size == len(keys) else [keys[row] for row in rows.tolist()]
        block = np.frombuffer(b"".join(chosen), dtype=np.uint8).reshape(rows.size, int(length))
        hashes[rows] = _murmur2_block(block)
    return hashes


def partitions_of(keys: Sequence[bytes], partitions: int) -> NDArray[np.int64]:
    """Return the partition that Kafka's default partitioner gives each key, of `partitions` in all."""
    return (murmur2(keys) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions


def _murmur2(key: bytes) -> int:
    """Hash one key."""
    m, length = 0x5BD1E995, len(key)
    h = (_SEED ^ length) & 0xFFFFFFFF
    whole = length - length % 4
    for (k,) in iter_unpack("<I", key[:whole]):
        k = k * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m
        h = (h * m ^ k) & 0xFFFFFFFF
    if whole != length:
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


def _murmur2_block(block: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Hash the rows of `block`, which are keys of one length. uint32 arithmetic wraps, as the algorithm wants."""
    count, length = block.shape
    h = np.full(count, (_SEED ^ length) & 0xFFFFFFFF, dtype=np.uint32)
    whole = length - length % 4
    words = np.ascontiguousarray(block[:, :whole]).view("<u4") if whole else np.empty((count, 0), dtype=np.uint32)
    for column in range(words.shape[1]):
        k = words[:, column] * _M
        k ^= k >> np.uint32(24)
        h = (h * _M) ^ (k * _M)
    if whole != length:
        for position in range(length - 1, whole - 1, -1):
            h ^= block[:, position].astype(np.uint32) << np.uint32(8 * (position - whole))
        h *= _M
    h ^= h >> np.uint32(13)
    h *= _M
    h ^= h >> np.uint32(15)
    return h
