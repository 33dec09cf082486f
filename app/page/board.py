"""The fold of a stream's topics into what the page shows of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from app.logs import event_of
from app.page.alerts import AlertFold
from app.page.document import Labels, State, StreamBoard
from app.page.drift import WINDOWS as DRIFT_WINDOWS
from app.page.drift import DriftFold
from app.page.flow import FlowMeter, Look
from app.page.kinds import Facts
from app.page.letters import LetterFold
from app.page.models import WINDOWS as FIGURE_WINDOWS
from app.page.models import ModelFold
from app.page.state import state_of
from app.page.timeline import MOMENTS, TimelineFold
from schemas.drift import DriftReport
from schemas.event import Event
from schemas.events import Alert, AuditEvent, DeadLetter, Deployment, ModelVersion, Performance
from schemas.experiments import ExperimentReport
from schemas.runs import TrainingEvent
from schemas.streams import StreamSpec
from stream.batches import Record, TopicPartition
from topics.specs import StreamTopics

READ_BACK: Final[Mapping[type[Event], int]] = {
    ModelVersion: 20_000,
    Deployment: 2_000,
    DriftReport: 2 * DRIFT_WINDOWS,
    Performance: 8 * FIGURE_WINDOWS,
    ExperimentReport: 20,
    AuditEvent: 4 * MOMENTS,
    TrainingEvent: 8 * MOMENTS,
    Alert: 1_000,
    DeadLetter: 100,
}
"""How many of the newest offsets of a topic are read at first, by what is in it; ends of transactions are among them.

They are what is shown, with room for those and for what replaces other records. A dead letter may have 90 KB.
"""


class StreamFold:
    """What is known of one stream. What a record is, its topic tells."""

    def __init__(self, spec: StreamSpec) -> None:
        self._spec = spec
        self._features = StreamTopics(spec.name).features
        self._flow = FlowMeter()
        self._letters = LetterFold()
        self._models = ModelFold()
        self._drift = DriftFold()
        self._timeline = TimelineFold()
        self._alerts = AlertFold(Facts(self._drift, self._models, self._timeline))
        self._takers: Mapping[type[Event], Callable[[Any], None]] = {
            ModelVersion: self._models.versions.take,
            Deployment: self._models.take_deployment,
            ExperimentReport: self._models.take_report,
            AuditEvent: self._timeline.take_audit,
            TrainingEvent: self._timeline.take_training,
            DeadLetter: self._letters.take,
        }
        self._timed_takers: Mapping[type[Event], Callable[[Any, int], None]] = {
            Alert: self._alerts.take,
            DriftReport: self._drift.take,
            Performance: self._models.take_performance,
        }

    def pass_over(self, kind: type[Event]) -> None:
        """Take into account that a topic of `kind` has older records, which are not read."""
        if kind is DeadLetter:
            self._letters.pass_over()

    def take(self, kind: type[Event], records: Sequence[Record]) -> None:
        """Go on with later records of a topic of `kind`; what is no such event is passed over."""
        for record in records:
            event = event_of(kind, record.value)
            if event is None:
                continue
            if kind in self._timed_takers:
                self._timed_takers[kind](event, record.timestamp)
            else:
                self._takers[kind](event)

    def look(self, look: Look) -> None:
        """Go on with a later look at the ends of the logs; an event that became a dead letter is answered, too."""
        answered = {
            partition: max(offset, min(self._letters.answered(self._place(partition)), look.ends[partition]))
            for partition, offset in look.answered.items()
        }
        self._flow.take(replace(look, answered=answered))

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._features, partition)

    def state(self, now_ms: int) -> State:
        """Return how the stream is; some tenths of a millisecond."""
        telling = self._alerts.telling(now_ms)
        return state_of(self._spec.name, now_ms, self._flow, self._models, self._drift, telling)

    def board(self, now_ms: int, pending: int | None = None) -> StreamBoard:
        """Return what is known by now; `pending` predictions wait for their label. About 2 ms."""
        newest, report = self._models.newest_window, self._drift.newest
        return StreamBoard(
            name=self._spec.name,
            task=self._spec.task,
            state=self.state(now_ms),
            flow=self._flow.flow(),
            models=self._models.models(),
            drift=self._drift.drift(over=report is not None and not self._models.scores(report.model_id)),
            labels=Labels(
                delay_p50_ms=newest.label_delay_p50_ms if newest else None,
                delay_p95_ms=newest.label_delay_p95_ms if newest else None,
                pending=pending,
            ),
            alerts=self._alerts.alerts(now_ms),
            timeline=self._timeline.moments(),
            dead_letters=self._letters.letters(),
            experiment=self._models.experiment(),
            training=self._timeline.training(),
        )
