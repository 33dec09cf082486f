"""The compare stage says the same, once, whenever it is restarted."""

import asyncio
from typing import Any, NamedTuple

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Deployment
from schemas.experiments import ServedCount
from tests.comparing import (
    DAWN,
    SAMPLES,
    SECOND,
    SPEC,
    VARIANTS,
    Bench,
    counts_of,
    deployment_of,
    experiment_of,
    reshared_to,
    sample_in,
    shadow_of,
)

ROLLOUT = experiment_of("r", share=0.5, steps=(0.5, 1.0), min_samples=40, margin=0.3)
HISTORY = [
    deployment_of(1, shadows=("m9",)),
    deployment_of(2, experiment_of("x", {"b": "m2", "c": "m3"}, share=0.3), shadows=("m9",)),
    deployment_of(3, experiment_of("x", {"b": "m4", "c": "m3"}, share=0.3)),
    deployment_of(4, champion="m2", shadows=("m9", "m8")),
    deployment_of(5, ROLLOUT, champion="m2", shadows=("m9",)),
    deployment_of(6, reshared_to(ROLLOUT, 1.0), champion="m2", shadows=("m9",)),
    deployment_of(7, champion="m2", shadows=("m9",)),
    deployment_of(8, experiment_of("z", share=0.4, min_samples=30), shadows=("m9",)),
]
SAMPLES_OF_EACH = 150
RIPENING = msgspec.structs.replace(SPEC, evaluation=msgspec.structs.replace(SPEC.evaluation, maturity_minutes=1))


class Step(NamedTuple):
    """So many records of both logs are processed, then it is committed, or not; after a commit it may be restarted.

    The deployments that they name are known before, or only once somebody waits for them.
    """

    samples: int
    counts: int
    known: bool
    then: str


STEPS = st.lists(
    st.builds(
        Step,
        st.integers(0, 120),
        st.integers(0, 12),
        st.booleans(),
        st.sampled_from(["commit", "restart", "restart", "go on"]),
    ),
    min_size=10,
    max_size=40,
)


def _write(bench: Bench, seed: int) -> None:
    """Fill the logs: of each deployment some samples, some of them late or corrected, and counts."""
    random = np.random.default_rng(seed)
    i = 0
    for deployment in HISTORY:
        samples: list[Any] = []
        for _ in range(SAMPLES_OF_EACH):
            delay_ms = int(random.choice([10, 40 * SECOND, 200 * SECOND], p=[0.9, 0.08, 0.02]))
            first = sample_in(i, deployment)
            time_ms = first.event_time_ms + delay_ms
            right = bool(random.random() < (0.5 if first.variant == "champion" else 0.9))
            samples.append(sample_in(i, deployment, right=right, label_time_ms=time_ms))
            if random.random() < 0.05:
                again = {"revision": 1, "label": 1 - i % 2, "replaces": i % 2, "label_time_ms": time_ms + SECOND}
                samples.append(sample_in(i, deployment, right=right, **again))
            i += 1
        bench.write(sample for sample in samples)
        bench.write(_counts(deployment, int(random.integers(50, 400)), random, i) for _ in range(12))


def _counts(deployment: Deployment, n: int, random: np.random.Generator, i: int) -> Any:
    names = [variant.name for variant in deployment.experiment.variants] if deployment.experiment else []
    served = {
        name: ServedCount(variant=name, model_id="m", n=n, errors=int(random.random() < 0.1), calls=3, call_us=n)
        for name in names
    }
    shadows = [shadow_of(n, int(random.integers(0, n)), shadow, shadow) for shadow in deployment.shadows]
    return counts_of(deployment.revision, shadows, to_time_ms=DAWN + i * SECOND, **served)


class World(Bench):
    """A bench in which deployments become known as the records name them, and not while the stage opens."""

    def __init__(self, seed: int, save_records: int) -> None:
        super().__init__(HISTORY[0], spec=RIPENING)
        self.save_records = save_records
        self.opening = False
        _write(self, seed)

    async def _caught_up(self) -> None:
        if not self.opening:
            await super()._caught_up()

    async def restart(self) -> None:
        self.opening = True
        await self.open()
        self.opening = False

    async def process(self, step: Step) -> bool:
        """Process the records of a step; return whether there were any."""
        found = False
        for source, n in ((SAMPLES, step.samples), (VARIANTS, step.counts)):
            batch = [entry for entry in self.logs[source] if entry.offset >= self._reached[source]][:n]
            named = [msgspec.json.decode(entry.value or b"")["deployment_revision"] for entry in batch]
            there = self.view.events[-1].revision
            news = [d for d in HISTORY if there < d.revision <= max(named, default=0)]
            if step.known:
                self.deploy(*news)
            else:
                self.coming = news
            found = await self.step(source, n) or found
            await self._caught_up()
        return found


async def _told(seed: int, steps: list[Step], save_records: int, restarts: bool) -> tuple[Any, ...]:
    world = World(seed, save_records)
    await world.restart()
    for step in steps:
        await world.process(step)
        if step.then != "go on":
            await world.commit()
        if step.then == "restart" and restarts:
            await world.restart()
    while await world.process(Step(40, 3, True, "restart")):
        await world.commit()
        if restarts:
            await world.restart()
    return world.reports, world.commands, world.alerts


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1_000), STEPS, st.sampled_from([1, 90, 100_000]))
def test_a_restart_after_any_commit_changes_nothing_of_what_is_said(
    seed: int, steps: list[Step], save_records: int
) -> None:
    whole = asyncio.run(_told(seed, steps, 100_000, restarts=False))
    assert asyncio.run(_told(seed, steps, save_records, restarts=True)) == whole
    reports, _, alerts = whole
    for experiment_id in {report.experiment_id for report in reports}:
        numbers = [report.number for report in reports if report.experiment_id == experiment_id]
        assert numbers == list(range(len(numbers)))
    assert len({alert.id for alert in alerts}) == len(alerts)


def test_the_made_up_logs_have_something_to_tell_of() -> None:
    reports, commands, alerts = asyncio.run(_told(1, [], 100_000, restarts=False))
    assert {report.experiment_id for report in reports} == {"", "x", "r", "z"}
    assert list(dict.fromkeys(command.correlation_id for command in commands)) == ["r-0-advance", "r-1-promote"]
    assert len(alerts) > 1
