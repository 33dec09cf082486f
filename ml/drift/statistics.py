"""How different two samples are, from their counts alone, for any number of columns at once.

Counts have the shape (..., B) or (..., K + 1), and what is returned has the shape (...). Logarithms are natural. Where
a sample has no values the answer is NaN.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ml.drift.columns import Floats, Ints

EmptyBins = Literal["floor", "half_count"]

FLOOR = 1e-4  # the least share of a bin, where empty bins are treated by "floor"
_LEAST_EXPECTED = 5.0  # of a bin in the smaller sample, for χ² to hold (Cochran 1954)


def bin_shares(
    counts: Ints, used: NDArray[np.bool_] | None = None, empty_bins: EmptyBins = "floor", floor: float = FLOOR
) -> Floats:
    """Return the shares of bins, none of them 0. Bins that are not `used` get 1, and so add nothing to a divergence.

    "floor": max(count / n, floor), not made to sum to 1 again. "half_count": (count + ½) / (n + ½·bins), the mean of
    the posterior under Jeffreys' prior (Krichevsky and Trofimov 1981).
    """
    real = np.ones(counts.shape, dtype=np.bool_) if used is None else used
    n = np.sum(counts, axis=-1, where=real, keepdims=True).astype(np.float64)
    n[n == 0] = np.nan
    if empty_bins == "half_count":
        shares = (counts + 0.5) / (n + 0.5 * real.sum(axis=-1, keepdims=True))
    else:
        shares = np.maximum(counts / n, floor)
    return np.where(real, shares, 1.0)


def kl_divergence(p: Floats, q: Floats) -> Floats:
    """Return Σ p ln(p / q) of `bin_shares` (Kullback and Leibler 1951, doi:10.1214/aoms/1177729694).

    How badly q stands for p. With floored shares, which need not sum to 1, it may be a little below 0.
    """
    divergence: Floats = (p * np.log(p / q)).sum(axis=-1)
    return divergence


def psi(p: Floats, q: Floats) -> Floats:
    """Return the population stability index Σ (p - q) ln(p / q) of `bin_shares`: both divergences added.

    Siddiqi, Credit Risk Scorecards, 2006; it is J of Jeffreys 1946. Without drift it is about χ² with B - 1 degrees of
    freedom times 1/n + 1/m (Yurdakul, Statistical Properties of Population Stability Index, 2018): with 10 bins and
    1,000 of each, 0.018 on average, and above 0.1 in less than one of 10⁶ windows.
    """
    index: Floats = ((p - q) * np.log(p / q)).sum(axis=-1)
    return index


def jensen_shannon(reference: Ints, current: Ints) -> Floats:
    """Return ½ KL(p, m) + ½ KL(q, m) with m = (p + q) / 2, of counts as they are: from 0 to ln 2.

    Lin 1991, doi:10.1109/18.61115. Empty bins need no treatment. Its square root is the distance of that name.
    """
    p, q = _raw_shares(reference), _raw_shares(current)
    middle = (p + q) / 2
    divergence: Floats = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum(axis=-1) / 2
    return divergence


def ks_from_cells(reference: Ints, current: Ints) -> Floats:
    """Return the largest |F - G| at the edges of the cells (Kolmogorov 1933, Smirnov 1948).

    F and G are the shares of values below an edge. It is at most the true statistic, and less than that by at most the
    largest share of the reference in a cell of several values: 0.0045 in cells of `make_column`.
    """
    furthest: Floats = np.abs(_below(reference) - _below(current)).max(axis=-1)
    return furthest


def wasserstein_from_cells(edges: Floats, reference: Ints, current: Ints, outside: Floats) -> Floats:
    """Return the 1-Wasserstein distance ∫|F - G| (Vallender 1974, doi:10.1137/1118101), in the column's unit.

    `edges` (..., K) increase; F - G is taken to be linear in a cell, as if its values were spread evenly. `outside`
    (..., 2) sums how far current values lie below the first edge and above the last, where the reference has none.
    """
    apart = _below(reference) - _below(current)
    left, right = np.abs(apart[..., :-1]), np.abs(apart[..., 1:])
    both = left + right
    crosses = apart[..., :-1] * apart[..., 1:] < 0
    crossing = (left * left + right * right) / np.where(both > 0, both, 1.0)
    inner = (np.diff(edges, axis=-1) * np.where(crosses, crossing, both) / 2).sum(axis=-1)
    distance: Floats = inner + outside.sum(axis=-1) / _total(current)[..., 0]
    return distance


def ks_p_value(statistic: Floats, n: Ints, m: Ints) -> Floats:
    """Return the p-value of a KS statistic of `n` and `m` values, by Kolmogorov's limit at √(nm/(n+m)) (Smirnov 1948).

    It is a little too large where samples are small or values repeat, so that it never cries wolf.
    """
    p: Floats = special.kolmogorov(np.sqrt(n * (m / np.maximum(n + m, 1))) * statistic)
    return p


def chi_square_p_value(reference: Ints, current: Ints) -> Floats:
    """Return the p-value of Pearson's χ² (1900) that both samples, (C, B) each, have the same shares of bins.

    The rarest bins are taken together until each is expected to have 5 values in the smaller sample. It is 1 where
    that leaves one bin.
    """
    n, m = _total(reference), _total(current)
    order = np.argsort(reference + current, axis=-1, kind="stable")
    reference, current = (np.take_along_axis(counts, order, axis=-1) for counts in (reference, current))
    expected = (reference + current) * (np.minimum(n, m) / (n + m))
    rare = (expected < _LEAST_EXPECTED).sum(axis=-1, keepdims=True)
    last = np.maximum(rare - 1, 0)  # the place of the pool, which takes in one bin more if that is still too few
    last += (rare > 0) & (np.take_along_axis(np.cumsum(expected, axis=-1), last, axis=-1) < _LEAST_EXPECTED)
    last = np.minimum(last, expected.shape[-1] - 1)
    place = np.arange(expected.shape[-1])
    a, b = (
        np.where(place == last, np.cumsum(counts, axis=-1), np.where(place > last, counts, 0))
        for counts in (reference, current)
    )
    share = (a + b) / (n + m)
    parts = ((a - n * share) ** 2 / n + (b - m * share) ** 2 / m) / np.where(share > 0, share, 1.0)
    freedom = (share > 0).sum(axis=-1) - 1
    p: Floats = special.chdtrc(np.maximum(freedom, 1), parts.sum(axis=-1))
    return np.asarray(np.where(freedom > 0, p, np.where(np.isnan(n + m)[..., 0], np.nan, 1.0)))


def rate_p_value(before: Ints, n: Ints, now: Ints, m: Ints) -> Floats:
    """Return the one-sided p-value that `now` of `m` are not more than `before` of `n` would make one expect.

    Given how many there are in all, those among the m are binomial with share m/(n+m) (Przyborowski and Wilenski 1940,
    doi:10.1093/biomet/31.3-4.313). That is for rare things; for frequent ones it is too large, so that it is safe.
    """
    p: Floats = special.betainc(np.maximum(now, 1), before + 1.0, m / np.maximum(n + m, 1))
    return np.asarray(np.where(now > 0, p, 1.0))


def share_p_value(before: Ints, n: Ints, now: Ints, m: Ints) -> Floats:
    """Return the two-sided p-value that `before` of `n` and `now` of `m` are the same share: `rate_p_value` both ways.

    Of the two, those that are counted and those that are not, the rarer are compared.
    """
    frequent = 2 * (before + now) > n + m
    before, now = np.where(frequent, n - before, before), np.where(frequent, m - now, now)
    either = np.minimum(rate_p_value(before, n, now, m), rate_p_value(now, m, before, n))
    p: Floats = np.minimum(2 * either, 1.0)
    return p


def _below(counts: Ints) -> Floats:
    """Return the shares below each edge, one fewer than there are cells."""
    below: Floats = np.cumsum(counts, axis=-1)[..., :-1] / _total(counts)
    return below


def _raw_shares(counts: Ints) -> Floats:
    shares: Floats = counts / _total(counts)
    return shares


def _total(counts: Ints) -> Floats:
    """Return the sums, kept as an axis; NaN for 0."""
    total: Floats = counts.sum(axis=-1, keepdims=True).astype(np.float64)
    total[total == 0] = np.nan
    return total
