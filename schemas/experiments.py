"""The events of experiments and rollouts: what is asked, how traffic is shared, what was counted, and what is known.

A rollout is an experiment of two variants whose shares follow steps, and which ends by itself. The bucket is the unit
of all three: of assignment, of analysis and of state (see docs/decisions/0013).
"""

from typing import Annotated, Final, Literal

import msgspec

from schemas.event import Event, Id, TimeMs

BUCKETS: Final = 10_000
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"  # what the new model's variant of a rollout is called

Metric = Literal["accuracy", "brier", "log_loss", "cost"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class ExperimentPlan(Event, frozen=True, kw_only=True, gc=False):
    """What an experiment compares, and when it is decided.

    `metric` is the target, a mean per event; accuracy is better when higher, the others when lower. `cost` is what a
    false positive and a false negative cost, nothing else. `alpha` is the chance, over the whole experiment and all its
    variants, that one is called better or worse and is not. A variant that is worse by less than `margin`, in the
    metric's unit, is good enough for a rollout to go on. No verdict before each variant has `min_samples` mature
    samples. Guardrails, each off when null: the share of a variant's events that its model may fail to score; the time
    that a call of it may take, and one in ten may take longer; how far its scores may be from the champion's (PSI,
    nats), from `min_samples` samples of both on, mature or not; and `guard_metrics` must not become worse by more than
    the margin. `steps` are the challenger's shares of a rollout, ascending; an experiment has none. An `automatic`
    rollout takes them by itself, and else waits for a person at each.
    """

    metric: Metric
    false_positive_cost: NotNegative = 1.0
    false_negative_cost: NotNegative = 1.0
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05
    margin: NotNegative = 0.01
    min_samples: Annotated[int, msgspec.Meta(ge=1)] = 1000
    max_error_share: Share | None = 0.01
    max_call_ms: Annotated[float, msgspec.Meta(gt=0)] | None = 50.0
    max_score_psi: NotNegative | None = 1.0
    guard_metrics: tuple[Metric, ...] = ()
    steps: tuple[Annotated[float, msgspec.Meta(gt=0, le=1)], ...] = ()
    automatic: bool = True


class Variant(Event, frozen=True, kw_only=True, gc=False):
    """One arm: its name, the model that serves it, and how many of the 10,000 buckets it has."""

    name: Id
    model_id: Id
    buckets: Annotated[int, msgspec.Meta(ge=0, le=BUCKETS)]


class Experiment(Event, frozen=True, kw_only=True, gc=False):
    """An experiment or rollout that runs, as a Deployment carries it.

    `variants` begin with the champion. `table` gives each of the 10,000 buckets to one of them, as runs of (position in
    `variants`, number of buckets). An entity's bucket is a hash of its id with `salt`, the same all the time. `epoch`
    counts the changes of the shares, from 0.
    """

    experiment_id: Id
    kind: Literal["experiment", "rollout"]
    plan: ExperimentPlan
    salt: str
    variants: tuple[Variant, ...]
    table: tuple[tuple[int, int], ...]
    epoch: int = 0
    started_time_ms: TimeMs = 0
    started_by: str = ""


class ServedCount(Event, frozen=True, kw_only=True, gc=False):
    """What was counted of one variant: of `n` events assigned to it, `errors` got the champion's score instead.

    Those whose model was not at hand, because its store was away for some minutes, are no errors. Its model was called
    `calls` times and took `call_us` microseconds in all; `slow_calls` of them took longer than the plan's
    `max_call_ms`. `scores` counts the scores that are its own in 20 equal cells from 0 to 1 (of several classes the
    highest); an anomaly stream has none.
    """

    variant: str
    model_id: str
    n: int
    errors: int = 0
    calls: int = 0
    call_us: int = 0
    slow_calls: int = 0
    scores: tuple[int, ...] = ()


class ShadowCount(Event, frozen=True, kw_only=True, gc=False):
    """How a shadow compares with what was served, over `n` events that both scored.

    It gave `disagreements` of them another label. `distance` is the sum of the absolute differences of the scores (of
    several classes, of the highest).
    """

    variant: str
    model_id: str
    n: int
    disagreements: int
    distance: float


class VariantCounts(Event, frozen=True, kw_only=True, gc=False):
    """What a task counted of some scored events: a record of `<s>.variants`, committed with their predictions.

    Written while there are variants or shadows. The events stand in partition `partition` of `<s>.features` and were
    all scored under one deployment revision.
    """

    stream: str
    partition: int
    from_offset: int
    to_offset: int
    to_time_ms: int
    deployment_revision: int
    variants: tuple[ServedCount, ...] = ()
    shadows: tuple[ShadowCount, ...] = ()


class VariantFigures(Event, frozen=True, kw_only=True, gc=False):
    """What is known of one variant. Figures are of its mature samples; one that cannot be computed is null.

    `events` were scored (`errors` by the champion in its place), `samples` of them have a mature label; the entities
    fall into `buckets` buckets. `means` has the target and the guard metrics. F1 and ROC AUC have no part in the
    verdict.
    """

    variant: str
    model_id: str
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


class Contrast(Event, frozen=True, kw_only=True, gc=False):
    """How much better a variant is than the champion on one metric; positive is better, whatever the metric.

    `low` to `high` is a confidence sequence: it holds at every look at once with the plan's confidence, corrected for
    the number of variants; `p_value` belongs to it. `fixed` has p-values of fixed-horizon tests (two_proportion_z,
    welch, chi_square), which hold for a single look at a time chosen before, and for independent events only. All are
    null while they cannot be computed.
    """

    variant: str
    metric: Metric
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    fixed: dict[str, float | None] = {}


class GuardrailState(Event, frozen=True, kw_only=True, gc=False):
    """Whether a guardrail holds for a variant: `name` is errors, latency, scores, or a metric's name.

    Errors and latency are of the events of this epoch, and `value` is a share (of events, of calls); both wait for no
    label. Scores are of all epochs and wait until both variants have `min_samples` samples, mature or not. A metric is
    of mature samples.
    """

    variant: str
    name: str
    holds: bool
    value: float | None
    limit: float
    reason: str


class ShadowFigures(Event, frozen=True, kw_only=True, gc=False):
    """How far a shadow agrees with what is served, without any label."""

    variant: str
    model_id: str
    n: int
    disagreement: float
    mean_distance: float


Verdict = Literal[
    "none", "too_early", "undecided", "better", "worse", "no_winner", "broken_guardrail", "unequal_shares"
]
Step = Literal["none", "hold", "advance", "promote", "roll_back"]


class ExperimentReport(Event, frozen=True, kw_only=True, gc=False):
    """What is known of a stream's experiment at one moment: a record of `<s>.experiments`.

    `verdict`: `better` names the variant that is better than the champion in `winner`; with `worse` the champion wins;
    `no_winner` when no variant can be better by more than the margin any more. `sample_ratio_p` is the always-valid
    p-value of the test that each bucket gets equally many samples. `step` is what a rollout does next. `why` is for a
    person. `samples` are mature, `ripening` wait for labels that may still come. Without an `experiment_id` there is
    none, and the report tells of the shadows only. Reports are numbered from 0 for each experiment.
    """

    stream: str
    experiment_id: str
    kind: Literal["experiment", "rollout", ""]
    deployment_revision: int
    epoch: int
    number: int
    to_time_ms: int
    plan: ExperimentPlan | None
    samples: int
    ripening: int
    variants: tuple[VariantFigures, ...]
    contrasts: tuple[Contrast, ...]
    guardrails: tuple[GuardrailState, ...]
    shadows: tuple[ShadowFigures, ...]
    sample_ratio_p: float | None
    verdict: Verdict
    winner: str
    step: Step
    why: str
