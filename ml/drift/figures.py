"""The figures of all columns of a window, from its counts alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.drift.columns import Floats, Ints
from ml.drift.counting import FARTHEST, Counts
from ml.drift.layout import Layout
from ml.drift.statistics import (
    EmptyBins,
    bin_shares,
    chi_square_p_value,
    jensen_shannon,
    kl_divergence,
    ks_from_cells,
    ks_p_value,
    psi,
    rate_p_value,
    share_p_value,
    wasserstein_from_cells,
)

_CANCELLED = 1e-12  # a variance that is less than this of the mean of z² is rounding and no more


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of C columns. `numbers` (C,) each, NaN where there is none, by their names in ColumnFigures.

    `n` (C,) counts values. `used` (C, B + 1) tells which bins there are, `reference_shares` and `current_shares`
    (C, B + 1) what is in them; `missing_before` (C,) is the baseline's share of missing values.
    """

    numbers: dict[str, Floats]
    n: Ints
    used: NDArray[np.bool_]
    reference_shares: Floats
    current_shares: Floats
    missing_before: Floats

    def rows(self) -> list[dict[str, float | None]]:
        """Return the numbers of each column by name, None in place of NaN."""
        table = np.stack(list(self.numbers.values()), axis=1)
        plain = table.astype(object)
        plain[~np.isfinite(table)] = None
        return [dict(zip(self.numbers, row, strict=True)) for row in plain.tolist()]


def compute(layout: Layout, counts: Counts, empty_bins: EmptyBins, judged: NDArray[np.bool_]) -> Figures:
    """Return all figures. p-values are corrected for the number of tests of the columns that are `judged` (C,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        cells = layout.cells(counts.cells)
        bins = layout.binned(counts.cells, counts.missing)
        unseen = layout.unseen(counts.cells)
        n = cells.sum(axis=1)
        extra = layout.other.copy()
        extra[:, -1] = True
        used = layout.real & ((layout.bins + bins > 0) | ~extra)
        p, q = (bin_shares(each, used, empty_bins) for each in (layout.bins, bins))
        ks = ks_from_cells(layout.reference, cells)
        known = np.where(n > 0, n, np.nan)
        numbers = {
            "missing_share": counts.missing / np.where(counts.n > 0, counts.n, np.nan),
            "unseen_share": unseen / known,
            **_moments(layout, counts, known),
            "psi": psi(p, q),
            "kl_reference_current": kl_divergence(p, q),
            "kl_current_reference": kl_divergence(q, p),
            "jensen_shannon": jensen_shannon(layout.bins, bins),
            "ks": ks,
        }
        numbers["p_value"] = _corrected(_tests(layout, counts, ks, bins, unseen, n), judged)
        distance = wasserstein_from_cells(layout.edges, layout.reference, cells, counts.outside)
        numbers["wasserstein"] = np.where(np.isnan(numbers["mean"]), np.nan, distance)
        numbers["wasserstein_scaled"] = numbers["wasserstein"] / layout.deviation
        return Figures(
            numbers=numbers,
            n=n,
            used=used,
            reference_shares=layout.bins / layout.bins.sum(axis=1, keepdims=True),
            current_shares=bins / bins.sum(axis=1, keepdims=True),
            missing_before=layout.missing / (layout.n + layout.missing),
        )


def _tests(layout: Layout, counts: Counts, ks: Floats, bins: Ints, unseen: Ints, n: Ints) -> Floats:
    """Return the p-values of each column's tests, shape (3, C), NaN where one was not made.

    Of the values' distribution: KS, or χ² where they are few. Of values that were never seen: how many more they are
    than those of the reference that are not found among its others (after Good 1953, doi:10.1093/biomet/40.3-4.237,
    on how much has not been seen yet). Of missing values, where there are any.
    """
    values = np.where(
        layout.numeric, ks_p_value(ks, layout.n, n), chi_square_p_value(layout.bins[:, :-1], bins[:, :-1])
    )
    both = (layout.n > 0) & (n > 0)
    never = rate_p_value(layout.lonely, layout.n, unseen, n)
    before, now = layout.n + layout.missing, n + counts.missing
    missing = share_p_value(layout.missing, before, counts.missing, now)
    any_missing = (now > 0) & (layout.missing + counts.missing > 0)
    return np.stack(
        [np.where(both, values, np.nan), np.where(both, never, np.nan), np.where(any_missing, missing, np.nan)]
    )


def _corrected(tests: Floats, judged: NDArray[np.bool_]) -> Floats:
    """Return each column's smallest p-value times the number of tests of judged columns (Bonferroni), at most 1."""
    made = max(1, int((~np.isnan(tests[:, judged])).sum()))
    least = np.where(np.isnan(tests), np.inf, tests).min(axis=0)
    return np.where(np.isinf(least), np.nan, np.minimum(least * made, 1.0))


def _moments(layout: Layout, counts: Counts, known: Floats) -> dict[str, Floats]:
    """Return mean, deviation (over n), skewness and excess kurtosis (g₁ and g₂, Fisher), from the sums of powers of z.

    NaN where a value was infinite or enormous. Digits are lost where a window is far from the baseline and narrow;
    where few are left, skewness and kurtosis are NaN.
    """
    m1, m2, m3, m4 = counts.sums.T / known
    m1 = np.where(counts.sums[:, 3] < FARTHEST**4 / 2, m1, np.nan)
    variance = np.maximum(m2 - m1 * m1, 0.0)
    variance = np.where(variance <= _CANCELLED * m2, 0.0, variance)
    spread = np.where(variance > 0, variance, np.nan)
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1 * m1 * m2 - 3 * m1**4
    return {
        "mean": layout.mean + layout.scale * m1,
        "deviation": layout.scale * np.sqrt(variance),
        "skewness": third / spread**1.5,
        "kurtosis": fourth / spread**2 - 3,
    }
