"""What a person reads: numbers that may be missing, times, and text of unknown origin that is to be shown."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

_LEAST_P: Final = 1e-4


def number(value: float | None, form: str) -> str:
    """Return `value` in the format `form`; a dash when there is none."""
    return "-" if value is None else format(value, form)


def p_value(value: float | None) -> str:
    """Return a p-value with four decimals; below that only that it is smaller."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value >= _LEAST_P else f"<{_LEAST_P:.4f}"


def per_cent(value: float) -> str:
    """Return a share, from 0 to 1, in per cent with as many decimals as it needs, two at most."""
    return f"{100 * value:.2f}".rstrip("0").rstrip(".") + "%"


def minute(time_ms: int) -> str:
    """Return a moment to the minute, in UTC."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def second(time_ms: int) -> str:
    """Return a moment to the second, in UTC."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def printable(text: str) -> str:
    """Return `text` on one line, with what a terminal would obey written out: a record may say anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """Return `text` with each of its lines as `printable` makes it."""
    return "\n".join(map(printable, text.split("\n")))


def table(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return `rows`, the header first, as lines with columns of equal width; the columns in `right` end alike."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
