"""What every event is: a frozen record, and the types of the fields that many share."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=32_503_680_000_000)]  # up to the year 3000
Severity = Literal["low", "medium", "high", "critical"]
"""How bad it is, from the least to the worst."""
SEVERITY_RANKS: Final[Mapping[Severity | Literal["none"], int]] = {
    "none": 0,
    "low": 1,
    "medium": 2,
    "high": 3,
    "critical": 4,
}
"""The worse, the higher; `none` is what is found of a column that has not drifted."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of every event."""
