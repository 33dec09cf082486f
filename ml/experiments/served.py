"""What is known of an experiment without any label: events, errors, calls and scores by epoch and variant."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from ml.drift.statistics import psi
from ml.errors import CountsInvalid
from ml.evaluation.histogram import Ints
from ml.experiments.rules import Counted

SCORE_CELLS: Final = 20
EVENTS, ERRORS, CALLS, CALL_US, SLOW_CALLS = range(5)


class ServedState(msgspec.Struct, frozen=True, array_like=True):
    """Served at rest."""

    epochs: int
    counts: list[int]
    scores: list[int]


class Served:
    """Whole-number sums: `counts` (epochs, variants, 5) by the places above, `scores` (epochs, variants, 20)."""

    def __init__(self, variants: int) -> None:
        self.counts: Ints = np.zeros((0, variants, 5), dtype=np.int64)
        self.scores: Ints = np.zeros((0, variants, SCORE_CELLS), dtype=np.int64)

    def add_epoch(self) -> None:
        """Begin the next epoch."""
        self.counts = np.concatenate([self.counts, np.zeros_like(self.counts, shape=(1, *self.counts.shape[1:]))])
        self.scores = np.concatenate([self.scores, np.zeros_like(self.scores, shape=(1, *self.scores.shape[1:]))])

    def add(self, counted: Sequence[Counted]) -> None:
        """Count what was counted. Raises CountsInvalid, before anything is, where one does not fit."""
        epochs, variants, _ = self.counts.shape
        for one in counted:
            if not (0 <= one.epoch < epochs and 0 <= one.variant < variants and len(one.scores) in (0, SCORE_CELLS)):
                raise CountsInvalid(
                    f"counts of epoch {one.epoch} and variant {one.variant} with {len(one.scores)} cells of scores do "
                    f"not fit an experiment of {epochs} epochs and {variants} variants"
                )
        for one in counted:
            self.counts[one.epoch, one.variant] += (one.n, one.errors, one.calls, one.call_us, one.slow_calls)
            if one.scores:
                self.scores[one.epoch, one.variant] += np.array(one.scores, dtype=np.int64)

    def call_ms(self, variant: int) -> float | None:
        """Return the mean time of a call, or None without any."""
        calls, call_us = self.counts[:, variant, [CALLS, CALL_US]].sum(axis=0).tolist()
        return call_us / calls / 1000 if calls else None

    def score_psi(self, challenger: int, independent: tuple[float, float]) -> float | None:
        """Return how far the challenger's scores are from the champion's: the PSI of their shares of the cells.

        Shares are compared within epochs, as metrics are (`contrast.estimate`), by the same weights: scores that move
        with time, while the shares of traffic do, are no difference. `independent` is what the scores of the champion
        and of the challenger are worth, in independent ones: to each cell half a one is added (`bin_shares`). None
        where no epoch has scores of both, or they are worth nothing.
        """
        cells = self.scores[:, [0, challenger]].astype(np.float64)
        n = cells.sum(axis=2)
        used = n.all(axis=1)
        if not used.any() or not all(independent):
            return None
        cells, n = cells[used], n[used]
        weights = n.prod(axis=1) / n.sum(axis=1)
        shares = (weights[:, np.newaxis, np.newaxis] * cells / n[:, :, np.newaxis]).sum(axis=0) / weights.sum()
        worth = np.array(independent)[:, np.newaxis]
        shares = (shares * worth + 0.5) / (worth + 0.5 * SCORE_CELLS)
        return float(psi(shares[1], shares[0]))

    def dump(self) -> ServedState:
        """Return the state."""
        return ServedState(len(self.counts), self.counts.ravel().tolist(), self.scores.ravel().tolist())

    def load(self, state: ServedState) -> None:
        """Take over the state of as many variants; epochs that it does not know yet stay empty.

        Raises ValueError when it is another.
        """
        if state.epochs > len(self.counts):
            raise ValueError(f"the state knows {state.epochs} epochs, and there are {len(self.counts)}")
        loaded = Served(self.counts.shape[1])
        loaded.counts = np.array(state.counts, dtype=np.int64).reshape(state.epochs, *self.counts.shape[1:])
        loaded.scores = np.array(state.scores, dtype=np.int64).reshape(state.epochs, *self.scores.shape[1:])
        while len(loaded.counts) < len(self.counts):
            loaded.add_epoch()
        self.counts, self.scores = loaded.counts, loaded.scores
