"""One experiment as it is followed: its monitor, what was put into it, and what it is judged by."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from agents.compare.history import History
from agents.compare.reader import ComparedSample, CompareReader
from ml.errors import CountsInvalid
from ml.evaluation.tally import Scoring
from ml.experiments.monitor import MAX_EPOCHS, Counted, Monitor, Rules
from schemas.events import Deployment
from schemas.experiments import Experiment, VariantCounts
from schemas.streams import StreamSpec

SAMPLES_STEP = 10  # so many more, and a look is worth its cost
EVENTS_STEP = 100

log = logging.getLogger("penstock.compare")


class Marks(NamedTuple):
    """How far an experiment has come, in the steps in which it is looked at."""

    samples: int
    events: int
    epoch: int


class TrackedState(msgspec.Struct, frozen=True, array_like=True):
    """A Tracked at rest."""

    samples: int
    events: int
    to_time_ms: int
    monitor: bytes


class Tracked:
    """The fold of both logs for one experiment. Of the two, none needs the other: in any order they give the same.

    `deployment` is the newest that has the experiment. `events` were scored under it, `samples` have come of them;
    `to_time_ms` is the newest event time of either.
    """

    def __init__(self, spec: StreamSpec, reader: CompareReader, history: History, deployment: Deployment) -> None:
        assert deployment.experiment is not None
        self.rules = rules_of(deployment.experiment, spec)
        self.monitor = Monitor(self.rules, [])
        self.events = 0
        self.samples = 0
        self.to_time_ms = 0
        self._deployment = deployment
        self._reader = reader
        self._history = history
        self._places = {variant.name: place for place, variant in enumerate(deployment.experiment.variants)}
        self.follow()

    @property
    def deployment(self) -> Deployment:
        """The newest deployment that has the experiment."""
        return self._deployment

    @property
    def experiment(self) -> Experiment:
        """The experiment as it is by now."""
        assert self._deployment.experiment is not None
        return self._deployment.experiment

    @property
    def marks(self) -> Marks:
        """How far it has come. What a restart restores gives the same, whatever was looked at before."""
        return Marks(self.samples // SAMPLES_STEP, self.events // EVENTS_STEP, self.experiment.epoch)

    def follow(self) -> None:
        """Take over what the deployments say by now: a new epoch, or another model of a variant.

        What comes of epochs beyond MAX_EPOCHS is passed over.
        """
        experiment_id = self.experiment.experiment_id
        self._deployment = self._history.newest_of(experiment_id) or self._deployment
        for table in self._history.tables(experiment_id)[self.monitor.epochs : MAX_EPOCHS]:
            self.monitor.add_epoch(table)
        known = self._history.epochs(experiment_id)
        self._epochs = {revision: epoch for revision, epoch in known.items() if epoch < MAX_EPOCHS}

    def take(self, samples: Sequence[ComparedSample]) -> None:
        """Fold samples; those that are not of the experiment are passed over."""
        outcomes = self._reader.outcomes(samples, self.experiment, self._epochs)
        if outcomes is not None:
            self.monitor.take(outcomes)
            self.samples += len(outcomes)
            self.to_time_ms = max(self.to_time_ms, int(outcomes.event_times_ms.max()))

    def count(self, counts: Sequence[VariantCounts]) -> None:
        """Fold counts; those that are not of the experiment are passed over. About 3 µs for each."""
        for one in counts:
            if one.deployment_revision not in self._epochs:
                continue
            counted = list(self._counted(one))
            try:
                self.monitor.count(counted)
            except CountsInvalid as error:
                log.warning("stream %s: counts of partition %d are left out: %s", one.stream, one.partition, error)
                continue
            self.events += sum(part.n for part in counted)
            self.to_time_ms = max(self.to_time_ms, one.to_time_ms)

    def _counted(self, one: VariantCounts) -> Iterator[Counted]:
        for served in one.variants:
            if served.variant in self._places:
                yield Counted(
                    epoch=self._epochs[one.deployment_revision],
                    variant=self._places[served.variant],
                    n=served.n,
                    errors=served.errors,
                    calls=served.calls,
                    call_us=served.call_us,
                    slow_calls=served.slow_calls,
                    scores=served.scores,
                )

    def dump(self) -> TrackedState:
        """Return the state; as long as the monitor takes."""
        return TrackedState(self.samples, self.events, self.to_time_ms, self.monitor.dump())

    def load(self, state: TrackedState) -> None:
        """Take over a state of the same experiment and rules. Raises what Monitor.load does, and is spoilt then."""
        self.monitor.load(state.monitor)
        self.samples, self.events, self.to_time_ms = state.samples, state.events, state.to_time_ms


def rules_of(experiment: Experiment, spec: StreamSpec) -> Rules:
    """Return what the experiment's plan and the stream's declaration say, in the words of `ml`."""
    plan = experiment.plan
    return Rules(
        kind=experiment.kind,
        variants=tuple(variant.name for variant in experiment.variants),
        scoring=Scoring(spec.task, len(spec.classes) or 2, spec.threshold),
        metric=plan.metric,
        guard_metrics=tuple(metric for metric in dict.fromkeys(plan.guard_metrics) if metric != plan.metric),
        false_positive_cost=plan.false_positive_cost,
        false_negative_cost=plan.false_negative_cost,
        alpha=plan.alpha,
        margin=plan.margin,
        min_samples=plan.min_samples,
        max_error_share=plan.max_error_share,
        max_call_ms=plan.max_call_ms,
        max_score_psi=plan.max_score_psi,
        steps=plan.steps,
        automatic=plan.automatic,
        ripens_ms=spec.ripens_ms,
    )
