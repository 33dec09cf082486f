"""The fold of a stream's topics into what the page shows of it: records in, a document out, and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from app.logs import event_of
from app.page.alerts import AlertFold
from app.page.document import Labels, StreamBoard
from app.page.drifting import WINDOWS as DRIFT_WINDOWS
from app.page.drifting import DriftFold
from app.page.flow import FlowMeter, Look
from app.page.letters import LetterFold
from app.page.modelling import WINDOWS as FIGURE_WINDOWS
from app.page.modelling import ModelFold
from app.page.state import state_of
from app.page.timeline import MOMENTS, TimelineFold
from schemas.drift import DriftReport
from schemas.event import Event
from schemas.events import Alert, AuditEvent, DeadLetter, Deployment, ModelVersion, Performance
from schemas.experiments import ExperimentReport
from schemas.runs import TrainingEvent
from schemas.streams import StreamSpec
from stream.batches import Record

READ_BACK: Final[Mapping[type[Event], int]] = {
    ModelVersion: 20_000,
    Deployment: 2_000,
    DriftReport: 2 * DRIFT_WINDOWS,
    Performance: 8 * FIGURE_WINDOWS,
    ExperimentReport: 20,
    AuditEvent: 4 * MOMENTS,
    TrainingEvent: 8 * MOMENTS,
    Alert: 200,
    DeadLetter: 100,
}
"""How many of the newest offsets of a topic are read at first, by what is in it; ends of transactions are among them.

They are what is shown, with room for those and for what replaces other records. A dead letter may have 90 KB.
"""


class StreamFold:
    """What is known of one stream. What a record is, its topic tells."""

    def __init__(self, spec: StreamSpec) -> None:
        self.letters = LetterFold()
        self.flow = FlowMeter()
        self.samples: int | None = None
        self.pending: int | None = None
        self._spec = spec
        self._models = ModelFold(spec)
        self._drift = DriftFold()
        self._timeline = TimelineFold()
        self._alerts = AlertFold(self._drift, self._models)
        self._takers: Mapping[type[Event], Callable[[Any], None]] = {
            ModelVersion: self._models.take_version,
            Deployment: self._models.take_deployment,
            ExperimentReport: self._models.take_report,
            DriftReport: self._drift.take,
            AuditEvent: self._timeline.take_audit,
            TrainingEvent: self._timeline.take_training,
            DeadLetter: self.letters.take,
        }

    def take(self, kind: type[Event], records: Sequence[Record]) -> None:
        """Go on with later records of a topic of `kind`; what is no such event is passed over."""
        for record in records:
            event = event_of(kind, record.value)
            if isinstance(event, Alert):
                self._alerts.take(event, record.timestamp)
            elif isinstance(event, Performance):
                self._models.take_performance(event, record.timestamp)
            elif event is not None:
                self._takers[kind](event)

    def look(self, look: Look) -> None:
        """Go on with a later look at the ends of the logs."""
        self.flow.take(look)

    def board(self, now_ms: int) -> StreamBoard:
        """Return what is known by now."""
        flow, models, drift = self.flow.flow(), self._models.models(), self._drift.drift()
        alerts = self._alerts.alerts(now_ms, self._timeline.trained_ms)
        newest = self._models.newest_window
        return StreamBoard(
            name=self._spec.name,
            task=self._spec.task,
            state=state_of(self._spec.name, flow, self.flow.stalled_ms, models, newest, drift, alerts),
            flow=flow,
            models=models,
            drift=drift,
            labels=Labels(
                delay_p50_ms=newest.label_delay_p50_ms if newest else None,
                delay_p95_ms=newest.label_delay_p95_ms if newest else None,
                pending=self.pending,
                samples=self.samples,
            ),
            alerts=alerts,
            timeline=self._timeline.moments(),
            dead_letters=self.letters.letters(),
            experiment=self._models.experiment(),
            training=self._timeline.training(),
        )
