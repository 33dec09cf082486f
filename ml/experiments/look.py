"""What is known of an experiment at one moment. ExperimentReport in schemas/experiments.py tells what words mean."""

from dataclasses import dataclass, field
from typing import Literal

from ml.experiments.rules import Metric

Verdict = Literal["too_early", "undecided", "better", "worse", "no_winner", "broken_guardrail", "unequal_shares"]
Step = Literal["none", "hold", "advance", "promote", "roll_back"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of one variant, the champion too. `share` is its share of the buckets now."""

    variant: str
    share: float
    events: int
    errors: int
    call_ms: float | None
    score_psi: float | None
    samples: int
    buckets: int
    means: dict[str, float | None]
    f1: float | None
    roc_auc: float | None


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much better a challenger is than the champion on one metric; positive is better."""

    variant: str
    metric: Metric
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    fixed: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Whether a guardrail holds for a challenger: `name` is errors, latency, scores, or a metric's name."""

    variant: str
    name: str
    holds: bool
    value: float | None
    limit: float
    reason: str


@dataclass(frozen=True, slots=True)
class Look:
    """All of it. `contrasts` have each challenger's target first, then its guard metrics.

    `stuck`: a rollout holds, and what it waits for can no longer come; only a person can end that.
    """

    samples: int
    ripening: int
    variants: list[Figures]
    contrasts: list[Contrast]
    guardrails: list[Guardrail]
    sample_ratio_p: float | None
    verdict: Verdict
    winner: str
    step: Step
    why: str
    stuck: bool = False
