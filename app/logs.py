"""Records of a stream's logs, for commands that look at them: what is no event of the log is passed over."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from schemas.errors import InvalidEvent
from schemas.wire import decode
from stream.batches import Record

E = TypeVar("E", bound=msgspec.Struct)


def event_of(kind: type[E], value: bytes | None) -> E | None:
    """Return the event that a record's value is, or None: whoever follows the log passes over it, too."""
    try:
        return decode(kind, value)
    except InvalidEvent:
        return None


def events_of(kind: type[E], records: Iterable[Record]) -> list[E]:
    """Return the events that are in these records, in their order."""
    return [event for record in records if (event := event_of(kind, record.value)) is not None]
