"""Whether a candidate may go on: what it must reach by itself, and how far it must be above the champion."""

from dataclasses import dataclass

from ml.training.comparison import Difference, Metric, lower_is_better
from ml.training.measure import Measures

_TITLES = {"roc_auc": "ROC AUC", "accuracy": "accuracy", "log_loss": "log loss", "brier": "Brier score"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """What a candidate must be; GatesSpec in schemas/training.py says what each is. None is no limit."""

    metric: Metric
    min_gain: float
    alpha: float
    min_auc: float | None = None
    min_precision: float | None = None
    min_recall: float | None = None
    backtest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What one gate said: `message` is a sentence with the figures.

    `value` is what was measured and `limit` what it had to reach; `low` and `high` are the ends of the interval of the
    difference from the champion.
    """

    gate: str
    passed: bool
    message: str
    value: float | None = None
    limit: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """What the candidate has against it: the difference, or a sentence on why there is none to be had.

    `alerts` are those that the candidate and the champion raise when the test rows are replayed, in this order. The
    champion has learnt from the share `known` of the test rows, None if that is not recorded. When it is `as_served`,
    what was served at the time stands for its scores.
    """

    difference: Difference | None = None
    incomparable: str = ""
    alerts: tuple[int, int] | None = None
    known: float | None = 0.0
    as_served: bool = False


def judge(rules: GateRules, test: Measures, champion: Champion | None) -> tuple[Gate, ...]:
    """Return what each gate says of a candidate that came to `test`; it passed when all did.

    Without a champion only what it must reach by itself counts.
    """
    floors = (
        ("min_auc", "ROC AUC", test.roc_auc, rules.min_auc),
        ("min_precision", "precision", test.precision, rules.min_precision),
        ("min_recall", "recall", test.recall, rules.min_recall),
    )
    gates = [_floor(gate, title, value, limit) for gate, title, value, limit in floors if limit is not None]
    gates.append(_against(rules, champion))
    if rules.backtest:
        gates.append(_backtest(champion))
    return tuple(gates)


def _floor(gate: str, title: str, value: float | None, limit: float) -> Gate:
    if value is None:
        message = f"the test rows do not say what its {title} is, which must be at least {limit:g}"
        return Gate(gate=gate, passed=False, message=message, limit=limit)
    passed = value >= limit
    message = f"{title} {value:.4f} is {'at least' if passed else 'below'} {limit:g}"
    return Gate(gate=gate, passed=passed, message=message, value=value, limit=limit)


def _against(rules: GateRules, champion: Champion | None) -> Gate:
    if champion is None:
        return Gate(gate="champion", passed=True, message="there is no champion to compare with")
    difference = champion.difference
    if difference is None:
        why = champion.incomparable or "it was not compared with the champion"
        return Gate(gate="champion", passed=False, message=f"{why}; whether it is better takes a person")
    limit = _limit(rules, difference)
    enough = difference.candidate <= limit if lower_is_better(rules.metric) else difference.candidate >= limit
    return Gate(
        gate="champion",
        passed=enough and difference.surely_better,
        message=_told(rules, difference, enough) + _unequal(champion),
        value=difference.candidate,
        limit=limit,
        low=difference.low,
        high=difference.high,
    )


def _limit(rules: GateRules, difference: Difference) -> float:
    """Return what the candidate's figure had to reach."""
    direction = -1 if lower_is_better(rules.metric) else 1
    return difference.champion * (1 + direction * rules.min_gain)


def _told(rules: GateRules, difference: Difference, enough: bool) -> str:
    figures = f"{_TITLES[rules.metric]} {difference.candidate:.4f} against the champion's {difference.champion:.4f}"
    if not difference.entities_known:
        return f"{figures}: the samples have no entity_id, so whether that is luck cannot be told and takes a person"
    if difference.low is None or difference.high is None:
        return f"{figures}: whether that is luck cannot be told from events of hardly more than one entity"
    interval = f"{difference.low:+.4f} to {difference.high:+.4f} at {1 - difference.alpha:g} confidence"
    found = f"{figures}, a difference of {difference.value:+.4f} ({interval})"
    limit = _limit(rules, difference)
    if not enough:
        bound = "at most" if lower_is_better(rules.metric) else "at least"
        beyond = ", which no model can be" if not lower_is_better(rules.metric) and limit > 1 else ""
        return f"{found}: to be {100 * rules.min_gain:g}% better it must be {bound} {limit:.4f}{beyond}"
    return f"{found}: it is better" if difference.surely_better else f"{found}: that may be luck"


def _unequal(champion: Champion) -> str:
    """Return what the champion has before the candidate, as the end of a sentence."""
    if champion.as_served:
        return "; the champion is a learner's and may know these rows, so it counts with what was served at the time"
    if champion.known is None:
        return "; what the champion has learnt from is not recorded, so it may know these rows, which would favour it"
    if champion.known:
        return f"; the champion has learnt from {champion.known:.1%} of these rows, which favours it"
    return ""


def _backtest(champion: Champion | None) -> Gate:
    if champion is None:
        return Gate(gate="backtest", passed=True, message="there is no champion whose alerts to compare with")
    if champion.alerts is None:
        why = champion.incomparable or "the test rows were not replayed"
        return Gate(gate="backtest", passed=False, message=f"{why}, so nobody knows which alerts it would raise")
    own, others = champion.alerts
    message = f"replayed on the test rows it raises {own} alerts, and the champion {others}"
    return Gate(gate="backtest", passed=own <= others, message=message, value=float(own), limit=float(others))
