"""The hyper-parameters that a search tries: from what a stream declares to Optuna's distributions, or to a grid."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml.training.protocol import TrainingImpossible

Value = bool | int | float | str
Given = tuple[float, float] | Mapping[str, Value | list[Value]]
"""`[low, high]`, or a table with `low`, `high` and one of `log` and `step`, or a table with `choices`."""

_STEPS_TOLERANCE = 1e-9  # 0.3 is the third step of 0.1, although 3 × 0.1 is a little more


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers in [low, high], whole ones if `whole`: evenly, or evenly by their logarithm, or only each `step`."""

    low: float
    high: float
    whole: bool
    log: bool = False
    step: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """One of these values."""

    values: tuple[Value, ...]


Space = Mapping[str, Range | Choices]


def read_space(given: Mapping[str, Given]) -> dict[str, Range | Choices]:
    """Return the space, by the names of its parameters in their order. Raises TrainingImpossible with a sentence."""
    if not given:
        raise TrainingImpossible("the search has no space: name the parameters to search")
    return {name: _dimension(name, given[name]) for name in sorted(given)}


def probes(space: Space) -> list[dict[str, Value]]:
    """Return points that together have both ends of each range, and every choice."""
    axes = {name: _ends(dimension) for name, dimension in space.items()}
    longest = max(map(len, axes.values()))
    return [{name: values[min(number, len(values) - 1)] for name, values in axes.items()} for number in range(longest)]


def distributions(space: Space) -> dict[str, Any]:
    """Return Optuna's distributions. The end of a range with steps is its last step, as Optuna would warn otherwise."""
    return {name: _distribution(dimension) for name, dimension in space.items()}


@dataclass(frozen=True, slots=True)
class Grid:
    """All combinations of the values in `axes`, in an order that the seed decides.

    `order` has the numbers of as many of them as are wanted, and no others are ever computed: there may be millions.
    """

    axes: Mapping[str, Sequence[Value]]
    order: Sequence[int]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Value]:
        """Return the combination that is `index`-th in the order."""
        rest, found = self.order[index], {}
        for name, values in self.axes.items():
            rest, place = divmod(rest, len(values))
            found[name] = values[place]
        return found


def grid(space: Space, most: int, seed: int) -> Grid:
    """Return the grid of the space, or `most` points of it. Raises TrainingImpossible for a range without steps."""
    axes = {name: _points(name, dimension) for name, dimension in space.items()}
    size = math.prod(map(len, axes.values()))
    return Grid(axes, random.Random(seed).sample(range(size), min(size, most)))


def _dimension(name: str, given: Given) -> Range | Choices:
    if isinstance(given, Mapping):
        if isinstance(values := given.get("choices"), list) and values:
            return Choices(values=tuple(values))
        low, high, log, step = (given.get(key) for key in ("low", "high", "log", "step"))
    else:
        (low, high), log, step = given, None, None
    if not (_is_number(low) and _is_number(high) and (step is None or _is_number(step))):
        raise TrainingImpossible(f"the search of {name} needs low and high, or choices")
    found = Range(
        low=low,  # type: ignore[arg-type]
        high=high,  # type: ignore[arg-type]
        whole=all(isinstance(number, int) for number in (low, high, step) if number is not None),
        log=bool(log),
        step=step,  # type: ignore[arg-type]
    )
    if wrong := _wrong(found):
        raise TrainingImpossible(f"the search of {name} cannot be made: {wrong}")
    return found


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


def _wrong(given: Range) -> str:
    if not given.low < given.high:
        return f"low {given.low:g} is not below high {given.high:g}"
    if given.log and given.low <= 0:
        return f"on a logarithmic scale low must be above 0, and is {given.low:g}"
    if given.log and given.step is not None:
        return "a range has either log or step"
    if given.step is not None and given.step <= 0:
        return f"step must be above 0, and is {given.step:g}"
    return ""


def _distribution(dimension: Range | Choices) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.values)
    high = _highest(dimension)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(float(dimension.low), float(high), log=dimension.log, step=dimension.step)


def _ends(dimension: Range | Choices) -> Sequence[Value]:
    if isinstance(dimension, Choices):
        return dimension.values
    kind = int if dimension.whole else float
    return kind(dimension.low), kind(_highest(dimension))


def _highest(dimension: Range) -> float:
    return dimension.high if dimension.step is None else _steps(dimension)[-1]


def _points(name: str, dimension: Range | Choices) -> Sequence[Value]:
    if isinstance(dimension, Choices):
        return dimension.values
    if dimension.log or not (dimension.whole or dimension.step):
        raise TrainingImpossible(f"a grid needs choices or a step for {name}, because its range has no end of values")
    return _steps(dimension)


def _steps(dimension: Range) -> Sequence[int | float]:
    if dimension.whole:
        return range(int(dimension.low), int(dimension.high) + 1, int(dimension.step or 1))
    assert dimension.step is not None
    count = int((dimension.high - dimension.low) / dimension.step + _STEPS_TOLERANCE) + 1
    return tuple(round(dimension.low + number * dimension.step, 12) for number in range(count))
