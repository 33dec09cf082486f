"""What mature samples say: everything that changes only when a cohort becomes mature."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.histogram import Floats, Ints
from ml.experiments import fixed, sequence
from ml.experiments.contrast import Estimate, Part, estimates, shared_unequally
from ml.experiments.look import Contrast
from ml.experiments.outcomes import SCALE, Counts, bounds
from ml.experiments.rules import Rules
from ml.experiments.worth import samples_by_bucket, worth_of

LEAST_BUCKETS: Final = 30  # equal ones: a variance between fewer is not known (Cameron, Gelbach and Miller 2008)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Samples and buckets have shape (variants,), `newest` are the samples of the current epoch.

    `worth` (variants,) is how many equal buckets theirs are worth (`worth.worth_of`). `means` (J, variants) are NaN
    without samples. `ranking` has each variant's F1 and ROC AUC.
    """

    samples: Ints
    newest: Ints
    buckets: Ints
    worth: Floats
    means: Floats
    ranking: list[tuple[float | None, float | None]]
    contrasts: list[Contrast]
    sample_ratio_p: float | None


def evidence_of(rules: Rules, mature: Counts, tables: NDArray[np.intp]) -> Evidence:
    """Return what the mature samples say; `tables` (epochs, BUCKETS) are the variants of buckets."""
    strata = mature.strata()
    parts = [(stratum, tables[epoch]) for epoch, stratum in strata.items()]
    totals: Ints = np.zeros((len(rules.variants), 1 + 2 * len(rules.metrics)), dtype=np.int64)
    for stratum in strata.values():
        totals += stratum.totals
    by_bucket = samples_by_bucket(parts, len(rules.variants), tables.shape[1])
    samples, worth = totals[:, 0], np.array([each.independent for each in worth_of(by_bucket)])
    ready = (samples >= rules.min_samples) & (worth >= LEAST_BUCKETS)
    sums = totals[:, 1 : 1 + len(rules.metrics)].T / SCALE * bounds(rules)[:, np.newaxis]
    newest = strata.get(len(tables) - 1)
    contrasts = []
    for challenger in rules.challengers:
        pair = [0, challenger]
        tests = _fixed(rules, totals[pair], mature.labels()[pair])
        contrasts += _contrasts(rules, challenger, estimates(parts, challenger), bool(ready[pair].all()), tests)
    return Evidence(
        samples=samples,
        newest=newest.totals[:, 0] if newest is not None else np.zeros_like(samples),
        buckets=np.count_nonzero(by_bucket, axis=1),
        worth=worth,
        means=sums / np.where(samples > 0, samples, np.nan),
        ranking=[mature.ranking(variant) for variant in range(len(rules.variants))],
        contrasts=contrasts,
        sample_ratio_p=_sample_ratio_p(rules, parts, samples),
    )


def _contrasts(
    rules: Rules, challenger: int, found: list[Estimate], ready: bool, tests: list[dict[str, float | None]]
) -> list[Contrast]:
    """Return a challenger's contrasts. There are no intervals before it is `ready`: they are asymptotic."""
    name, challengers = rules.variants[challenger], len(rules.challengers)
    if not found:
        return [Contrast(name, metric, None, None, None, None) for metric in rules.metrics]
    contrasts = []
    for metric, one, bound, fixed_tests in zip(rules.metrics, found, bounds(rules).tolist(), tests, strict=True):
        difference = one.difference * (bound if metric == "accuracy" else -bound) + 0.0
        if not ready:
            contrasts.append(Contrast(name, metric, difference, None, None, None, fixed_tests))
            continue
        r = sequence.mixing(rules.min_samples, one.spread)
        half = sequence.half_width(one.variance, r, rules.alpha / challengers) * bound
        p_value = min(1.0, sequence.p_value(one.difference, one.variance, r) * challengers)
        contrasts.append(Contrast(name, metric, difference, difference - half, difference + half, p_value, fixed_tests))
    return contrasts


def _fixed(rules: Rules, totals: Ints, labels: Ints) -> list[dict[str, float | None]]:
    """Return the tests with a fixed horizon by metric, of all epochs of two variants together."""
    columns = totals.astype(np.float64)
    n, found = columns[:, 0], []
    for place, metric in enumerate(rules.metrics):
        sums, squares = columns[:, 1 + place] / SCALE, columns[:, 1 + len(rules.metrics) + place] / SCALE
        tests: dict[str, float | None]
        if metric == "accuracy":
            tests = {"two_proportion_z": fixed.two_proportion_z(sums, n)}
        else:
            tests = {"welch": fixed.welch(n, sums, squares)}
        if place == 0:
            tests["chi_square"] = fixed.chi_square(labels)
        found.append(tests)
    return found


def _sample_ratio_p(rules: Rules, parts: list[Part], samples: Ints) -> float | None:
    """Return the smallest p-value of all challengers, corrected for their number."""
    smallest = None
    for challenger in rules.challengers:
        found = shared_unequally(parts, challenger)
        if found is None or samples[0] + samples[challenger] < rules.min_samples:
            continue
        p = sequence.p_value(found.difference, found.variance, sequence.mixing(rules.min_samples, found.spread))
        smallest = min(1.0 if smallest is None else smallest, p * len(rules.challengers))
    return smallest
