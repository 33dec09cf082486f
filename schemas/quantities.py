"""Numbers as a declaration may give them."""

from typing import Annotated, Final

import msgspec

Minutes = Annotated[int, msgspec.Meta(ge=0, le=10 * 366 * 24 * 60)]
SomeMinutes = Annotated[int, msgspec.Meta(ge=1, le=10 * 366 * 24 * 60)]
SomeHours = Annotated[int, msgspec.Meta(ge=1, le=10 * 366 * 24)]
SomeDays = Annotated[int, msgspec.Meta(ge=1, le=10 * 366)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
MINUTE_MS: Final = 60_000
