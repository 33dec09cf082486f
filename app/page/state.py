"""The answer of the first five seconds: whether the models are well; if not, what is worst and what to do.

`act` is: no model serves; events wait and none has been answered for ten seconds; an alert of high or critical severity
that is not over. `watch` is: more events wait than come, or are answered, in ten seconds; a medium alert that is not
over; drift of medium severity or more in the newest window that no alert tells of. The worst is told, in this order,
and how much else there is.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from app.page.document import Drift, Flow, Level, Models, ShownAlert, State
from schemas.events import VariantPerformance

STALLED_MS: Final = 10_000
BEHIND_S: Final = 10
_LEVELS: Final[dict[str, Level]] = {"critical": "act", "high": "act", "medium": "watch"}
_URGENCY: Final = ("critical", "high", "medium", "low")
_DRIFTED: Final = ("medium", "high", "critical")
_MOST_LETTERS: Final = 240
_PLACED: Final = frozenset({"drift", "accuracy", "false_positive_rate", "latency", "error_drift"})
"""Kinds of alerts whose message begins with the model and the window."""


class _Concern(NamedTuple):
    level: Level
    sentence: str


def state_of(
    stream: str,
    flow: Flow,
    stalled_ms: int,
    models: Models,
    newest: VariantPerformance | None,
    drift: Drift | None,
    alerts: Sequence[ShownAlert],
) -> State:
    """Return the answer; `newest` are the champion's figures in the newest window."""
    found = sorted(_concerns(stream, flow, stalled_ms, models, drift, alerts), key=lambda concern: concern.level)
    if not found:
        return State(level="ok", sentence=_all_is_well(flow, models, newest, drift))
    others = len(found) - 1
    more = f" There {'is' if others == 1 else 'are'} {others} more to look at." if others else ""
    return State(level=found[0].level, sentence=found[0].sentence + more)


def _concerns(
    stream: str, flow: Flow, stalled_ms: int, models: Models, drift: Drift | None, alerts: Sequence[ShownAlert]
) -> Iterator[_Concern]:
    if models.champion is None:
        yield _Concern("act", f"No model serves: `penstock models promote MODEL_ID --stream {stream}` makes one do so.")
        return
    lag = flow.lag or 0
    if lag and stalled_ms >= STALLED_MS:
        yield _Concern(
            "act",
            f"{lag:,} events wait, and none has been answered for {stalled_ms // 1000} s: "
            "is a worker with the role score running?",
        )
    elif flow.out_eps is not None and lag > BEHIND_S * max(flow.in_eps or 0.0, flow.out_eps, 1.0):
        rate = f"{flow.out_eps:,.0f} a second"
        yield _Concern("watch", f"{lag:,} events wait, and {rate} are answered: more workers, or a smaller model.")
    current = sorted((alert for alert in alerts if alert.current), key=lambda alert: _URGENCY.index(alert.severity))
    for alert in current:
        if alert.severity in _LEVELS:
            yield _Concern(_LEVELS[alert.severity], _told(alert))
    if drift is not None and drift.severity in _DRIFTED and all(alert.kind != "drift" for alert in current):
        yield _Concern("watch", f"Drift is {drift.severity} in the newest window: {_sentence(drift.recommendation)}")


def _told(alert: ShownAlert) -> str:
    message = alert.message
    if alert.kind in _PLACED:
        message = message.partition(": ")[2] or message
    return f"{_sentence(_cut(message))} {_sentence(_cut(alert.recommendation))}"


def _all_is_well(flow: Flow, models: Models, newest: VariantPerformance | None, drift: Drift | None) -> str:
    assert models.champion is not None
    parts = [f"{models.champion.model_id} answers {flow.out_eps:,.0f} events/s"] if flow.out_eps else []
    if not parts:
        parts = [f"{models.champion.model_id} serves, and no events come in"]
    elif flow.latency_p99_ms is not None:
        parts[0] += f" within {flow.latency_p99_ms:,.0f} ms (p99)"
    if newest is not None and newest.roc_auc is not None:
        parts.append(f"its AUC is {newest.roc_auc:.3f}")
    elif newest is not None and newest.accuracy is not None:
        parts.append(f"its accuracy is {newest.accuracy:.1%}")
    if drift is not None:
        parts.append("nothing has drifted" if drift.severity == "none" else f"drift is {drift.severity}")
    return f"All is well: {', '.join(parts)}."


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith((".", "!", "?", "…")) else ".")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
