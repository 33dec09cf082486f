"""Guardrails: what ends a rollout however good its target is. Those without a metric wait for no mature sample."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from scipy import stats

from ml.evaluation.histogram import Ints
from ml.experiments.look import Contrast, Guardrail
from ml.experiments.rules import Rules
from ml.experiments.served import CALLS, ERRORS, EVENTS, SCORE_CELLS, Served

LEAST_ERRORS: Final = 10
LEAST_CALLS: Final = 20


# What chance alone puts between the scores of two variants in one look out of a thousand, in the unit of (1/n + 1/m):
# the PSI is about χ² then, with a degree of freedom less than cells (Yurdakul 2018, see `ml.drift.statistics.psi`).
_BY_CHANCE: Final = float(stats.chi2.ppf(0.999, SCORE_CELLS - 1))


class Labelled(NamedTuple):
    """A variant's samples, mature or not, and how many independent ones they are worth."""

    samples: int
    independent: float


def labelled_of(by_bucket: Ints) -> list[Labelled]:
    """Return both for each variant, of its samples by bucket: shape (variants, BUCKETS). About 20 µs each.

    n samples are worth n² / Σ n_b² if those of a bucket are all alike (Kish, Survey Sampling, 1965, section 11.7).
    """
    samples, squares = by_bucket.sum(axis=1).tolist(), (by_bucket * by_bucket).sum(axis=1).tolist()
    return [Labelled(n, n * n / square if square else 0.0) for n, square in zip(samples, squares, strict=True)]


def guardrails(
    rules: Rules, served: Served, contrasts: list[Contrast], labelled: Sequence[Labelled]
) -> list[Guardrail]:
    """Return every guardrail of every challenger that the rules name; `labelled` is of each variant."""
    found = []
    for challenger in rules.challengers:
        name = rules.variants[challenger]
        if rules.max_error_share is not None:
            found.append(_errors(name, challenger, served, rules.max_error_share))
        if rules.max_call_ms is not None:
            found.append(_latency(name, challenger, served, rules.max_call_ms))
        if rules.max_score_psi is not None:
            found.append(_scores(rules, challenger, served, (labelled[0], labelled[challenger])))
        guarded = set(rules.guard_metrics)
        found += [_metric(c, rules.margin) for c in contrasts if c.variant == name and c.metric in guarded]
    return found


def _errors(name: str, challenger: int, served: Served, limit: float) -> Guardrail:
    """Judge the current epoch: a share above the limit, of LEAST_ERRORS at least."""
    events, errors = served.counts[-1, challenger, [EVENTS, ERRORS]].tolist()
    share = errors / events if events else None
    holds = errors < LEAST_ERRORS or share is None or share <= limit
    reason = f"its model could not score {errors:,} of {events:,} events of this epoch; at most {limit:.2%} may be"
    return Guardrail(name, "errors", holds, share, limit, reason)


def _latency(name: str, challenger: int, served: Served, limit_ms: float) -> Guardrail:
    """Judge the mean call of the current epoch, from LEAST_CALLS on."""
    calls, call_ms = int(served.counts[-1, challenger, CALLS]), served.call_ms(challenger, slice(-1, None))
    if call_ms is None or calls < LEAST_CALLS:
        reason = f"its model was called {calls} times in this epoch; it is judged from {LEAST_CALLS} calls on"
        return Guardrail(name, "latency", True, call_ms, limit_ms, reason)
    reason = f"a call of its model took {call_ms:.3g} ms on average in this epoch; it may take {limit_ms:g} ms"
    return Guardrail(name, "latency", call_ms <= limit_ms, call_ms, limit_ms, reason)


def _scores(rules: Rules, challenger: int, served: Served, pair: tuple[Labelled, Labelled]) -> Guardrail:
    """Judge the scores of all epochs, when both variants have enough, and enough samples.

    One entity's scores are alike: only samples, which are known by bucket, tell how much chance there is in them.
    """
    assert rules.max_score_psi is not None
    name, limit = rules.variants[challenger], rules.max_score_psi
    value = served.score_psi(challenger, (pair[0].independent, pair[1].independent))
    scored = int(served.scores[:, [0, challenger]].sum(axis=(0, 2)).min())
    least = min(scored, pair[0].samples, pair[1].samples)
    if value is None or least < rules.min_samples:
        reason = (
            f"one of the two has only {least:,} scores with a label; they are compared from {rules.min_samples:,} on"
        )
        return Guardrail(name, "scores", True, value, limit, reason)
    chance = _BY_CHANCE * (1 / pair[0].independent + 1 / pair[1].independent)
    reason = (
        f"its scores are {value:.3g} from the champion's, by PSI in {SCORE_CELLS} cells; {limit:g} is allowed, and "
        f"{chance:.2g} more may be chance"
    )
    return Guardrail(name, "scores", value <= limit + chance, value, limit, reason)


def _metric(contrast: Contrast, margin: float) -> Guardrail:
    """Judge a metric: broken when it is worse by more than the margin, with the confidence of the plan."""
    if contrast.high is None:
        reason = f"its {contrast.metric} is not known well enough yet"
        return Guardrail(contrast.variant, contrast.metric, True, contrast.difference, -margin, reason)
    reason = (
        f"it is better than the champion in {contrast.metric} by {contrast.difference:+.3g} "
        f"({contrast.low:+.3g} to {contrast.high:+.3g}); {-margin:+.3g} is allowed"
    )
    return Guardrail(contrast.variant, contrast.metric, contrast.high >= -margin, contrast.difference, -margin, reason)
