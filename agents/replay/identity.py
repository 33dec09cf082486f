"""Whether models give again the scores that were logged: to the bit, and which do not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.shadows import finite_rows
from ml.models.protocol import Scores

_TOLERANCE: Final = 1e-12


class Whose(NamedTuple):
    """Whose scores these are; a shadow's were not served."""

    variant: str
    model_id: str
    shadow: bool


@dataclass(slots=True)
class Compared:
    """How many scores of a variant's model are the logged ones.

    `identical` are so to the bit. Of those that are not, `close` are within 1e-12: the last digits of 64-bit scores
    depend on the machine's mathematics library. `not_executed` could not be scored again.
    """

    events: int = 0
    identical: int = 0
    close: int = 0
    not_executed: int = 0

    @property
    def different(self) -> int:
        """How many are other scores."""
        return self.events - self.identical - self.close - self.not_executed


class Identity:
    """Counts, for each variant, model and shadow, how many of its scores come out as they were logged."""

    def __init__(self) -> None:
        self._compared: dict[Whose, Compared] = {}

    @property
    def compared(self) -> Mapping[Whose, Compared]:
        """What was found, by whose scores they are."""
        return dict(sorted(self._compared.items()))

    def add(
        self, variant: str, model_id: str, logged: NDArray[np.float64], scores: Scores, *, shadow: bool = False
    ) -> None:
        """Compare m scores with the logged ones, both (m,) or (m, classes). A row of NaN was not executed.

        Every 32-bit number is a JSON number, and comes back as the same; so it is compared to the bit only.
        """
        counts = self._compared.setdefault(Whose(variant, model_id, shadow), Compared())
        executed = finite_rows(scores)
        same = _rows(scores.astype(np.float64) == logged)
        counts.events += len(logged)
        counts.identical += int(same.sum())
        counts.not_executed += int((~executed).sum())
        if scores.dtype == np.float64 and not same.all():
            near = _rows(np.isclose(scores, logged, rtol=_TOLERANCE, atol=_TOLERANCE))
            counts.close += int((near & ~same).sum())


def _rows(cells: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(cells.all(axis=1) if cells.ndim == 2 else cells, dtype=np.bool_)
