"""What is shown of the models' lives: the newest moments of control's audit log and of training runs."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from agents.learn.lineage import is_learner
from app.page.document import Moment, ShownTraining
from schemas.events import AuditEvent
from schemas.runs import TRAINER, TrainingEvent

MOMENTS: Final = 60
What = Literal["registered", "training", "promoted", "rolled_back", "experiment", "shadow", "refused", "other"]
_KINDS: Final[dict[str, What]] = {
    "register": "registered",
    "promote": "promoted",
    "succeed": "promoted",
    "rollback": "rolled_back",
    "start": "experiment",
    "reshare": "experiment",
    "stop": "experiment",
    "shadow": "shadow",
    "unshadow": "shadow",
}


class TimelineFold:
    """The fold of `<s>.audit` and `<s>.training`: the newest sixty moments of each, and what training is at.

    A training run is one moment: its end, or as long as there is none its beginning. Of routine (what a learner does
    over and over with its snapshots, and runs that are skipped) only the newest is kept, with how often, and comes
    last: it would push out everything else.
    """

    def __init__(self) -> None:
        self.trained_ms = 0
        """When a run last ended with a model, good enough or not."""
        self._newest: TrainingEvent | None = None
        self._decided: deque[Moment] = deque(maxlen=MOMENTS)
        self._trained: dict[str, Moment] = {}
        self._routine: dict[tuple[str, str], Moment] = {}
        self._times: Counter[tuple[str, str]] = Counter()

    def take_audit(self, event: AuditEvent) -> None:
        """Go on with a later command's outcome."""
        if event.outcome == "refused" or not is_learner(event.issued_by):
            self._decided.append(_decision(event))
            return
        self._repeat((event.issued_by, event.action), _decision(event))

    def take_training(self, event: TrainingEvent) -> None:
        """Go on with what a run is at later."""
        before, self._newest = self._newest, event
        began = before is None or (before.run_id, before.attempt) != (event.run_id, event.attempt)
        if event.outcome in ("accepted", "rejected"):
            self.trained_ms = max(self.trained_ms, event.time_ms)
        if event.outcome == "skipped":
            self._trained.pop(event.run_id, None)
            self._repeat((TRAINER, "skipped"), _training(event))
        elif began or event.phase == "ended":
            self._trained.pop(event.run_id, None)
            self._trained[event.run_id] = _training(event)
            if len(self._trained) > MOMENTS:
                del self._trained[next(iter(self._trained))]

    def _repeat(self, kind: tuple[str, str], moment: Moment) -> None:
        self._times[kind] += 1
        detail = f"{moment.detail}, {self._times[kind]:,} times in what this page has read"
        self._routine[kind] = msgspec.structs.replace(moment, what="other", detail=detail)

    def moments(self) -> tuple[Moment, ...]:
        """Return the newest moments, the newest first, and then the routine."""
        told = _newest_first((*self._decided, *self._trained.values()))[:MOMENTS]
        return (*told, *_newest_first(self._routine.values()))

    def training(self) -> ShownTraining | None:
        """Return the run that spoke last."""
        event = self._newest
        if event is None:
            return None
        return ShownTraining(
            run_id=event.run_id,
            phase=event.phase,
            share=event.share,
            outcome=event.outcome,
            message=event.message,
            time_ms=event.time_ms,
        )


def _newest_first(moments: Iterable[Moment]) -> list[Moment]:
    return sorted(moments, key=lambda moment: moment.time_ms, reverse=True)


def _decision(event: AuditEvent) -> Moment:
    who = event.issued_by or "somebody"
    asked = f"{who}: {event.asked_reason}" if event.asked_reason else who
    subject = event.model_id or event.experiment_id
    if event.outcome == "refused":
        title = " ".join(filter(None, (event.action, subject, "was refused")))
        return Moment(time_ms=event.decided_time_ms, what="refused", title=title, detail=f"{event.reason} ({asked})")
    title, detail = event.reason, asked
    if event.action == "register" and subject not in title:
        title, detail = f"model {subject} is registered", f"{event.reason} ({asked})"
    return Moment(time_ms=event.decided_time_ms, what=_KINDS.get(event.action, "other"), title=title, detail=detail)


def _training(event: TrainingEvent) -> Moment:
    because = event.asked_because or ", ".join(event.reasons)
    if event.phase == "ended":
        detail = "; ".join(filter(None, (event.message, event.follow_up))) + f" (asked for: {because})"
        title = f"training {event.run_id} {event.outcome}" + (f": {event.model_id}" if event.model_id else "")
        return Moment(time_ms=event.time_ms, what="training", title=title, detail=detail)
    title = f"training {event.run_id} began" + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
    return Moment(time_ms=event.started_time_ms, what="training", title=title, detail=f"asked for: {because}")
