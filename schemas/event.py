"""What every event is: a frozen record, and the types of the fields that many share."""

from typing import Annotated, Literal

import msgspec

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=32_503_680_000_000)]  # up to the year 3000
Severity = Literal["low", "medium", "high", "critical"]
"""How bad it is, from the least to the worst."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of every event."""
