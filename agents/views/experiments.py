"""What is shown of experiments and rollouts: their shares, and the newest report from `<s>.experiments`."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from agents.views.reading import KEPT_MS, Pieces, decoded
from agents.views.routing import MOST_EXPERIMENTS, Ran, Routing
from schemas.experiments import BUCKETS, ExperimentReport
from schemas.wire import encode
from stores.view_keys import experiment_key
from stores.views import Entry
from stream.batches import Record
from topics.specs import StreamTopics

MOST_REPORTS: Final = 20_000


class ExperimentView(msgspec.Struct, frozen=True, kw_only=True):
    """The value of an experiment's key. `shares` and `models` are by variant, those of the end if it does not run.

    `report` is the newest one, or null where there is none yet.
    """

    stream: str
    experiment_id: str
    kind: str
    running: bool
    deployment_revision: int
    epoch: int
    started_time_ms: int
    started_by: str
    shares: dict[str, float]
    models: dict[str, str]
    report: ExperimentReport | None


class _Told(msgspec.Struct):
    """Of which experiment a report tells: all that is read of one that is not the newest."""

    experiment_id: str


class ExperimentReports:
    """The fold of `<s>.experiments`: the newest report of each experiment."""

    def __init__(self, stream: str, routing: Routing) -> None:
        self._stream = stream
        self._routing = routing
        self._topic = StreamTopics(stream).experiments
        self._reports: dict[str, ExperimentReport] = {}  # the newest last
        self._shown: dict[str, tuple[Ran, ExperimentReport | None, Entry]] = {}

    async def recall(self, pieces: Pieces, oldest_ms: int) -> None:
        """Read back to a report of each experiment that was deployed, but not beyond `oldest_ms` or 20,000 reports.

        An old experiment with so many reports after it is shown without one.
        """
        missing, read = set(self._routing.experiments), 0
        async for records in pieces:
            self._reports = self._newest(records) | self._reports
            missing -= self._reports.keys()
            read += len(records)
            if not missing or read >= MOST_REPORTS or records[0].timestamp < oldest_ms:
                return

    def take(self, records: Sequence[Record]) -> None:
        """Go on with later records."""
        for experiment_id, report in self._newest(records).items():
            self._reports.pop(experiment_id, None)
            self._reports[experiment_id] = report
        while len(self._reports) > MOST_EXPERIMENTS:
            del self._reports[next(iter(self._reports))]

    def _newest(self, records: Sequence[Record]) -> dict[str, ExperimentReport]:
        """Return the last report of each experiment, the newest last."""
        found: dict[str, ExperimentReport] = {}
        for record in reversed(records):
            told = decoded(_Told, record, self._topic)
            if told is None or not told.experiment_id or told.experiment_id in found:
                continue  # without an experiment it tells of shadows only
            report = decoded(ExperimentReport, record, self._topic)
            if report is not None:
                found[report.experiment_id] = report
        return dict(reversed(found.items()))

    def entries(self) -> Mapping[str, Entry]:
        """Return what is to be shown: experiments that were deployed. One that ended goes after 30 days."""
        shown: dict[str, tuple[Ran, ExperimentReport | None, Entry]] = {}
        for experiment_id, ran in self._routing.experiments.items():
            report = self._reports.get(experiment_id)
            before = self._shown.get(experiment_id)
            same = before is not None and before[0] is ran and before[1] is report
            shown[experiment_id] = before if before is not None and same else (ran, report, self._entry(ran, report))
        self._shown = shown
        return {experiment_key(self._stream, name): entry for name, (_, _, entry) in shown.items()}

    def _entry(self, ran: Ran, report: ExperimentReport | None) -> Entry:
        experiment = ran.experiment
        value = ExperimentView(
            stream=self._stream,
            experiment_id=experiment.experiment_id,
            kind=experiment.kind,
            running=ran.ended_ms is None,
            deployment_revision=ran.deployment_revision,
            epoch=experiment.epoch,
            started_time_ms=experiment.started_time_ms,
            started_by=experiment.started_by,
            shares={variant.name: variant.buckets / BUCKETS for variant in experiment.variants},
            models={variant.name: variant.model_id for variant in experiment.variants},
            report=report,
        )
        return Entry(encode(value), None if ran.ended_ms is None else ran.ended_ms + KEPT_MS)
