"""Why a model scored a row as it did: what each feature contributed to the score.

Contributions are Shapley values (Shapley 1953): with the base value they add up to the output, features that the
model takes alike get alike, and one that it does not look at gets nothing. A model that knows its own (`Explains`) is
asked for them. For any other they come from its scores alone: features that are absent take their values from
`background` rows, and a feature's value is what its coming changes in the score, averaged over the orders in which
features can come. Few features: over all of them. More: over sampled ones (Štrumbelj and Kononenko 2014,
doi:10.1007/s10115-013-0679-x), each followed by its reverse, which cancels much of the sampling error (antithetic
sampling: Mitchell, Cooper, Frank and Holmes 2022, JMLR 23(43)).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelInputInvalid
from ml.models.protocol import Explains, Matrix, Model, check_matrix

MOST_ENUMERATED: Final = 8  # features that tell the row from the background: 256 coalitions
_LEAST_ROWS: Final = 25_600  # what sampling evaluates at least, as many as 8 features enumerated on 100 rows
_MOST_CELLS: Final = 4_000_000  # of one matrix: 16 MB

Scale = Literal["log-odds", "score"]
Method = Literal["model", "exact", "sampled"]
Score = Callable[[Matrix], NDArray[np.float64]]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """What each feature adds to `base`: `values`, of shape (features,), in the model's order.

    On the scale "log-odds" they add up to the logit of the score (with several classes, to the class's logit, of which
    softmax makes the scores), on "score" to the score itself. `method` is "model" where the model said so itself;
    otherwise all orders of the features were counted ("exact") or a sample of them.
    """

    base: float
    values: _Floats
    scale: Scale
    method: Method

    @property
    def output(self) -> float:
        """What base and values add up to."""
        return self.base + float(self.values.sum())


def contributions_of(
    model: Model, row: Matrix, background: Matrix, random: np.random.Generator, class_index: int = 0
) -> Contributions:
    """Return what each feature of `row`, shape (1, features), contributed to its score, or to that of one class.

    `background`, shape (m, features), is used where the model has no contributions of its own; equal `random` gives
    equal values. It scores 256 * m rows at most for up to 8 features, else 25,600 or 2 * m * (features + 1), whichever
    is more. Raises ModelInputInvalid when the rows do not fit the model, or when a background is needed and is empty.
    """
    check_matrix(row, model.n_features)
    if isinstance(model, Explains):
        said = np.asarray(model.contributions(row)[0], dtype=np.float64)
        own = said if model.classes == 1 else said[class_index]
        return Contributions(float(own[-1]), own[:-1], "log-odds", "model")

    def score(matrix: Matrix) -> _Floats:
        scores = np.asarray(model.predict(matrix), dtype=np.float64)
        return scores if model.classes == 1 else scores[:, class_index]

    check_matrix(background, model.n_features)
    return shapley_values(score, row[0], background, random)


def shapley_values(score: Score, row: Matrix, background: Matrix, random: np.random.Generator) -> Contributions:
    """Return the Shapley values of `row`, shape (features,), against the rows of `background`, shape (m, features).

    `score` gives one number for each row of a matrix, whatever rows are around it. The values add up to
    score(row) - mean of score(background), but for rounding: every background row begins equally many orders.
    """
    if not len(background):
        raise ModelInputInvalid("there is no background row to compare with")
    # A feature that is the same in all of them contributes nothing, so it need not take part.
    differs = (background != row) & ~(np.isnan(background) & np.isnan(row))
    active = np.flatnonzero(differs.any(axis=0))
    values = np.zeros(len(row))
    few = len(active) <= MOST_ENUMERATED
    values[active] = (_enumerated if few else _sampled)(_Mixture(score, row, background, active), random)
    return Contributions(float(score(background).mean()), values, "score", "exact" if few else "sampled")


@dataclass(frozen=True, slots=True, eq=False)
class _Mixture:
    """Rows of the background with some of the `active` features taken from the row; `players` is how many these are."""

    score: Score
    row: Matrix
    background: Matrix
    active: NDArray[np.intp]

    @property
    def players(self) -> int:
        return len(self.active)

    def scores(self, present: NDArray[np.bool_], start: int = 0) -> _Floats:
        """Return the scores, (b, s), of the b background rows from `start` on with what is `present`, (b, s, players).

        Cost: one call of `score` with b * s rows.
        """
        rows, sets, _ = present.shape
        mixed = np.repeat(self.background[start : start + rows, None, :], sets, axis=1)
        mixed[:, :, self.active] = np.where(present, self.row[self.active], mixed[:, :, self.active])
        return self.score(np.ascontiguousarray(mixed.reshape(rows * sets, -1))).reshape(rows, sets)

    def at_once(self, sets: int) -> int:
        """Return how many background rows fit into one matrix with so many sets of features for each."""
        return max(1, _MOST_CELLS // (sets * len(self.row)))


def _enumerated(mixture: _Mixture, random: np.random.Generator) -> _Floats:
    """Average over all orders: each set of features without i counts |S|! (k - |S| - 1)! / k!. Draws nothing."""
    k = mixture.players
    sets = np.arange(2**k)
    members = (sets[:, None] >> np.arange(k)) & 1 == 1
    step = mixture.at_once(len(sets))
    total = np.zeros(len(sets))
    for start in range(0, len(mixture.background), step):
        rows = len(mixture.background[start : start + step])
        total += mixture.scores(np.broadcast_to(members, (rows, *members.shape)), start).sum(axis=0)
    worth = total / len(mixture.background)
    sizes = members.sum(axis=1)
    # |S|! (k - |S| - 1)! / k! is 1 / (k * C(k - 1, |S|)).
    shares = np.array([1 / (k * comb(k - 1, size)) for size in range(k)])
    values = np.zeros(k)
    for i in range(k):
        without = sets[~members[:, i]]
        values[i] = shares[sizes[without]] @ (worth[without | (1 << i)] - worth[without])
    return values


def _sampled(mixture: _Mixture, random: np.random.Generator) -> _Floats:
    """Average over sampled orders: for each background row equally many, and the reverse of each."""
    k, m = mixture.players, len(mixture.background)
    pairs = -(-_LEAST_ROWS // (2 * m * (k + 1)))
    step = mixture.at_once(k + 1)
    total = np.zeros(k)
    for _ in range(pairs):
        for start in range(0, m, step):
            rows = len(mixture.background[start : start + step])
            turns = random.permuted(np.tile(np.arange(k), (rows, 1)), axis=1)  # when each feature comes
            total += _along(mixture, turns, start) + _along(mixture, k - 1 - turns, start)
    return total / (2 * pairs * m)


def _along(mixture: _Mixture, turns: NDArray[np.intp], start: int) -> _Floats:
    """Return, for each feature, the sum over the rows of `turns`, (b, k), of what its coming changed."""
    steps = np.arange(mixture.players + 1)
    path = mixture.scores(turns[:, None, :] < steps[:, None], start)
    changes: _Floats = np.take_along_axis(np.diff(path, axis=1), turns, axis=1)
    return np.asarray(changes.sum(axis=0))
