"""A learner beside the version that serves: Brier scores on the same samples.

The Brier score (Brier, 1950, Monthly Weather Review 78:1) of a sample is (score - label)², for several classes the
sum of that over the classes; 0 is best. Sums are integer multiples of 2**-40, so that they do not depend on
how the samples were grouped while they were added.
"""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.learning.samples import Samples
from ml.models.protocol import Labels, Scores

FIRST_BLOCK = 100
MAX_BLOCKS = 1024
_UNIT = 2.0**40


@dataclass(frozen=True)
class Standing:
    """Mean Brier scores of the learner (`own`) and of the version that served, over the same `samples`."""

    samples: int
    own: float
    served: float


class Block(msgspec.Struct, array_like=True):
    """Sums over successive samples: `learnt` in all, of which `samples` were also scored by another version."""

    learnt: int = 0
    samples: int = 0
    own: int = 0
    served: int = 0
    event_time_ms: int = 0


class Comparison(msgspec.Struct):
    """The newest `wanted` mature samples, in blocks of `block_size` by the number of samples since the start.

    A block is mature when the newest label time is `maturity_ms` after its newest event: until then its samples
    are those whose label came early. What is not needed for `wanted` mature samples is dropped. More than
    1,024 blocks are never kept: then two become one, and blocks are twice as large from there on.
    """

    wanted: int
    maturity_ms: int
    block_size: int = FIRST_BLOCK
    label_time_ms: int = 0
    open: Block = msgspec.field(default_factory=Block)
    closed: list[Block] = []

    def add(self, samples: Samples, own: Scores) -> None:
        """Add samples with their scores `own`, which the learner gave before it learnt them.

        Cost: about 5 µs a block, and 0.1 µs a sample where another version scored.
        """
        scored = np.isfinite(samples.served if samples.served.ndim == 1 else samples.served[:, 0])
        errors = np.zeros((2, len(samples)), np.int64)
        if scored.any():
            errors[0, scored] = _brier(own[scored], samples.labels[scored])
            errors[1, scored] = _brier(samples.served[scored], samples.labels[scored])
        position = 0
        while position < len(samples):
            stop = min(position + self.block_size - self.open.learnt, len(samples))
            part = slice(position, stop)
            self._grow(stop - position, scored[part], errors[:, part], samples.event_time_ms[part])
            self.label_time_ms = max(self.label_time_ms, int(samples.label_time_ms[part].max()))
            if self.open.learnt == self.block_size:
                self._close()
            position = stop

    def standing(self) -> Standing | None:
        """Return how the learner compares, or None while fewer than `wanted` mature samples can be compared."""
        samples = own = served = 0
        for block in reversed(self.closed):
            if samples >= self.wanted:
                break
            if self._is_mature(block):
                samples, own, served = samples + block.samples, own + block.own, served + block.served
        if samples < self.wanted:
            return None
        return Standing(samples, own / _UNIT / samples, served / _UNIT / samples)

    def _grow(
        self, learnt: int, scored: NDArray[np.bool_], errors: NDArray[np.int64], event_time_ms: NDArray[np.int64]
    ) -> None:
        block = self.open
        block.learnt += learnt
        block.samples += int(np.count_nonzero(scored))
        own, served = errors.sum(axis=1).tolist()
        block.own += own
        block.served += served
        block.event_time_ms = max(block.event_time_ms, int(event_time_ms.max()))

    def _close(self) -> None:
        if self.open.samples:
            self.closed.append(self.open)
        self.open = Block()
        self._drop_what_is_not_needed()
        if len(self.closed) > MAX_BLOCKS:
            pairs = zip(self.closed[::2], [*self.closed[1::2], Block()], strict=False)
            self.closed = [_merged(first, second) for first, second in pairs]
            self.block_size *= 2

    def _drop_what_is_not_needed(self) -> None:
        mature = sum(block.samples for block in takewhile(self._is_mature, self.closed))
        while self.closed and mature - self.closed[0].samples >= self.wanted:
            mature -= self.closed.pop(0).samples

    def _is_mature(self, block: Block) -> bool:
        return block.event_time_ms + self.maturity_ms <= self.label_time_ms


def _merged(first: Block, second: Block) -> Block:
    return Block(
        first.learnt + second.learnt,
        first.samples + second.samples,
        first.own + second.own,
        first.served + second.served,
        max(first.event_time_ms, second.event_time_ms),
    )


def _brier(scores: NDArray[np.floating[Any]], labels: Labels) -> NDArray[np.int64]:
    """Return each sample's Brier score in units of 2**-40."""
    scores = scores.astype(np.float64)
    if scores.ndim == 1:
        errors = (scores - labels) ** 2
    else:
        scores[np.arange(len(labels)), labels] -= 1.0
        errors = (scores**2).sum(axis=1)
    units: NDArray[np.int64] = np.rint(errors * _UNIT).astype(np.int64)
    return units
