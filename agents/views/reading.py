"""What the folds of views share: how far back they look, and records that are passed over."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from schemas.errors import InvalidEvent
from schemas.wire import decode
from stream.batches import Record, TopicPartition

log = logging.getLogger("penstock.views")

KEPT_MS: Final = 30 * 24 * 3_600_000

E = TypeVar("E", bound=msgspec.Struct)
Pieces = AsyncIterator[Sequence[Record]]
"""The records of a log in pieces, the newest piece first; those of a piece are in order."""
ReadBack = Callable[[TopicPartition, int | None], AsyncGenerator[Sequence[Record], None]]
"""Gives the committed records before an offset (None: before the end) in such pieces: see `stream.tail`."""


def decoded(kind: type[E], record: Record, topic: str) -> E | None:
    """Return the event in a record. What is none is logged and passed over, as every follower of a log does."""
    try:
        return decode(kind, record.value)
    except InvalidEvent as error:
        log.warning("the record at offset %d of %s is passed over: %s", record.offset, topic, error)
        return None


def newest(kind: type[E], records: Sequence[Record], topic: str) -> E | None:
    """Return the last event of the records, if there is one."""
    return next((event for record in reversed(records) if (event := decoded(kind, record, topic)) is not None), None)
