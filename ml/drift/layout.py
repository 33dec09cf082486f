"""A baseline's columns as arrays, one row for each, so that what is said of them is computed for all at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml.drift.columns import Column, Floats, Ints


class Layout:
    """C columns, of at most K edges and B bins. Do not change the arrays.

    `starts` (C + 1,): where each column's cells begin in a flat array of all cells. `edges` (C, K): short rows repeat
    their last edge. `reference` (C, K + 1): cells, short rows end in zeros. `bins` (C, B + 1): counts in coarse bins,
    the last of them missing values; `real` (C, B + 1) tells which exist, `other` (C, B + 1) the ones called "other".
    `n`, `missing`, `lonely` (C,): values, missing ones, and values whose like is not found among the rest (the two
    outermost ones of a numeric column; those that occur once otherwise). `mean`, `scale` (C,): what z is made with,
    0 and 1 where there is no value, and a scale of 1 where there is no deviation, which is NaN in `deviation` (C,).
    `range` (C, 2): minimum and maximum, or zeros.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        cells = [len(column.counts) for column in columns]
        width = max((len(column.bin_names) for column in columns), default=0)
        self.starts: Ints = np.concatenate([[0], np.cumsum(cells, dtype=np.int64)])
        # One edge at least: where no column has a value, there is still something to compare.
        self.edges: Floats = np.zeros((len(columns), max(2, *cells) - 1))
        self.real: NDArray[np.bool_] = np.zeros((len(columns), width + 1), dtype=np.bool_)
        self.other = self.real.copy()
        for row, column in enumerate(columns):
            if column.edges:
                self.edges[row] = column.edges[-1]
                self.edges[row, : len(column.edges)] = column.edges
            self.real[row, : len(column.bin_names)] = True
            self.other[row, len(column.bin_names) - 1] = column.kind == "values"
        self.real[:, -1] = True
        self._of_column = np.repeat(np.arange(len(columns)), cells)
        self._in_column = np.arange(self.starts[-1]) - self.starts[self._of_column]
        self._bin_of = np.array([place for column in columns for place in column.bin_of], dtype=np.int64)
        self._figures(columns)
        flat = np.array([count for column in columns for count in column.counts], dtype=np.int64)
        self.reference = self.cells(flat)
        self.bins = self.binned(flat, self.missing)
        self._unseen = self._where_unseen()
        values_once = (self.bins[:, :-1] == 1).sum(axis=1)
        self.lonely: Ints = np.where(self.numeric, 2, values_once)

    def _figures(self, columns: Sequence[Column]) -> None:
        self.numeric = np.array([column.kind == "numeric" for column in columns], dtype=np.bool_)
        self.n: Ints = np.array([column.n for column in columns], dtype=np.int64)
        self.missing: Ints = np.array([column.missing for column in columns], dtype=np.int64)
        self.mean: Floats = np.array([column.mean or 0.0 for column in columns])
        self.deviation: Floats = np.array([column.deviation or np.nan for column in columns])
        self.range: Floats = np.array([[column.minimum or 0.0, column.maximum or 0.0] for column in columns])
        self.scale: Floats = np.where(np.isnan(self.deviation), 1.0, self.deviation)

    def _where_unseen(self) -> NDArray[np.bool_]:
        """Return which cells, flat, hold what the reference has not: other values, or beyond the range."""
        last = np.diff(self.starts)[self._of_column] - 1
        outer = (self._in_column == 0) | (self._in_column == last)
        return np.where(self.numeric[self._of_column], outer, self.other[self._of_column, self._bin_of])

    def cells(self, flat: Ints) -> Ints:
        """Return flat cells as rows, shape (C, K + 1), short ones filled up with zeros."""
        rows = np.zeros((len(self.n), self.edges.shape[1] + 1), dtype=np.int64)
        rows[self._of_column, self._in_column] = flat
        return rows

    def binned(self, flat: Ints, missing: Ints) -> Ints:
        """Return the counts of coarse bins, shape (C, B + 1), the missing values last."""
        rows, width = self.real.shape
        places = self._of_column * width + self._bin_of
        counts = np.bincount(places, weights=flat, minlength=rows * width).astype(np.int64).reshape(rows, width)
        counts[:, -1] = missing
        return counts

    def unseen(self, flat: Ints) -> Ints:
        """Return how many values of each column the reference has nothing like, shape (C,)."""
        counts = np.bincount(self._of_column, weights=flat * self._unseen, minlength=len(self.n))
        return counts.astype(np.int64)
