"""How moments, places, shares, limits and the like are written on the command line."""

import math
import re
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec

_PLACE: Final = re.compile(r"(\d{1,9}):(\d{1,18})")
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+")


class TimeType(click.ParamType):
    """A moment, as milliseconds since the epoch."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return an ISO 8601 time; one that does not tell its offset is UTC."""
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no ISO 8601 time, such as 2026-07-01T12:30:00Z", param, ctx)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def require_order(from_ms: int | None, to_ms: int | None, first: str, last: str) -> None:
    """Raise UsageError when a span of time, whose ends are those of the options `first` and `last`, runs backwards."""
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        raise click.UsageError(f"{first} is after {last}")


class PlaceType(click.ParamType):
    """A record's partition and offset."""

    name = "P:O"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return `3:1204` as (3, 1204)."""
        if (place := place_of(value)) is None:
            self.fail(f"{value!r} is not the partition and offset of an original, such as 3:1204", param, ctx)
        return place


def place_of(text: str) -> tuple[int, int] | None:
    """Return a partition and an offset from `3:1204`; None when the text is none."""
    match = _PLACE.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]))


class NumberType(click.FloatRange):
    """A finite number in a range: a click.FloatRange lets NaN through, and infinity where it is open."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        if not math.isfinite(click.FLOAT.convert(value, param, ctx)):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return super().convert(value, param, ctx)


class LimitType(NumberType):
    """Such a number, or `off`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `0.01` as 0.01 and `off` as itself: None would be an option that was not given."""
        return value if value == "off" else super().convert(value, param, ctx)


class ShareType(click.ParamType):
    """A share of the traffic in per cent, such as 20 or 2.5%. Whether it makes sense is for control to say."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `20%` as 0.2."""
        if isinstance(value, float):
            return value
        try:
            share = float(value.removesuffix("%"))
        except ValueError:
            share = math.nan
        if not math.isfinite(share):
            self.fail(f"{value!r} is not a share in per cent, such as 20 or 2.5%", param, ctx)
        return round(share / 100, 12)  # 0.07, not 0.07000000000000001


class StepsType(ShareType):
    """The steps of a rollout: shares with commas between, such as 10,50,100."""

    name = "SHARES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `10,50,100` as (0.1, 0.5, 1.0)."""
        steps = tuple(super(StepsType, self).convert(step.strip(), param, ctx) for step in value.split(","))
        if not all(0 < step <= 1 for step in steps):
            self.fail(f"{value!r}: each step is above 0 and at most 100 per cent, such as 10,50,100", param, ctx)
        return steps


class NamedShareType(ShareType):
    """A variant's name and its share: NAME=SHARE."""

    name = "NAME=SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `B=20` as ("B", 0.2)."""
        name, equals, share = value.rpartition("=")
        if not (name and equals):
            self.fail(f"{value!r} is no variant's name with a share, such as B=20", param, ctx)
        return name, super().convert(share, param, ctx)


class VariantType(ShareType):
    """A variant's name, its model and its share: NAME=MODEL:SHARE."""

    name = "NAME=MODEL:SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `B=m2:20` as ("B", "m2", 0.2)."""
        name, equals, rest = value.partition("=")
        model_id, colon, share = rest.rpartition(":")
        if not (name and equals and model_id and colon):
            self.fail(f"{value!r} is no variant's name with its model and share, such as B=MODEL_ID:20", param, ctx)
        return name, model_id, super().convert(share, param, ctx)


class VersionType(click.ParamType):
    """A semantic version of three numbers."""

    name = "X.Y.Z"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `1.2.0` as it is, and an empty text, which is none."""
        if value and _VERSION.fullmatch(value) is None:
            self.fail(f"{value!r} is no version of three numbers, such as 1.2.0", param, ctx)
        return str(value)


class NamedValueType(click.ParamType):
    """`name=value`. With `numbers`, the value is one; else it is what JSON makes of it, or a text."""

    name = "NAME=VALUE"

    def __init__(self, *, numbers: bool = False) -> None:
        self._numbers = numbers

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Return (name, value)."""
        name, equals, text = value.partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is no name with a value, such as depth=6", param, ctx)
        try:
            return name, msgspec.json.decode(text, type=float if self._numbers else str | int | float | bool | None)
        except msgspec.MsgspecError:
            if self._numbers:
                self.fail(f"{text!r} of {name} is not a number", param, ctx)
            return name, text
