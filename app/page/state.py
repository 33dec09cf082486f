"""The answer of the first five seconds: whether the models are well; if not, what is worst and what to do.

`act` is: no model serves; in some partition events wait and none has been answered for ten seconds; an alert of high or
critical severity that is not over, in the first day after it was told. `watch` is: more events wait than come, or are
answered, in ten seconds; events came and come no more; an alert of medium severity, or an older one, that is not over;
drift of medium severity or more in the newest window where no such alert tells of drift. The worst is told, in this
order, and how much else there is.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from app.page.alerts import DAY_MS
from app.page.document import WORST_FIRST, Flow, Level, State
from app.page.drift import DriftFold
from app.page.flow import FlowMeter, Stall
from app.page.kinds import Told, kind_of
from app.page.models import ModelFold
from schemas.drift import DriftReport
from schemas.event import SEVERITY_RANKS
from schemas.experiments import CHAMPION
from topics.specs import StreamTopics

BEHIND_S: Final = 10
_WATCHED: Final = SEVERITY_RANKS["medium"]
_ACTED_ON: Final = SEVERITY_RANKS["high"]
_MOST_LETTERS: Final = 240


class _Concern(NamedTuple):
    level: Level
    sentence: str
    figures: str = ""


def state_of(
    stream: str, now_ms: int, flow: FlowMeter, models: ModelFold, drift: DriftFold, alerts: Sequence[Told]
) -> State:
    """Return the answer; `alerts` are those of medium severity or more that are not over."""
    report, shown = drift.newest, flow.flow(history=False)
    judged = report if report is not None and models.scores(report.model_id) else None
    concerns = _concerns(stream, now_ms, flow, shown, models, judged, alerts)
    found = sorted(concerns, key=lambda concern: WORST_FIRST.index(concern.level))
    if not found:
        assert models.deployment is not None
        figures = (*_flow_words(flow, shown), *_model_words(models), *_drift_words(report, judged))
        return State(
            level="ok",
            sentence=f"All is well: {models.deployment.champion} serves.",
            figures=_sentence(", ".join(figures)),
        )
    worst, others = found[0], len(found) - 1
    more = f"There {'is' if others == 1 else 'are'} {others} more to look at." if others else ""
    figures = (_sentence(worst.figures), more)
    return State(level=worst.level, sentence=worst.sentence, figures=" ".join(filter(None, figures)))


def _concerns(
    stream: str,
    now_ms: int,
    flow: FlowMeter,
    shown: Flow,
    models: ModelFold,
    report: DriftReport | None,
    alerts: Sequence[Told],
) -> Iterator[_Concern]:
    if models.deployment is None:
        yield _Concern("act", _unserved(stream, registered=len(models.versions) > 0))
        return
    yield from _flow_concerns(stream, flow, shown)
    for told in sorted(alerts, key=lambda told: -SEVERITY_RANKS[told.alert.severity]):
        yield _concern(told, now_ms)
    drifted = report is not None and SEVERITY_RANKS[report.severity] >= _WATCHED
    if report is not None and drifted and all(told.alert.kind != "drift" for told in alerts):
        yield _Concern("watch", f"Drift is {report.severity} in the newest window. {_sentence(report.recommendation)}")


def _unserved(stream: str, *, registered: bool) -> str:
    if registered:
        return f"No model serves: `penstock models promote MODEL_ID --stream {stream}` makes one do so."
    return f"No model is there yet: `penstock models train --csv FILE --stream {stream}` makes one."


def _flow_concerns(stream: str, flow: FlowMeter, shown: Flow) -> Iterator[_Concern]:
    lag = shown.lag or 0
    if (stall := flow.stall) is not None:
        waits = f"{stall.waiting:,} events wait, none answered for {stall.longest_ms // 1000:,} s"
        yield _Concern("act", _stalled(stream, stall), waits)
    elif shown.out_eps is not None and lag > BEHIND_S * max(shown.in_eps or 0.0, shown.out_eps, 1.0):
        answered = f"{lag:,} events wait, {_rate(shown.out_eps)} events/s are answered"
        yield _Concern(
            "watch", "Events come faster than they are answered: more workers, or a smaller model.", answered
        )
    if flow.has_stopped:
        yield _Concern(
            "watch", "Events came, and come no more: does what sends them still run?", f"none for {_silence(flow)}"
        )


def _stalled(stream: str, stall: Stall) -> str:
    if stall.whole:
        return "Events wait, and none is answered: is a worker with the role score running?"
    features = StreamTopics(stream).features
    first, others = stall.partitions[0], len(stall.partitions) - 1
    stands = f"Partition {first} of {features} stands still"
    if others:
        stands = f"Partition {first} of {features} and {others} more stand still"
    return f"{stands}, and the others go on: the log of the worker that has it may say why; start that worker anew."


def _concern(told: Told, now_ms: int) -> _Concern:
    alert, days = told.alert, (now_ms - told.time_ms) // DAY_MS
    heading = kind_of(alert.kind).heading.format(subject=_cut(alert.subject))
    sentence = f"{_sentence(heading)} {_sentence(_cut(alert.recommendation))}"
    message = _cut(alert.message)
    if days:
        ago = f"{days} day{'s' if days > 1 else ''} ago"
        return _Concern("watch", sentence, f"{_sentence(message)} Told {ago}, and nothing says that it is over.")
    return _Concern("act" if SEVERITY_RANKS[alert.severity] >= _ACTED_ON else "watch", sentence, message)


def _flow_words(flow: FlowMeter, shown: Flow) -> Iterator[str]:
    if shown.out_eps is None:
        return
    if shown.out_eps:
        within = "" if shown.latency_p99_ms is None else f" within {shown.latency_p99_ms:,.0f} ms (p99)"
        yield f"{_rate(shown.out_eps)} events/s{within}"
    else:
        yield "no events come in" if flow.silent_ms is None else f"no event for {_silence(flow)}"


def _model_words(models: ModelFold) -> Iterator[str]:
    assert models.deployment is not None
    newest = models.newest_of(CHAMPION, models.deployment.champion)
    if newest is not None and newest.value is not None:
        yield f"AUC {newest.value:.3f}" if models.figure == "roc_auc" else f"accuracy {newest.value:.1%}"


def _drift_words(report: DriftReport | None, judged: DriftReport | None) -> Iterator[str]:
    if judged is not None:
        yield "nothing has drifted" if judged.severity == "none" else f"drift is {judged.severity}"
    elif report is not None:
        yield "drift has not been judged since the promotion"


def _rate(eps: float) -> str:
    if eps >= 10:
        return f"{eps:,.0f}"
    return f"{eps:.1f}" if eps >= 0.1 or not eps else "fewer than 0.1"


def _silence(flow: FlowMeter) -> str:
    return f"{(flow.silent_ms or 0) // 1000:,} s"


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith((".", "!", "?", "…")) else ".")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
