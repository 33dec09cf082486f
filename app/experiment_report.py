"""What is known of an experiment or a rollout, for people and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from app.experiments import Course
from app.text import minute, number, p_value, per_cent, printable, table
from schemas.events import Deployment
from schemas.experiments import (
    BUCKETS,
    Contrast,
    Experiment,
    ExperimentPlan,
    ExperimentReport,
    GuardrailState,
    ShadowFigures,
    VariantFigures,
)
from schemas.text import duration

FIXED_HORIZON: Final = "fixed horizon: holds for one look at a time chosen before"
_FIGURES: Final = ".4g"


def document(course: Course | None, report: ExperimentReport | None) -> dict[str, Any]:
    """Return what there is to say of an experiment as JSON; without a course, of the stream's shadows."""
    found: dict[str, Any] = {"experiment": None, "running": False, "steps": [], "ended": None}
    if course is not None:
        found |= {
            "experiment": msgspec.to_builtins(course.experiment),
            "running": course.ended is None,
            "steps": [_step(deployment) for deployment in course.steps],
            "ended": None if course.ended is None else _changed(course.ended) | {"outcome": course.outcome},
        }
    return found | {"report": msgspec.to_builtins(report)}


def _changed(deployment: Deployment) -> dict[str, Any]:
    return {
        "revision": deployment.revision,
        "time_ms": deployment.changed_time_ms,
        "by": deployment.changed_by,
        "reason": deployment.reason,
    }


def _step(deployment: Deployment) -> dict[str, Any]:
    assert deployment.experiment is not None  # a step of an experiment has it
    shares = {variant.name: variant.buckets / BUCKETS for variant in deployment.experiment.variants}
    return _changed(deployment) | {"epoch": deployment.experiment.epoch, "shares": shares}


def lines(course: Course | None, report: ExperimentReport | None, ripens_ms: int) -> Iterator[str]:
    """Yield `document` as text: what runs, by which rules, what is known of each variant, the verdict and why.

    `ripens_ms` is how long after an event its labels may come: see StreamSpec.
    """
    if course is not None:
        yield from _course_lines(course)
        if course.ended is None and (report is None or report.samples == 0):
            yield _ripening(course.experiment, report, ripens_ms)
    if report is None:
        yield (
            "nothing is known of it yet: is a worker with the role learn running, do events come, or are its tasks "
            "still recovering? `penstock doctor` looks"
        )
        return
    if report.experiment_id:
        yield ""
        yield from _known_lines(report)
    if report.shadows:
        if course is not None:
            yield ""
        yield from table([_SHADOW_HEADER, *map(_shadow_row, report.shadows)], right=_SHADOW_RIGHT)
    if report.experiment_id:
        yield ""
        yield from _verdict_lines(report)
        if course is not None and course.ended is None and report.epoch != course.experiment.epoch:
            yield f"this report is of epoch {report.epoch}; the shares have changed since"


def _course_lines(course: Course) -> Iterator[str]:
    experiment, ended = course.experiment, course.ended
    yield printable(
        f"{experiment.kind} {experiment.experiment_id} of {course.steps[0].stream}, "
        f"{'runs' if ended is None else 'ended'}: epoch {experiment.epoch}"
    )
    yield from _plan_lines(experiment)
    for deployment in course.steps:
        shares = ", ".join(f"{name} {per_cent(part)}" for name, part in _step(deployment)["shares"].items())
        yield _change_line(deployment, shares)
    if ended is not None:
        yield _change_line(ended, course.outcome)


def _ripening(experiment: Experiment, report: ExperimentReport | None, ripens_ms: int) -> str:
    """Return when the first samples are mature. Events of the past are told apart by the report's event time."""
    begin = f"labels may come until {duration(ripens_ms)} after an event"
    started_ms = experiment.started_time_ms
    if report is not None and 0 < report.to_time_ms < started_ms:
        now = f"event time is at {minute(report.to_time_ms)} UTC"
        return f"{begin}; {now}, and the first samples are mature when it has gone on by as much"
    return f"{begin}; the first samples are mature at {minute(started_ms + ripens_ms)} UTC by event time"


def _change_line(deployment: Deployment, what: str) -> str:
    why = f": {deployment.reason}" if deployment.reason else ""
    when = f"{minute(deployment.changed_time_ms)}  r{deployment.revision:<5}"
    return printable(f"{when} {what}  by {deployment.changed_by}{why}")


def _plan_lines(experiment: Experiment) -> Iterator[str]:
    plan = experiment.plan
    yield (
        f"target {plan.metric} ({'higher' if plan.metric == 'accuracy' else 'lower'} is better), alpha {plan.alpha:g}, "
        f"margin {plan.margin:g}, at least {plan.min_samples:,} mature samples of each variant"
    )
    if plan.steps:
        steps = ", ".join(map(per_cent, plan.steps))
        yield f"steps {steps}, {'taken by itself' if plan.automatic else 'each taken by a person'}"


def _known_lines(report: ExperimentReport) -> Iterator[str]:
    yield f"{report.samples:,} mature samples, {report.ripening:,} wait for labels that may still come"
    names = list(dict.fromkeys(name for figures in report.variants for name in figures.means))
    header = (*_VARIANT_HEADER, *names, "F1", "AUC")
    rows = [_variant_row(figures, names) for figures in report.variants]
    yield from table([header, *rows], right=range(2, len(header)))
    yield ""
    yield f"Difference to the champion: above 0 is better. {_confidence(report.plan)}"
    yield from table([_CONTRAST_HEADER, *map(_contrast_row, report.contrasts)], right=range(2, 6))
    fixed = [(contrast, test, p) for contrast in report.contrasts for test, p in contrast.fixed.items()]
    if fixed:
        yield ""
        yield f"{FIXED_HORIZON}, and for independent events only"
        rows = [(c.variant, c.metric, test, p_value(p)) for c, test, p in fixed]
        yield from table([("variant", "metric", "test", "p"), *rows], right=(3,))
    if report.guardrails:
        yield ""
        yield from table([_GUARD_HEADER, *map(_guard_row, report.guardrails)], right=(3, 4))
    yield ""
    yield f"sample ratio, equally many samples in each bucket: p {p_value(report.sample_ratio_p)}, at every look"


def _confidence(plan: ExperimentPlan | None) -> str:
    if plan is None:
        return "The intervals hold at every look at once."
    return f"The intervals hold at every look at once, of all variants together with {per_cent(1 - plan.alpha)}."


_VARIANT_HEADER: Final = (
    "variant",
    "model",
    "share",
    "events",
    "served",
    "errors",
    "call ms",
    "PSI",
    "samples",
    "buckets",
)


def _variant_row(figures: VariantFigures, names: Sequence[str]) -> tuple[str, ...]:
    return (
        figures.variant,
        figures.model_id,
        per_cent(figures.share),
        f"{figures.events:,}",
        f"{figures.events - figures.errors:,}",
        f"{figures.errors:,}",
        number(figures.call_ms, ".3f"),
        number(figures.score_psi, ".4f"),
        f"{figures.samples:,}",
        f"{figures.buckets:,}",
        *(number(figures.means.get(name), _FIGURES) for name in names),
        number(figures.f1, _FIGURES),
        number(figures.roc_auc, _FIGURES),
    )


_CONTRAST_HEADER: Final = ("variant", "metric", "difference", "low", "high", "p")


def _contrast_row(contrast: Contrast) -> tuple[str, ...]:
    interval = (number(value, "+.4g") for value in (contrast.difference, contrast.low, contrast.high))
    return contrast.variant, contrast.metric, *interval, p_value(contrast.p_value)


_GUARD_HEADER: Final = ("variant", "guardrail", "state", "value", "limit", "why")


def _guard_row(guard: GuardrailState) -> tuple[str, ...]:
    state = "holds" if guard.holds else "broken"
    return guard.variant, guard.name, state, number(guard.value, _FIGURES), f"{guard.limit:g}", guard.reason


_SHADOW_HEADER: Final = ("shadow", "model", "events", "other label", "mean distance of scores")
_SHADOW_RIGHT: Final = range(2, 5)


def _shadow_row(shadow: ShadowFigures) -> tuple[str, ...]:
    distance = f"{shadow.mean_distance:.4g}"
    return shadow.variant, shadow.model_id, f"{shadow.n:,}", per_cent(shadow.disagreement), distance


def _verdict_lines(report: ExperimentReport) -> Iterator[str]:
    winner = f" ({report.winner})" if report.winner else ""
    yield printable(f"verdict: {report.verdict}{winner}")
    if report.step != "none":
        yield f"next: {report.step}"
    yield printable(f"why: {report.why}")
