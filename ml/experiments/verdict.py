"""What is said of an experiment, and why."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from ml.experiments.evidence import LEAST_BUCKETS, Evidence
from ml.experiments.look import Contrast, Figures, Guardrail, Verdict
from ml.experiments.rules import Rules

LEAST_SAMPLE_RATIO_P: Final = 0.001


class Judged(NamedTuple):
    """A verdict, the variant that is better when there is one, and the reason as a sentence."""

    verdict: Verdict
    winner: str
    why: str


def verdict_of(
    rules: Rules,
    variants: list[Figures],
    evidence: Evidence,
    guardrails: list[Guardrail],
) -> Judged:
    """Return the verdict on the challengers in play: those that have buckets now, or all where none has."""
    playing = [each for each in variants[1:] if each.share > 0] or variants[1:]
    names = {each.variant for each in playing}
    targets = [each for each in evidence.contrasts if each.metric == rules.metric and each.variant in names]
    broken = [each for each in guardrails if not each.holds and each.variant in names]
    if broken:
        return Judged("broken_guardrail", "", f"{broken[0].variant} broke {broken[0].name}: {broken[0].reason}")
    worth = dict(zip(rules.variants, evidence.worth.tolist(), strict=True))
    if missing := _missing(rules, [variants[0], *playing], worth):
        return Judged("too_early", "", missing)
    sample_ratio_p = evidence.sample_ratio_p
    if sample_ratio_p is not None and sample_ratio_p < LEAST_SAMPLE_RATIO_P:
        why = (
            f"buckets of one variant get more samples than those of another (p = {sample_ratio_p:.2g}): "
            "either labels come back differently, or the variants change how much happens"
        )
        return Judged("unequal_shares", "", why)
    return _decided(rules, targets)


def _missing(rules: Rules, variants: list[Figures], worth: Mapping[str, float]) -> str:
    """Return what is still missing for a verdict, or nothing."""
    for each in variants:
        if each.samples < rules.min_samples:
            return f"{each.variant} has {each.samples:,} of {rules.min_samples:,} mature samples"
    for each in variants:
        if worth[each.variant] < LEAST_BUCKETS:
            return (
                f"the entities of {each.variant} fall into {each.buckets:,} buckets, which are worth "
                f"{int(worth[each.variant])} of equally many samples; it takes {LEAST_BUCKETS} to know how much they "
                "differ from one another"
            )
    return ""


def _decided(rules: Rules, targets: list[Contrast]) -> Judged:
    known = [each for each in targets if each.low is not None and each.high is not None]
    best = max(known, key=lambda each: (each.low, each.difference), default=None)
    if best is None or best.low is None or len(known) < len(targets):
        return Judged("undecided", "", "no epoch has samples of both the champion and the challenger")
    highest = max(each.high for each in known if each.high is not None)
    if best.low > 0:
        return Judged("better", best.variant, f"{best.variant} is better than the champion: {told(best)}")
    if highest < 0:
        return Judged(
            "worse", "", f"the champion is better than any challenger; the best is {best.variant}: {told(best)}"
        )
    if highest <= rules.margin:
        why = f"no challenger can be better by more than {rules.margin:g} any more"
        return Judged("no_winner", "", f"{why}; the best is {best.variant}: {told(best)}")
    return Judged("undecided", "", f"it may be either; the best is {best.variant}: {told(best)}")


def told(contrast: Contrast) -> str:
    """Return a contrast in words."""
    if contrast.difference is None or contrast.low is None or contrast.high is None:
        return f"{contrast.metric} unknown"
    return f"{contrast.metric} {contrast.difference:+.4f} ({contrast.low:+.4f} to {contrast.high:+.4f})"
