"""A sequential detector on the champion's error, beside the thresholds: it needs no window and no limit.

It is river's ADWIN (Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007): it keeps
the errors since the last change, and finds one where some split of them has two means that differ by more than chance.
"""

import pickle
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from ml.errors import ModelPayloadInvalid
from ml.models import unpickling

CLASSES_IN_PICKLE: Final = frozenset({("river.drift.adwin", "ADWIN"), ("river._river_rust.drift", "AdaptiveWindowing")})


@dataclass(frozen=True, slots=True)
class ErrorRise:
    """At `row` the error over the last `n` samples, `after`, had risen above that since the last change, `before`."""

    row: int
    n: int
    before: float
    after: float


class DetectorState(msgspec.Struct, frozen=True, array_like=True):
    """An ErrorDetector at rest."""

    n: int
    errors: int
    pickled: bytes


class ErrorDetector:
    """Tells when the share of errors went up. A change for the better only makes it begin anew."""

    def __init__(self) -> None:
        self._adwin = ADWIN()
        self._n = 0
        self._errors = 0

    def update(self, errors: NDArray[np.bool_]) -> list[ErrorRise]:
        """Take errors in order, shape (n,); about 0.4 µs each. Returns the rises among them."""
        rises = []
        adwin = self._adwin
        for row, error in enumerate(errors.tolist()):
            adwin.update(error)
            if adwin.drift_detected:
                n = self._n + row + 1
                before = (self._errors + int(errors[: row + 1].sum())) / n
                if adwin.estimation > before:
                    rises.append(ErrorRise(row, int(adwin.width), before, adwin.estimation))
                # River's forgets everything at its next update, so that is where counting begins again.
                self._n, self._errors = -(row + 1), -int(errors[: row + 1].sum())
        self._n += len(errors)
        self._errors += int(errors.sum())
        return rises

    def dump(self) -> DetectorState:
        """Return the state, about 2.5 kB."""
        return DetectorState(self._n, self._errors, pickle.dumps(self._adwin, 5))

    def load(self, state: DetectorState) -> None:
        """Take over a state. Raises ModelPayloadInvalid when it holds something else than an ADWIN."""
        adwin = unpickling.loads(state.pickled, CLASSES_IN_PICKLE)
        if not isinstance(adwin, ADWIN):
            raise ModelPayloadInvalid("this error detector holds something else than an ADWIN")
        self._adwin, self._n, self._errors = adwin, state.n, state.errors
