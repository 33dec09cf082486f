"""One column's reference values, counted in cells: a bounded sketch that keeps KS to 0.0045 whatever comes later."""

from itertools import pairwise
from math import isfinite
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import BaselineInvalid

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEVELS = 224  # between two neighbouring levels lies 1/224 of the values, a little less than _HEAVY
_HEAVY = 0.0045  # a cell with a larger share is cut right behind its left edge: see `_numeric_edges`
_WIDE = 0.0002  # the largest width of a cell, in deviations, times its share of the values
_TAIL = 512  # the tails go on from here, halved again and again


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """The reference values of one column: `n` that are there and `missing` that are not (NaN).

    `edges`, k of them and strictly increasing, cut the line into k + 1 cells: cell i is [edges[i - 1], edges[i]), the
    outer two are open and empty. `counts` (k + 1) are the values in each cell, `bin_of` (k + 1) says which coarse bin
    a cell is in, `bin_names` are those of the bins, the one of missing values left out. A column of `kind` "values"
    has a cell and a bin for each distinct value, and a last bin, "other", for everything else; without any value it
    has that bin alone. `deviation` is the population's (over n); `quantiles` are those at QUANTILES.
    """

    name: str
    kind: Literal["numeric", "values"]
    n: int
    missing: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    bin_of: tuple[int, ...]
    bin_names: tuple[str, ...]
    mean: float | None
    deviation: float | None
    minimum: float | None
    maximum: float | None
    quantiles: tuple[float, ...]

    def problem(self) -> str | None:
        """Return what is wrong with this column, in a few words, or None."""
        cells, bins = len(self.counts), len(self.bin_names)
        figures = (
            *self.edges,
            *self.quantiles,
            *(self.mean, self.deviation, self.minimum, self.maximum) * (self.n > 0),
        )
        if len(self.edges) + 1 != cells or len(self.bin_of) != cells:
            return "as many cells as counts and bins, one more than edges, are needed"
        if not all(figure is not None and isfinite(figure) for figure in figures):
            return "a figure is missing or not finite"
        if any(left >= right for left, right in pairwise(self.edges)):
            return "edges do not increase"
        if min(self.counts) < 0 or self.missing < 0 or sum(self.counts) != self.n or self.n + self.missing == 0:
            return "counts do not add up"
        if min(self.bin_of) < 0 or max(self.bin_of) >= bins:
            return "a cell is in no bin"
        return None


def make_column(name: str, values: NDArray[Any], bins: int, max_values: int) -> Column:
    """Return the column of `values` (n,), in which NaN is missing. It is of kind "values" when it has at most
    `max_values` distinct ones and at most n/10, or only one. Costs a sort. Raises BaselineInvalid.
    """
    known = np.asarray(values, dtype=np.float64)
    known = np.sort(known[~np.isnan(known)])
    n, missing = len(known), len(values) - len(known)
    if n and not np.isfinite(known[[0, -1]]).all():
        infinite = int(np.isinf(known).sum())
        raise BaselineInvalid(
            f"column {name!r} has infinite values in {infinite} of {len(values)} rows of the reference data"
        )
    figures = _figures(name, known)
    distinct = known[np.concatenate([[True], known[1:] != known[:-1]])] if n else known
    few = len(distinct) <= 1 or len(distinct) <= min(max_values, n / 10)
    edges, bin_of, bin_names = _value_cells(distinct) if few else _numeric_cells(known, bins)
    return Column(
        name=name,
        kind="values" if few else "numeric",
        n=n,
        missing=missing,
        edges=tuple(edges.tolist()),
        counts=tuple(np.diff(np.searchsorted(known, edges), prepend=0, append=n).tolist()),
        bin_of=tuple(bin_of.tolist()),
        bin_names=bin_names,
        **figures,
    )


def _figures(name: str, known: Floats) -> dict[str, Any]:
    """Return what a column says of its values, which are sorted. Raises BaselineInvalid."""
    if not len(known):
        return {"mean": None, "deviation": None, "minimum": None, "maximum": None, "quantiles": ()}
    low, high = float(known[0]), float(known[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = (float(known.mean()), float(known.std())) if low < high else (low, 0.0)
    if not np.isfinite([mean, deviation]).all():
        raise BaselineInvalid(f"column {name!r} has values in the reference data that are too large to measure")
    quantiles = tuple(np.quantile(known, QUANTILES).tolist())
    return {"mean": mean, "deviation": deviation, "minimum": low, "maximum": high, "quantiles": quantiles}


def _value_cells(distinct: Floats) -> tuple[Floats, Ints, tuple[str, ...]]:
    """Return edges, the bins of the cells and their names: each value alone, and all else in the bin "other"."""
    edges = np.unique(np.concatenate([distinct, np.nextafter(distinct, np.inf)]))
    bin_of = np.full(len(edges) + 1, len(distinct), dtype=np.int64)
    bin_of[np.searchsorted(edges, distinct, side="right")] = np.arange(len(distinct))
    return edges, bin_of, (*_written(distinct), "other")


def _numeric_cells(known: Floats, bins: int) -> tuple[Floats, Ints, tuple[str, ...]]:
    """Return edges, the bins of the cells and their names: `bins` quantile bins, those with the same edges merged."""
    inner = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1))[1:-1])
    edges = _numeric_edges(known, inner)
    bin_of = np.searchsorted(inner, np.concatenate([[-np.inf], edges]), side="right")
    at = _written(inner)
    names = (f"< {at[0]}", *(f"{low} to {high}" for low, high in pairwise(at)), f"≥ {at[-1]}")
    return edges, bin_of.astype(np.int64), names


def _numeric_edges(known: Floats, inner: Floats) -> Floats:
    """Return where to cut: at 225 quantiles, in the tails at 1/512, 1/1024 … of the values, at the bins' edges.

    KS from cells is wrong by at most the largest share of the reference that lies in one cell, unless all of it is
    one value. So a cell heavier than 0.0045 is cut behind its left edge, where a value that repeats stands alone.
    """
    n = len(known)
    halved = n // (_TAIL << np.arange(max(1, n.bit_length() - 9)))
    halved = halved[halved > 0]
    places = np.concatenate([np.arange(_LEVELS + 1) * (n - 1) // _LEVELS, halved, n - 1 - halved])
    edges = np.unique(np.concatenate([known[places], inner, [np.nextafter(known[-1], np.inf)]]))
    counts = np.diff(np.searchsorted(known, edges))
    heavy = edges[:-1][counts > _HEAVY * n]
    return _narrowed(known, np.unique(np.concatenate([edges, np.nextafter(heavy, np.inf)])))


def _narrowed(known: Floats, edges: Floats) -> Floats:
    """Return the edges and, in cells that are wide for what they hold, more of them, evenly spaced.

    They are for the Wasserstein distance, whose error in a cell is at most its width times the share in it. What an
    outlier leaves empty is cut, too. Normal values have 20 to 40 more edges, Student's t with 2 degrees some 200; more
    than 2,300 there cannot be, by Chebyshev's inequality.
    """
    share = np.diff(np.searchsorted(known, edges)) / len(known)
    deviation = known.std()
    if deviation == 0:  # values so near 0 that their squares are 0
        return edges
    pieces: Ints = np.maximum(np.ceil(np.diff(edges) * share / (_WIDE * deviation)), 1).astype(np.int64)
    piece = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    inside = np.repeat(edges[:-1], pieces) + piece * np.repeat(np.diff(edges) / pieces, pieces)
    return np.unique(np.concatenate([inside, edges]))


def _written(values: Floats) -> tuple[str, ...]:
    short = tuple(f"{value:.6g}" for value in values.tolist())
    return short if len(set(short)) == len(short) else tuple(repr(value) for value in values.tolist())
