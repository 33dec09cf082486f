"""A finished replay as a document, as `--json` writes it. It holds no clock: two of one history are the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from agents.evaluate import performance_of
from agents.replay.decisions import NO_PLACE, Changed, Decisions
from agents.replay.identity import Compared, Whose
from agents.replay.labelled import Overall, Pairs, overall
from agents.replay.learning import Learning
from agents.replay.question import Question
from agents.replay.triggers import triggers_of
from app.backtest import Answered, History
from schemas.streams import StreamSpec


def document_of(answered: Answered, settings: Sequence[str]) -> dict[str, Any]:
    """Return everything that a replay found; `settings` are what `--set` changed, as it was written."""
    question, pairs = answered.question, answered.labelled.pairs
    return {
        "stream": question.spec.name,
        "from_time_ms": question.span.from_ms,
        "to_time_ms": question.span.to_ms,
        "model": question.model,
        "learner": question.learner,
        "threshold": question.changed.threshold,
        "set": list(settings),
        "history": _history(answered.history),
        "events": answered.served.events,
        "samples": answered.labelled.samples,
        "unusable": answered.served.unusable + answered.labelled.unusable,
        "scores": _scores(answered.served.compared),
        "not_scored": answered.labelled.not_scored,
        "problems": dict(sorted(answered.problems.items())),
        "pruned": sorted(answered.pruned),
        "learnt_from": _learnt_from(answered),
        "learned": _learned(answered.learning),
        "decisions": _decisions(answered.served.decisions)
        | {"became_right": pairs.better if pairs else 0, "became_wrong": pairs.worse if pairs else 0},
        "overall": _overall(question, pairs),
        "served": _world(question.spec, answered, 0),
        "replayed": _world(question.changed, answered, 1),
    }


def _history(history: History) -> dict[str, Any]:
    places = [
        {"partition": number, "from_offset": start, "to_offset": stop}
        for number, (start, stop) in sorted(history.predictions.items())
    ]
    start, stop = history.samples
    return asdict(history) | {"predictions": places, "samples": {"from_offset": start, "to_offset": stop}}


def _learnt_from(answered: Answered) -> dict[str, Any] | None:
    """Return how many events a model that did not serve may have learnt from, and the figures of the others; or None.

    The number is None, too, where nobody said up to when it learnt.
    """
    model = answered.learnt
    if model is None:
        return None
    until_ms, pairs = model.training_to_time_ms, answered.labelled.pairs
    events = None if until_ms is None else answered.served.learnt
    later = pairs.since(until_ms) if pairs is not None and until_ms is not None else None
    return {
        "model_id": model.model_id,
        "training_to_time_ms": until_ms,
        "events": events,
        "overall_later": _overall(answered.question, later),
    }


def _scores(compared: Mapping[Whose, Compared]) -> list[dict[str, Any]]:
    return [{**whose._asdict(), **asdict(counts), "different": counts.different} for whose, counts in compared.items()]


def _learned(learning: Learning | None) -> dict[str, Any] | None:
    if learning is None:
        return None
    return {
        "updates": learning.updates,
        "published": learning.published,
        "served": learning.served,
        "kept_back": learning.kept_back,
    }


def _decisions(decisions: Decisions) -> dict[str, Any]:
    changes = [
        {"served": served, "replayed": replayed, "events": events}
        for (served, replayed), events in decisions.changes.items()
    ]
    return {
        "events": decisions.compared,
        "not_scored": decisions.not_scored,
        "changed": sum(change["events"] for change in changes),
        "changes": changes,
        "examples": [_example(changed) for changed in decisions.examples],
    }


def _example(changed: Changed) -> dict[str, Any]:
    place = None if changed.offset == NO_PLACE else f"{changed.partition}:{changed.offset}"
    return {"place": place} | {name: value for name, value in asdict(changed).items() if name not in _PLACE}


_PLACE = ("partition", "offset")


def _overall(question: Question, pairs: Pairs | None) -> dict[str, Any] | None:
    if pairs is None:
        return None
    found: Overall = overall(question.spec, question.changed, pairs)
    differences = [
        {**asdict(difference), "surely_better": difference.surely_better} for difference in found.differences
    ]
    document: dict[str, Any] = _rounded(asdict(found) | {"differences": differences})
    return document


def _rounded(value: Any) -> Any:
    """Return all numbers to ten digits: the last ones of a sum depend on how many threads add it up."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def _world(spec: StreamSpec, answered: Answered, world: int) -> dict[str, Any]:
    """Return what one world told, by the time that it is of: the halves of a replay tell apart from each other."""
    told = answered.served.told[world], answered.labelled.told[world]
    alerts = sorted((a for half in told for a in half.alerts), key=lambda alert: (alert.raised_time_ms, alert.id))
    asked = sorted((r for half in told for r in half.requests), key=lambda one: (one.requested_time_ms, one.id))
    reports = answered.labelled.reports[world]
    return {
        "windows": [msgspec.to_builtins(performance_of(spec, reports[number])) for number in sorted(reports)],
        "drift_windows": answered.served.drift_windows[world],
        "alerts": [msgspec.to_builtins(alert) for alert in alerts],
        "requests": [
            {**msgspec.to_builtins(trigger.request), "runs": not trigger.why_not, "why_not": trigger.why_not}
            for trigger in triggers_of(spec, asked)
        ],
    }
