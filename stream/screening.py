"""The first look at records from strangers: what is too large or no event is set aside, with why."""

from collections.abc import Callable, Container, Sequence
from typing import TypeVar

from schemas.errors import InvalidEvent
from stream.batches import Record

T = TypeVar("T")
Values = list[bytes | None]
Refused = list[tuple[Record, InvalidEvent]]


def screen(
    records: Sequence[Record], read: Callable[[Values], tuple[list[T], dict[int, InvalidEvent]]], max_event_bytes: int
) -> tuple[Sequence[T], Sequence[Record], Refused]:
    """Read every record that is not too large to be worth parsing.

    `read` returns the good events and, by position, what is wrong with the others. Returns the events, their records,
    and the records that are none, each with why.
    """
    values = [record.value for record in records]
    if max(map(len, filter(None, values)), default=0) > max_event_bytes:
        values = [value if value is not None and len(value) <= max_event_bytes else None for value in values]
    events, bad = read(values)
    refused = [(records[i], _too_large(records[i], max_event_bytes) or error) for i, error in bad.items()]
    return events, without(records, bad), refused


def without(items: Sequence[T], positions: Container[int]) -> Sequence[T]:
    """Return the items at other positions than these; the very sequence when there are none."""
    return [item for i, item in enumerate(items) if i not in positions] if positions else items


def _too_large(record: Record, max_event_bytes: int) -> InvalidEvent | None:
    size = len(record.value or b"")
    if size <= max_event_bytes:
        return None
    return InvalidEvent("too_large", f"the value has {size} bytes; max_event_bytes is {max_event_bytes}")
