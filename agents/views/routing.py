"""The fold of `<s>.deployments`: what each model is routed as, and which experiments there were of late."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agents.views.reading import Pieces, decoded
from schemas.events import Deployment
from schemas.experiments import Experiment
from stream.batches import Record
from topics.specs import StreamTopics

MOST_EXPERIMENTS: Final = 100


@dataclass(frozen=True, slots=True)
class Ran:
    """An experiment as the last deployment says that has it. `ended_ms` is when a later one had it no more, or None."""

    experiment: Experiment
    deployment_revision: int
    ended_ms: int | None = None


class Routing:
    """The newest deployment, and at most the newest hundred experiments by id, the oldest first."""

    def __init__(self, stream: str) -> None:
        self._topic = StreamTopics(stream).deployments
        self.current: Deployment | None = None
        self.experiments: dict[str, Ran] = {}

    async def recall(self, pieces: Pieces, oldest_ms: int) -> None:
        """Read back to what was routed at `oldest_ms`."""
        found: list[Sequence[Record]] = []
        async for records in pieces:
            found.append(records)
            if records[0].timestamp < oldest_ms:
                break
        for records in reversed(found):
            self.take(records)

    def take(self, records: Sequence[Record]) -> None:
        """Go on with later records."""
        for record in records:
            deployment = decoded(Deployment, record, self._topic)
            if deployment is not None:
                self._follow(deployment, record.timestamp)

    def _follow(self, deployment: Deployment, time_ms: int) -> None:
        before = self.current.experiment if self.current is not None else None
        self.current, now = deployment, deployment.experiment
        if before is not None and (now is None or now.experiment_id != before.experiment_id):
            ended = self.experiments[before.experiment_id]
            self.experiments[before.experiment_id] = replace(ended, ended_ms=time_ms)
        if now is not None:
            self.experiments.pop(now.experiment_id, None)  # the newest comes last
            self.experiments[now.experiment_id] = Ran(now, deployment.revision)
        while len(self.experiments) > MOST_EXPERIMENTS:
            del self.experiments[next(iter(self.experiments))]

    @property
    def assigning(self) -> str:
        """What entities are assigned by: the experiment, its epoch and the models of its variants; or nothing."""
        experiment = self.current.experiment if self.current is not None else None
        if experiment is None:
            return ""
        models = ",".join(variant.model_id for variant in experiment.variants)
        return f"{experiment.experiment_id}/{experiment.epoch}/{models}"

    def roles(self) -> Mapping[str, tuple[str, ...]]:
        """Return what each routed model is routed as, and which is the previous champion."""
        found: dict[str, tuple[str, ...]] = {}
        if self.current is None:
            return found
        named = [(self.current.champion, "champion")]
        if self.current.experiment is not None:  # its first variant is the champion
            named += [(variant.model_id, f"variant {variant.name}") for variant in self.current.experiment.variants[1:]]
        named += [(model_id, "shadow") for model_id in self.current.shadows]
        named += [(self.current.previous, "previous")]
        for model_id, role in named:
            found[model_id] = (*found.get(model_id, ()), role)
        return found
