"""What a rollout does next."""

from typing import Final, NamedTuple

from ml.experiments.look import Contrast, Figures, Guardrail, Step
from ml.experiments.rules import Rules
from ml.experiments.verdict import Judged, told

_SAME_SHARE: Final = 0.5e-4  # shares are whole buckets of 10,000


class Now(NamedTuple):
    """Where a rollout stands. `samples` (mature) and `events` are the challenger's in this epoch."""

    challenger: Figures
    target: Contrast
    guardrails: list[Guardrail]
    samples: int
    events: int


def next_step(rules: Rules, now: Now, judged: Judged) -> tuple[Step, str]:
    """Return the step and the reason.

    Back when a guardrail is broken, or the challenger is worse. On when it is not worse by more than the margin, and
    this epoch has shown enough of it, so that load of this share is known as well: mature samples, or at a share of 1,
    where no champion serves beside it, events. Else it waits.
    """
    challenger, target = now.challenger, now.target
    if any(not each.holds for each in now.guardrails):
        return "roll_back", judged.why
    if target.high is not None and target.high < 0:
        return "roll_back", f"{challenger.variant} is worse than the champion: {told(target)}"
    if judged.verdict in ("too_early", "unequal_shares"):
        return "hold", judged.why
    if target.low is None or target.low <= -rules.margin:
        return (
            "hold",
            f"{challenger.variant} may be worse than the champion by more than {rules.margin:g}: {told(target)}",
        )
    alone = challenger.share > 1 - _SAME_SHARE
    seen, what = (now.events, "events") if alone else (now.samples, "mature samples")
    if seen < rules.min_samples:
        why = (
            f"{challenger.variant} has {seen:,} of {rules.min_samples:,} {what} at its share of {challenger.share:.2%}"
        )
        return "hold", why
    good = f"{challenger.variant} is not worse than the champion by more than {rules.margin:g}: {told(target)}"
    left = [step for step in rules.steps if step > challenger.share + _SAME_SHARE]
    step: Step = "advance" if left else "promote"
    what = f"to {left[0]:.2%} of traffic" if left else "to champion"
    return step, good + (f"; {what} next" if rules.automatic else f"; a person must take it {what}")
