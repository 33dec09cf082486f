"""What drift is measured against: for each column of a model's reference data, its values counted in cells."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.drift.columns import Column, make_column
from ml.drift.layout import Layout
from ml.errors import BaselineInvalid

FORMAT = 1


class _Encoded(msgspec.Struct, frozen=True):
    format: int
    features: tuple[Column, ...]
    predictions: tuple[Column, ...]


class Baseline:
    """The columns of a model version: its features in the declared order, then its predictions. Do not change it.

    Raises BaselineInvalid when a column contradicts itself, or two have one name.
    """

    def __init__(self, features: Sequence[Column], predictions: Sequence[Column] = ()) -> None:
        self.features = tuple(features)
        self.predictions = tuple(predictions)
        for column in self.columns:
            if problem := column.problem():
                raise BaselineInvalid(f"column {column.name!r} of the baseline is damaged: {problem}")
        for what, columns in (("features", self.features), ("predictions", self.predictions)):
            names = [column.name for column in columns]
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise BaselineInvalid(f"{what} of the baseline have the same name: {', '.join(repeated)}")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Features, then predictions."""
        return self.features + self.predictions

    @cached_property
    def layout(self) -> Layout:
        """The columns as arrays."""
        return Layout(self.columns)

    def expect(self, features: Sequence[str], predictions: Sequence[str]) -> None:
        """Raise BaselineInvalid unless these are the names of its columns, in this order."""
        for what, wanted, columns in (
            ("features", features, self.features),
            ("predictions", predictions, self.predictions),
        ):
            names = [column.name for column in columns]
            if names != list(wanted):
                raise BaselineInvalid(
                    f"the baseline is of other {what}: it has {', '.join(names) or 'none'}, "
                    f"and {', '.join(wanted) or 'none'} are counted"
                )

    def encode(self) -> bytes:
        """Return the baseline as JSON, about 8 KB a column; the same bytes for the same baseline."""
        return msgspec.json.encode(_Encoded(FORMAT, self.features, self.predictions))

    @classmethod
    def decode(cls, payload: bytes) -> "Baseline":
        """Return what `encode` gave, about 50 µs a column. Raises BaselineInvalid."""
        try:
            form = msgspec.json.decode(payload, type=dict[str, msgspec.Raw]).get("format", msgspec.Raw(b"0"))
            if bytes(form) != str(FORMAT).encode():
                raise BaselineInvalid(f"the baseline has format {bytes(form).decode()}, and {FORMAT} is what is known")
            encoded = msgspec.json.decode(payload, type=_Encoded)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise BaselineInvalid(f"these bytes are not a baseline: {problem}") from problem
        return cls(encoded.features, encoded.predictions)


def make_baseline(
    matrix: NDArray[Any],
    names: Sequence[str],
    predictions: Mapping[str, NDArray[Any]] | None = None,
    *,
    bins: int = 10,
    max_values: int = 32,
) -> Baseline:
    """Return the baseline of `matrix` (n, features), float32 or float64, and of `predictions`, each (n,).

    Give the values as they will be counted: those of a column with few values must be the same to the last bit. NaN is
    missing; a column may have nothing else. `bins` are the quantile bins of PSI, KL and JS; a column of at most
    `max_values` distinct values (and at most n/10, or only one) has a bin for each instead. Costs a sort of each
    column, about 1 ms for 10,000 rows. Raises BaselineInvalid: no rows, infinite values, shapes that do not fit.
    """
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise BaselineInvalid(f"{len(names)} features are named, and the reference data has shape {matrix.shape}")
    if not len(matrix):
        raise BaselineInvalid("a baseline needs reference data, and this has no rows")
    found = predictions or {}
    for name, values in found.items():
        if np.shape(values) != (len(matrix),):
            raise BaselineInvalid(f"prediction {name!r} has shape {np.shape(values)}, and there are {len(matrix)} rows")
    return Baseline(
        [make_column(name, matrix[:, place], bins, max_values) for place, name in enumerate(names)],
        [make_column(name, values, bins, max_values) for name, values in found.items()],
    )
