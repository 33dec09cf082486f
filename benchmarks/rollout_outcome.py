"""What a chaos run of rollouts has left on Kafka, held against what it should be."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from app.demo.flights import STREAM
from benchmarks.checker import Place, Scored, Sent, tally
from benchmarks.plain import Kafka
from benchmarks.rollout_checker import EpochShare, Routing, Seen, assigned, shares, table_flaws
from benchmarks.rollout_models import STEPS
from benchmarks.rollout_steps import log_flaws, reasons, repeated_answers, report_flaws, step_flaws, steps
from schemas.events import AuditEvent, Deployment
from schemas.experiments import CHAMPION, ExperimentReport
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(STREAM)


class _Prediction(msgspec.Struct):
    event_id: str
    entity_id: str
    deployment_revision: int
    variant: str
    model_id: str
    partition: int
    offset: int


class _DeadLetter(msgspec.Struct):
    partition: int
    offset: int


class Outcome:
    """What is committed, beside what should be. A fault that is planted is in the predictions as they were read.

    `names` calls the models by what they are in the run: january, better and worse. `rollbacks` is how often a person
    has rolled back in the end, and promoted the better model again.
    """

    def __init__(
        self, cluster: Kafka, journal: Path, names: Mapping[str, str], rollbacks: int, plant: str | None
    ) -> None:
        self._cluster = cluster
        self._names = names
        self._deployments = self._read(_TOPICS.deployments, Deployment)
        self._audit = self._read(_TOPICS.audit, AuditEvent)
        self._reports = self._read(_TOPICS.experiments, ExperimentReport)
        self._seen = [_seen(each) for each in self._read(_TOPICS.predictions, _Prediction)]
        if plant is not None:
            _PLANTS[plant](self._seen)
        routing = Routing(self._deployments, sorted({one.entity_id for one in self._seen}))
        self._events = tally(
            list(_sent(journal)),
            (Scored(one.event_id, one.place) for one in self._seen),
            [Place(letter.partition, letter.offset) for letter in self._read(_TOPICS.features_dead, _DeadLetter)],
        )
        self._assigned = assigned(routing, self._seen)
        self._shares = shares(routing, self._seen, _asked(self._deployments))
        self._steps = steps(self._deployments, self._audit, names)
        self._flaws = [
            *step_flaws(self._steps, STEPS, rollbacks),
            *log_flaws(self._deployments, self._audit),
            *table_flaws(self._deployments),
            *report_flaws(self._reports),
            *(
                f"the share of {self._where(share)} is {share.z:.1f} deviations off"
                for share in self._shares
                if not share.right
            ),
        ]

    @property
    def right(self) -> bool:
        """Whether everything is as it should be."""
        return self._events.right and self._assigned.right and self.champion == "better" and not self._flaws

    @property
    def champion(self) -> str:
        """What serves in the end."""
        return self._name(self._deployments[-1].champion) if self._deployments else ""

    def as_dict(self) -> dict[str, Any]:
        """Return what was found, for a person and for a program."""
        own = [(step.action, step.model) for step in self._steps if step.by == "itself"]
        return {
            "promoted": ("promote", "better") in own,
            "rolled_back": ("stop", "worse") in own and ("promote", "worse") not in own,
            "champion": self.champion,
            "steps": [step._asdict() for step in self._steps],
            "why": reasons(self._reports, self._names),
            **self._events.as_dict(),
            **self._assigned.as_dict(),
            "shares": {self._where(share): _rounded(share) for share in self._shares},
            "reports": len(self._reports),
            "repeated_answers": repeated_answers(self._deployments, self._audit),
            **({"differences": self._flaws} if self._flaws else {}),
        }

    def _where(self, share: EpochShare) -> str:
        return f"{self._name(share.model_id)}, epoch {share.epoch}"

    def _name(self, model_id: str) -> str:
        return self._names.get(model_id, model_id)

    def _read(self, topic: str, kind: type[Any]) -> list[Any]:
        decode = msgspec.json.Decoder(kind).decode
        return [decode(row.value or b"") for row in self._cluster.read(topic)]


def _seen(prediction: _Prediction) -> Seen:
    return Seen(
        event_id=prediction.event_id,
        entity_id=prediction.entity_id,
        place=Place(prediction.partition, prediction.offset),
        revision=prediction.deployment_revision,
        variant=prediction.variant,
        model_id=prediction.model_id,
    )


def _sent(journal: Path) -> Iterator[Sent]:
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            event_id, partition, offset = line.split()
            yield Sent(event_id, Place(int(partition), int(offset)), good=True)


def _asked(deployments: list[Deployment]) -> dict[int, float]:
    """Return the share that each epoch of a rollout should have, by revision, from the declared steps alone."""
    running = {d.revision: d.experiment.epoch for d in deployments if d.experiment is not None}
    return {revision: STEPS[epoch] for revision, epoch in running.items() if epoch < len(STEPS)}


def _rounded(share: EpochShare) -> dict[str, float]:
    return {
        "asked": share.asked,
        "observed": round(share.observed, 4),
        "z": round(share.z, 2),
        "events": share.events,
        "entities": share.entities,
    }


def _skip(seen: list[Seen]) -> None:
    del seen[len(seen) // 2]


def _double(seen: list[Seen]) -> None:
    seen.append(seen[len(seen) // 2])


def _swap(seen: list[Seen]) -> None:
    """Call the last prediction by a challenger one by the champion."""
    position = max(position for position, one in enumerate(seen) if one.variant != CHAMPION)
    seen[position] = seen[position]._replace(variant=CHAMPION)


_PLANTS: Final[Mapping[str, Callable[[list[Seen]], None]]] = {"skip": _skip, "double": _double, "swap": _swap}
