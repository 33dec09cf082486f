"""A finished replay as a document, as `--json` writes it. It holds no clock: two of one history are the same."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from agents.evaluate import performance_of
from agents.replay.decisions import NO_PLACE, Changed, Decisions
from agents.replay.identity import Identity
from agents.replay.learning import Learning
from agents.replay.triggers import triggers_of
from agents.replay.worlds import World
from app.backtest import Answered
from app.backtest_figures import Overall, overall


def document_of(answered: Answered, settings: Sequence[str]) -> dict[str, Any]:
    """Return everything that a replay found; `settings` are what `--set` changed, as it was written."""
    question, replay = answered.question, answered.replay
    pairs = replay.labelled.pairs()
    return {
        "stream": question.spec.name,
        "from_time_ms": question.span.from_ms,
        "to_time_ms": question.span.to_ms,
        "model": question.model,
        "learner": question.learner,
        "threshold": question.changed.threshold,
        "set": list(settings),
        "history": asdict(answered.history),
        "events": replay.progress.events,
        "samples": replay.progress.samples,
        "scores": _scores(answered.identity),
        "problems": dict(answered.problems),
        "learned": _learned(answered.learning),
        "decisions": _decisions(replay.decisions)
        | {"became_right": pairs.better if pairs else 0, "became_wrong": pairs.worse if pairs else 0},
        "overall": _overall(overall(question.spec, question.changed, pairs)) if pairs else None,
        "served": _world(replay.served),
        "replayed": _world(replay.replayed),
    }


def _scores(identity: Identity) -> list[dict[str, Any]]:
    return [
        {"variant": variant, "model_id": model_id, **asdict(counts), "different": counts.different}
        for (variant, model_id), counts in identity.compared.items()
    ]


def _learned(learning: Learning | None) -> dict[str, Any] | None:
    if learning is None:
        return None
    return {"updates": learning.updates, "published": learning.published, "kept_back": learning.kept_back}


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


def _overall(found: Overall) -> dict[str, Any]:
    differences = [
        {**asdict(difference), "surely_better": difference.surely_better} for difference in found.differences
    ]
    return asdict(found) | {"differences": differences}


def _world(world: World) -> dict[str, Any]:
    triggers = triggers_of(world.spec, world.told.requests)
    reports = world.evaluating.reports
    return {
        "windows": [msgspec.to_builtins(performance_of(world.spec, reports[number])) for number in sorted(reports)],
        "drift_windows": world.drift_windows,
        "alerts": [msgspec.to_builtins(alert) for alert in world.told.alerts],
        "requests": [
            {**msgspec.to_builtins(trigger.request), "runs": not trigger.why_not, "why_not": trigger.why_not}
            for trigger in triggers
        ],
    }
