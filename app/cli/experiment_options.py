"""How shares, variants, limits and plans of experiments are written on the command line."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

import click

from schemas.experiments import ExperimentPlan, Metric

METRICS: Final = get_args(Metric)


class ShareType(click.ParamType):
    """A share of the traffic in per cent, such as 20 or 2.5%. Whether it makes sense is for control to say."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `20%` as 0.2."""
        if isinstance(value, float):
            return value
        try:
            share = float(value.removesuffix("%"))
        except ValueError:
            share = math.nan
        if not math.isfinite(share):
            self.fail(f"{value!r} is not a share in per cent, such as 20 or 2.5%", param, ctx)
        return round(share / 100, 12)  # 0.07, not 0.07000000000000001


class StepsType(ShareType):
    """The steps of a rollout: shares with commas between, such as 10,50,100."""

    name = "SHARES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `10,50,100` as (0.1, 0.5, 1.0)."""
        return tuple(super(StepsType, self).convert(step.strip(), param, ctx) for step in value.split(","))


class NamedShareType(ShareType):
    """A variant's name and its share: NAME=SHARE."""

    name = "NAME=SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `B=20` as ("B", 0.2)."""
        name, equals, share = value.rpartition("=")
        if not (name and equals):
            self.fail(f"{value!r} is no variant's name with a share, such as B=20", param, ctx)
        return name, super().convert(share, param, ctx)


class VariantType(ShareType):
    """A variant's name, its model and its share: NAME=MODEL:SHARE."""

    name = "NAME=MODEL:SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `B=m2:20` as ("B", "m2", 0.2)."""
        name, equals, rest = value.partition("=")
        model_id, colon, share = rest.rpartition(":")
        if not (name and equals and model_id and colon):
            self.fail(f"{value!r} is no variant's name with its model and share, such as B=MODEL_ID:20", param, ctx)
        return name, model_id, super().convert(share, param, ctx)


class LimitType(click.ParamType):
    """A number, or `off`."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `0.01` as 0.01 and `off` as itself: None would be an option that was not given."""
        if value == "off":
            return value
        return click.FLOAT.convert(value, param, ctx)


_PLAN_OPTIONS: Final = (
    click.option("--metric", type=click.Choice(METRICS), help="The target."),
    click.option("--alpha", type=float, help="The chance that a verdict of better or worse is ever wrong."),
    click.option("--margin", type=float, help="Worse by less than this is good enough, in the metric's unit."),
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
        type=LimitType(),
        metavar="NUMBER|off",
        help="The most events that a variant may fail to score.",
    ),
    click.option(
        "--max-call-ms",
        type=LimitType(),
        metavar="NUMBER|off",
        help="The longest mean time of a call of a variant's model.",
    ),
    click.option(
        "--max-score-psi",
        type=LimitType(),
        metavar="NUMBER|off",
        help="How far a variant's scores may be from the champion's.",
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
