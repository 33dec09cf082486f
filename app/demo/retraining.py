"""What is said of training anew while the flights pass: runs that ended, and champions that took over."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from app.demo.feedback import Record
from schemas.wire import decoder
from topics import StreamTopics

ENDED: Final = "ended"


class SeenRun(msgspec.Struct, frozen=True, gc=False):
    """The fields of a TrainingEvent that are counted or shown."""

    run_id: str
    phase: str
    reasons: tuple[str, ...] = ()
    outcome: str | None = None
    message: str = ""
    follow_up: str = ""
    model_id: str = ""
    samples: int = 0


class SeenExperiment(msgspec.Struct, frozen=True, gc=False):
    """The fields of an Experiment that are shown."""

    experiment_id: str


class SeenDeployment(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Deployment that are counted or shown."""

    champion: str
    changed_by: str
    reason: str = ""
    experiment: SeenExperiment | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """A trained model that took over: who asked for that, and the newest event that had been scored by then."""

    model_id: str
    changed_by: str
    event_time_ms: int


class Retraining:
    """What a stream says of training; `event_time_ms` tells how far the stream is.

    `news` are sentences for people, which whoever shows them takes away.
    """

    def __init__(self, topics: StreamTopics, event_time_ms: Callable[[], int]) -> None:
        self.takers: dict[str, Callable[[Record], None]] = {
            topics.training: self._take_run,
            topics.deployments: self._take_deployment,
        }
        self._event_time_ms = event_time_ms
        self._deployed: SeenDeployment | None = None
        self._made: set[str] = set()
        self._ended: dict[str, SeenRun] = {}
        self.now: SeenRun | None = None
        self.repeated = 0
        self.promotions: list[Promotion] = []
        self.news: list[str] = []

    @property
    def ended(self) -> list[SeenRun]:
        """The runs that ended, in that order."""
        return list(self._ended.values())

    @property
    def outcomes(self) -> Counter[str]:
        """How many runs came to each outcome."""
        return Counter(run.outcome or "" for run in self._ended.values())

    def _take_run(self, record: Record) -> None:
        run = decoder(SeenRun).decode(record.value or b"")
        if run.phase != ENDED:
            self.now = run
            return
        self.now = None
        if run.run_id in self._ended:
            self.repeated += 1
            return
        self._ended[run.run_id] = run
        if run.outcome == "skipped":
            return
        if run.model_id:
            self._made.add(run.model_id)
        follow_up = f"; {run.follow_up}" if run.follow_up else ""
        self.news.append(f"training for {' and '.join(run.reasons)}: {run.outcome}, {run.message}{follow_up}")

    def _take_deployment(self, record: Record) -> None:
        deployment = decoder(SeenDeployment).decode(record.value or b"")
        before, self._deployed = self._deployed, deployment
        if before is None:
            return
        if deployment.champion != before.champion and deployment.champion in self._made:
            self.promotions.append(Promotion(deployment.champion, deployment.changed_by, self._event_time_ms()))
            self.news.append(f"new champion {deployment.champion}, by {deployment.changed_by}: {deployment.reason}")
        elif before.experiment is not None and deployment.experiment is None:
            ended = before.experiment.experiment_id
            self.news.append(f"rollout {ended} ends, and the champion stays: {deployment.reason}")
