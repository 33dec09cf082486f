"""How plans of experiments are written on the command line."""

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

import click

from app.cli.types import LimitType, NumberType
from schemas.experiments import ExperimentPlan, Metric

METRICS: Final = get_args(Metric)


_PLAN_OPTIONS: Final = (
    click.option("--metric", type=click.Choice(METRICS), help="The target, a mean per event."),
    click.option(
        "--alpha",
        type=NumberType(0, 1, min_open=True, max_open=True),
        help="The chance that a verdict of better or worse is ever wrong, such as 0.05.",
    ),
    click.option(
        "--margin",
        type=NumberType(min=0),
        help="Worse by less than this is good enough; in the metric's unit per event.",
    ),
    click.option("--min-samples", type=click.IntRange(min=1), help="Mature samples of each variant before a verdict."),
    click.option(
        "--guard",
        "guard_metrics",
        multiple=True,
        type=click.Choice(METRICS),
        help="A metric that must not become worse by more than the margin; repeatable.",
    ),
    click.option(
        "--max-error-share",
        type=LimitType(0, 1),
        metavar="FRACTION|off",
        help="The share of its events that a variant may fail to score: from 0 to 1, such as 0.01.",
    ),
    click.option(
        "--max-call-ms",
        type=LimitType(min=0, min_open=True),
        metavar="MS|off",
        help="How long a call of a variant's model may take, in milliseconds; one in ten may take longer.",
    ),
    click.option(
        "--max-score-psi",
        type=LimitType(min=0),
        metavar="NATS|off",
        help="How far a variant's scores may be from the champion's: their PSI, in nats, such as 1.",
    ),
)
_PLAN_FIELDS: Final = frozenset(ExperimentPlan.__struct_fields__)


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a plan. What is not given comes from `[streams.<name>.experiments]`."""
    for option in reversed(_PLAN_OPTIONS):
        command = option(command)
    return command


def split_plan(asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was given of a plan, by its fields and with None for what is off, and the other parameters."""
    given = {
        name: None if value == "off" else value
        for name, value in asked.items()
        if name in _PLAN_FIELDS and value not in (None, ())
    }
    return given, {name: value for name, value in asked.items() if name not in _PLAN_FIELDS}
