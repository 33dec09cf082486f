"""What a chaos run of two rollouts leaves in its topics when nothing goes wrong."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.demo.flights import STREAM
from benchmarks.plain import Row
from benchmarks.rollout_outcome import Outcome
from ml.experiments.assignment import BUCKETS, buckets_of, expanded, initial_table, reshared
from schemas.events import AuditEvent, Deployment
from schemas.experiments import (
    CHAMPION,
    Contrast,
    Experiment,
    ExperimentPlan,
    ExperimentReport,
    GuardrailState,
    Variant,
    VariantFigures,
)

PLAN = ExperimentPlan(metric="brier", steps=(0.1, 0.5, 1.0))
NAMES = {"m-january": "january", "m-better": "better", "m-worse": "worse"}
ENTITIES = [f"N{number:05d}" for number in range(1_000)]
EVENTS = 1_500  # in each revision
REPLACE = msgspec.structs.replace


def experiment(name: str, champion: str, challenger: str, counts: Sequence[int], epoch: int = 0) -> Experiment:
    table = initial_table([9_000, 1_000])
    table = table if epoch == 0 else reshared(table, counts)
    return Experiment(
        experiment_id=name,
        kind="rollout",
        plan=PLAN,
        salt=f"{STREAM}/{name}",
        variants=(
            Variant(name=CHAMPION, model_id=champion, buckets=counts[0]),
            Variant(name="challenger", model_id=challenger, buckets=counts[1]),
        ),
        table=table,
        epoch=epoch,
    )


def deployments() -> list[Deployment]:
    better = ("r1", "m-january", "m-better")
    told: list[tuple[str, str, Experiment | None]] = [
        ("m-january", "anna", None),
        ("m-january", "anna", experiment(*better, (9_000, 1_000))),
        ("m-january", "rollout r1", experiment(*better, (5_000, 5_000), 1)),
        ("m-january", "rollout r1", experiment(*better, (0, 10_000), 2)),
        ("m-better", "rollout r1", None),
        ("m-better", "anna", experiment("r2", "m-better", "m-worse", (9_000, 1_000))),
        ("m-better", "rollout r2", None),
        ("m-january", "anna", None),
        ("m-better", "anna", None),
    ]
    return [
        Deployment(
            stream=STREAM,
            revision=number,
            champion=champion,
            changed_time_ms=number,
            changed_by=by,
            correlation_id=f"c{number}",
            experiment=running,
        )
        for number, (champion, by, running) in enumerate(told, start=1)
    ]


ACTIONS = ("promote", "start", "reshare", "reshare", "promote", "start", "stop", "rollback", "promote")


def audit() -> list[AuditEvent]:
    return [
        AuditEvent(
            stream=STREAM,
            correlation_id=f"c{number}",
            action=action,
            issued_by="",
            outcome="done",
            reason="",
            model_id="",
            revision=number,
            decided_time_ms=number,
        )
        for number, action in enumerate(ACTIONS, start=1)
    ]


def report(number: int, step: str) -> ExperimentReport:
    figures = VariantFigures(
        variant="challenger",
        model_id="m-better",
        share=0.1,
        events=0,
        errors=0,
        call_ms=None,
        score_psi=None,
        samples=0,
        buckets=0,
        means={},
        f1=None,
        roc_auc=None,
    )
    contrast = Contrast(variant="challenger", metric="brier", difference=0.04, low=0.01, high=0.07, p_value=0.0)
    guardrail = GuardrailState(variant="challenger", name="scores", holds=False, value=2.0, limit=1.0, reason="")
    return ExperimentReport(
        stream=STREAM,
        experiment_id="r1",
        kind="rollout",
        deployment_revision=2,
        epoch=0,
        number=number,
        to_time_ms=0,
        plan=PLAN,
        samples=3_000,
        ripening=0,
        variants=(figures,),
        contrasts=(contrast,),
        guardrails=(guardrail,),
        shadows=(),
        sample_ratio_p=None,
        verdict="better",
        winner="",
        step=step,  # type: ignore[arg-type]
        why="it is better",
    )


def predictions(of: Sequence[Deployment]) -> list[dict[str, Any]]:
    """What is served when everything goes well: entities drawn at random, each always on the same partition."""
    random, made, offsets = np.random.default_rng(1), [], [0, 0, 0, 0]
    for deployment in of:
        arms = served_by(deployment)
        for entity in random.integers(len(ENTITIES), size=EVENTS).tolist():
            partition, variant = entity % 4, arms[entity]
            made.append(
                {
                    "event_id": f"e{len(made)}",
                    "entity_id": ENTITIES[entity],
                    "partition": partition,
                    "offset": offsets[partition],
                    "deployment_revision": deployment.revision,
                    "variant": variant.name,
                    "model_id": variant.model_id,
                }
            )
            offsets[partition] += 1
    return made


def served_by(deployment: Deployment) -> list[Variant]:
    """The variant of each entity."""
    if deployment.experiment is None:
        return [Variant(name=CHAMPION, model_id=deployment.champion, buckets=BUCKETS)] * len(ENTITIES)
    buckets = buckets_of([entity.encode() for entity in ENTITIES], deployment.experiment.salt)
    positions = expanded(deployment.experiment.table)[buckets].tolist()
    return [deployment.experiment.variants[position] for position in positions]


@cache
def journaled() -> list[dict[str, Any]]:
    return predictions(deployments())


class FakeKafka:
    """Topics with what a run without any flaw leaves."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "journal"
        self.journal.write_text("".join(f"{p['event_id']} {p['partition']} {p['offset']}\n" for p in journaled()))
        self.topics: dict[str, list[Any]] = {
            "predictions": [dict(served) for served in journaled()],
            "deployments": deployments(),
            "audit": [
                *[REPLACE(audit()[0], action="register", correlation_id=f"register-{name}") for name in NAMES],
                *audit(),
            ],
            "experiments": [report(0, "hold"), report(1, "advance"), report(2, "advance")],
        }

    def read(self, topic: str) -> Iterator[Row]:
        for offset, event in enumerate(self.topics.get(topic.removeprefix(f"{STREAM}."), [])):
            yield Row(b"", msgspec.json.encode(event), 0, offset, 0)

    def outcome(self, plant: str | None = None, rollbacks: int = 1) -> Outcome:
        cluster: Any = self
        return Outcome(cluster, self.journal, NAMES, rollbacks, plant)

    def change(self, topic: str, position: int, **changes: Any) -> None:
        self.topics[topic][position] = REPLACE(self.topics[topic][position], **changes)

    def only(self, revision: int, variant: str) -> list[dict[str, Any]]:
        return [
            served
            for served in self.topics["predictions"]
            if (served["deployment_revision"], served["variant"]) == (revision, variant)
        ]
