"""Guardrails: what ends a rollout however good its target is. Those without a metric are judged before any label."""

from typing import Final

from ml.experiments.look import Contrast, Guardrail
from ml.experiments.rules import Rules
from ml.experiments.served import CALLS, ERRORS, EVENTS, SCORE_CELLS, Served

LEAST_ERRORS: Final = 10
LEAST_CALLS: Final = 20


def guardrails(rules: Rules, served: Served, contrasts: list[Contrast]) -> list[Guardrail]:
    """Return every guardrail of every challenger that the rules name."""
    found = []
    for challenger in rules.challengers:
        name = rules.variants[challenger]
        if rules.max_error_share is not None:
            found.append(_errors(name, challenger, served, rules.max_error_share))
        if rules.max_call_ms is not None:
            found.append(_latency(name, challenger, served, rules.max_call_ms))
        if rules.max_score_psi is not None:
            found.append(_scores(name, challenger, served, rules.max_score_psi, rules.min_samples))
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


def _scores(name: str, challenger: int, served: Served, limit: float, least: int) -> Guardrail:
    """Judge the scores of all epochs, when both variants have as many as samples are asked for."""
    scored = served.scores[:, [0, challenger]].sum(axis=(0, 2)).min()
    value = served.score_psi(challenger)
    if value is None or scored < least:
        reason = f"one of the two has only {scored:,} scores; they are compared from {least:,} on"
        return Guardrail(name, "scores", True, value, limit, reason)
    reason = f"its scores are {value:.3g} from the champion's, by PSI in {SCORE_CELLS} cells; {limit:g} is allowed"
    return Guardrail(name, "scores", value <= limit, value, limit, reason)


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
