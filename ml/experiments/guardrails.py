"""Guardrails: what ends a rollout however good its target is. Those without a metric wait for no mature sample."""

import math
from collections.abc import Sequence
from typing import Final

from scipy import stats

from ml.experiments.look import Contrast, Guardrail
from ml.experiments.proportion import log_evidence
from ml.experiments.rules import Rules
from ml.experiments.served import CALLS, ERRORS, EVENTS, SCORE_CELLS, SLOW_CALLS, Served
from ml.experiments.worth import Worth

LEAST_EVENTS: Final = 5  # a single error, the first event of all, is no share
LEAST_CALLS: Final = 20  # the first call of a model may be slow in each task, and a pause of a process is one for all
MAX_SLOW_SHARE: Final = 0.1

# What chance alone puts between the scores of two variants in one look out of a thousand, in the unit of (1/n + 1/m):
# the PSI is about χ² then, with a degree of freedom less than cells (Yurdakul 2018, see `ml.drift.statistics.psi`).
_BY_CHANCE: Final = float(stats.chi2.ppf(0.999, SCORE_CELLS - 1))


def guardrails(rules: Rules, served: Served, contrasts: list[Contrast], labelled: Sequence[Worth]) -> list[Guardrail]:
    """Return every guardrail of every challenger that the rules name; `labelled` is of each variant."""
    found = []
    for challenger in rules.challengers:
        name = rules.variants[challenger]
        if rules.max_error_share is not None:
            found.append(_errors(rules, challenger, served, rules.max_error_share))
        if rules.max_call_ms is not None:
            found.append(_latency(rules, challenger, served, rules.max_call_ms))
        if rules.max_score_psi is not None:
            found.append(_scores(rules, challenger, served, (labelled[0], labelled[challenger])))
        guarded = set(rules.guard_metrics)
        found += [_metric(c, rules.margin) for c in contrasts if c.variant == name and c.metric in guarded]
    return found


def _errors(rules: Rules, challenger: int, served: Served, limit: float) -> Guardrail:
    """Judge the events of the current epoch: whether more than the limit are errors, and not by chance."""
    events, errors = served.counts[-1, challenger, [EVENTS, ERRORS]].tolist()
    reason = f"its model could not score {errors:,} of {events:,} events of this epoch; at most {limit:.2%} may be"
    judged = events >= LEAST_EVENTS or limit == 0
    return _share(rules, challenger, "errors", (errors, events), limit, judged, reason)


def _latency(rules: Rules, challenger: int, served: Served, limit_ms: float) -> Guardrail:
    """Judge the calls of the current epoch: whether more than one in ten are slow, and not by chance.

    The mean would not do: one pause of the whole process is longer than a thousand calls.
    """
    calls, slow = served.counts[-1, challenger, [CALLS, SLOW_CALLS]].tolist()
    reason = (
        f"{slow:,} of {calls:,} calls of its model in this epoch took longer than {limit_ms:g} ms; one in ten may, and "
        f"it is judged from {LEAST_CALLS} calls on"
    )
    return _share(rules, challenger, "latency", (slow, calls), MAX_SLOW_SHARE, calls >= LEAST_CALLS, reason)


def _share(
    rules: Rules, challenger: int, name: str, counts: tuple[int, int], limit: float, judged: bool, reason: str
) -> Guardrail:
    """Return a guardrail on `counts` (hits, all): broken where their share is surely above the limit.

    However often one looks, one that is not is told to be, in an epoch, with the plan's alpha at most, over all
    challengers.
    """
    hits, n = counts
    sure = log_evidence(hits, n, limit) >= math.log(len(rules.challengers) / rules.alpha)
    share = hits / n if n else None
    return Guardrail(rules.variants[challenger], name, not (judged and sure), share, limit, reason)


def _scores(rules: Rules, challenger: int, served: Served, pair: tuple[Worth, Worth]) -> Guardrail:
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
