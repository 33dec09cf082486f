"""What a rollout does next."""

from typing import Final, NamedTuple

from ml.experiments.look import Contrast, Figures, Guardrail, Step
from ml.experiments.rules import Rules
from ml.experiments.verdict import Judged, told

_SAME_SHARE: Final = 0.5e-4  # shares are whole buckets of 10,000


class Now(NamedTuple):
    """Where a rollout stands. `samples` (mature) and `events` are the challenger's in this epoch.

    `earlier`: samples of earlier epochs still ripen.
    """

    challenger: Figures
    target: Contrast
    guardrails: list[Guardrail]
    samples: int
    events: int
    earlier: bool

    @property
    def alone(self) -> bool:
        """Whether all traffic is the challenger's, so that it is compared with nobody."""
        return self.challenger.share > 1 - _SAME_SHARE

    @property
    def complete(self) -> bool:
        """Whether nothing more can become known of the difference: alone, with all of the epochs before mature.

        Labels of these may be on their way, until those of this epoch's events are mature, too.
        """
        return self.alone and self.samples > 0 and not self.earlier


class Told(NamedTuple):
    """The step, the reason, and whether it holds for something that can no longer come."""

    step: Step
    why: str
    stuck: bool = False


def next_step(rules: Rules, now: Now, judged: Judged) -> Told:
    """Return what to do next.

    Back when a guardrail is broken, or the challenger is worse. On when it is not worse by more than the margin, and
    this epoch has shown enough of it, so that load of this share is known as well: mature samples, or at a share of 1,
    where no champion serves beside it, events. Else it waits; where that would be for ever, a person must decide.
    """
    challenger, target = now.challenger, now.target
    if any(not each.holds for each in now.guardrails):
        return Told("roll_back", judged.why)
    if target.high is not None and target.high < 0:
        return Told("roll_back", f"{challenger.variant} is worse than the champion: {told(target)}")
    if judged.verdict in ("too_early", "unequal_shares"):
        return _unclear(now, judged.why)
    if target.low is None or target.low <= -rules.margin:
        return _unclear(
            now, f"{challenger.variant} may be worse than the champion by more than {rules.margin:g}: {told(target)}"
        )
    seen, what = (now.events, "events") if now.alone else (now.samples, "mature samples")
    if seen < rules.min_samples:
        why = (
            f"{challenger.variant} has {seen:,} of {rules.min_samples:,} {what} at its share of {challenger.share:.2%}"
        )
        return Told("hold", why)
    good = f"{challenger.variant} is not worse than the champion by more than {rules.margin:g}: {told(target)}"
    left = [step for step in rules.steps if step > challenger.share + _SAME_SHARE]
    step: Step = "advance" if left else "promote"
    what = f"to {left[0]:.2%} of traffic" if left else "to champion"
    return Told(step, good + (f"; {what} next" if rules.automatic else f"; a person must take it {what}"))


def _unclear(now: Now, why: str) -> Told:
    """Hold; where nothing can become clearer, say so."""
    if not now.complete:
        return Told("hold", why)
    return Told(
        "hold",
        f"{why}; with all traffic at {now.challenger.variant} no more can become known, so a person must decide: "
        "promote it, go back to a lower step, or stop",
        stuck=True,
    )
