"""Whatever is asked of control, in whatever order: the routing stays sound, and the statuses agree with it."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.registry import ALLOWED, Registry
from agents.routes import routes_of
from ml.experiments.assignment import expanded
from schemas.events import AuditEvent, Deployment, ModelVersion
from schemas.experiments import BUCKETS, ExperimentPlan
from schemas.wire import encode
from tests.controlling import COMMANDS, SPEC, Bench, command_of
from tests.support import version_of

LINEAGES = {"m1": "", "m2": "", "m3": "", "a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b"}
MODELS = st.sampled_from([*LINEAGES, "nobody"])
A_SHADOW, THE_RUNNING = "a shadow", "the one that runs"  # whichever it is by then
SHARES = st.dictionaries(st.sampled_from("bc"), st.sampled_from([0.0, 0.00001, 0.1, 0.35, 0.5, 1.0, 1.5]), max_size=2)
FIELDS = st.fixed_dictionaries(
    {
        "action": st.sampled_from(
            ["promote", "rollback", "succeed", "shadow", "unshadow", "move", "start", "start", "reshare", "stop"]
        ),
        "model_id": MODELS | st.just(""),
        "status": st.sampled_from([None, "draft", "testing", "staging", "production", "archived"]),
        "experiment_id": st.sampled_from(["", "x", "y", "z"]),
        "expected_epoch": st.sampled_from([None, None, 0, 1]),
        "plan": st.sampled_from(
            [None, ExperimentPlan(metric="cost"), ExperimentPlan(metric="brier", steps=(0.1, 0.35, 1.0))]
        ),
        "variants": st.dictionaries(st.sampled_from("bc"), MODELS, max_size=2),
        "shares": SHARES,
    }
)
GOOD = st.one_of(  # without these, few sequences would get as far as an experiment
    st.fixed_dictionaries({"action": st.just("promote"), "model_id": MODELS}),
    st.fixed_dictionaries({"action": st.just("rollback"), "model_id": st.just("")}),
    st.fixed_dictionaries({"action": st.sampled_from(["shadow", "succeed"]), "model_id": MODELS}),
    st.fixed_dictionaries({"action": st.just("unshadow"), "model_id": st.just(A_SHADOW)}),
    st.builds(
        lambda models, shares, name: {
            "action": "start",
            "model_id": "",
            "experiment_id": name,
            "plan": ExperimentPlan(metric="brier"),
            "variants": dict(zip("bc", models, strict=True)),
            "shares": dict(zip("bc", shares, strict=True)),
        },
        st.sampled_from([("m2", "b1"), ("m3", "m2"), ("m3", "a1"), ("b2", "a2"), ("m1", "a3"), ("a1", "a2")]),
        st.lists(st.sampled_from([0.05, 0.123, 0.3]), min_size=2, max_size=2),
        st.sampled_from(["x", "y", "z"]),
    ),
    st.fixed_dictionaries(
        {
            "action": st.sampled_from(["reshare", "reshare", "stop"]),
            "model_id": st.just(""),
            "experiment_id": st.just(THE_RUNNING),
            "shares": st.fixed_dictionaries({"b": st.sampled_from([0.1, 0.4]), "c": st.sampled_from([0.0, 0.2, 0.6])}),
        }
    ),
)
STORIES = st.lists(st.tuples(st.one_of(GOOD, FIELDS), st.integers(0, 19)), max_size=25)


def _versions() -> list[ModelVersion]:
    return [
        msgspec.structs.replace(version_of(SPEC, model_id), lineage=lineage, samples_offset=int(model_id[1:]))
        for model_id, lineage in LINEAGES.items()
    ]


class Story:
    """Sends commands and looks after each at what was written."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.bench.models.fold(map(encode, _versions()))
        self.registry = Registry(self.bench.models)

    @property
    def history(self) -> list[Deployment]:
        return self.bench.deployments.events

    async def tell(self, number: int, fields: dict[str, Any], stale: bool) -> None:
        revision = self.history[-1].revision if self.history else 0
        routes, wished = routes_of(self.history), fields["action"] == "succeed"
        if fields["model_id"] == A_SHADOW:
            fields = fields | {"model_id": next(iter(routes.shadows), "")}
        if fields.get("experiment_id") == THE_RUNNING:
            fields = fields | {"experiment_id": routes.experiment.experiment_id if routes.experiment else ""}
        command = command_of(
            expected_revision=None if wished else revision + stale, correlation_id=f"c{number}", **fields
        )
        before = dict(self.registry.versions)
        [answer] = await self._send(command)
        self._check(answer, revision, before)
        routing, statuses = len(self.history), dict(self.registry.versions)
        if answer.outcome == "done":
            [again] = await self._send(command)
            assert again == answer
            assert (len(self.history), self.registry.versions) == (routing, statuses)

    async def _send(self, command: bytes) -> list[AuditEvent]:
        self.bench.written.clear()
        answers = await self.bench.take(command)
        self.bench.deployments.fold(value for _, value in self.bench.written["flights.deployments"])
        self.bench.models.fold(value for _, value in self.bench.written["flights.models"])
        await self.bench.control.open({COMMANDS: 0})  # and whatever it knows, it knows from its logs
        return answers

    def _check(self, answer: AuditEvent, revision: int, before: dict[str, ModelVersion]) -> None:
        after = self.registry.versions
        changed = [model_id for model_id in after if after[model_id] != before[model_id]]
        written = {topic for topic, records in self.bench.written.items() if records}
        if answer.outcome == "refused":
            assert written == {"flights.audit"}
            assert not changed
        elif answer.action == "move":
            assert answer.revision == revision
            assert "flights.deployments" not in written
        else:
            assert answer.revision == revision + 1 == self.history[-1].revision
        assert all(after[model_id].status in ALLOWED[before[model_id].status] for model_id in changed)
        assert all(after[model_id].changes == before[model_id].changes + 1 for model_id in changed)

    def check_routing(self) -> None:
        routes, versions = routes_of(self.history), self.registry.versions
        production = [model_id for model_id, version in versions.items() if version.status == "production"]
        assert production == ([routes.champion] if routes.champion else [])
        assert len(set(routes.routed)) == len(routes.routed)
        lineages = Counter(versions[model_id].lineage for model_id in routes.routed)
        assert all(count == 1 for lineage, count in lineages.items() if lineage)
        assert all(versions[model_id].status not in ("draft", "archived") for model_id in routes.routed)
        assert routes.previous != routes.champion
        experiment = routes.experiment
        if experiment is not None:
            assert experiment.variants[0].model_id == routes.champion
            counts = [variant.buckets for variant in experiment.variants]
            assert sum(counts) == BUCKETS
            assert np.bincount(expanded(experiment.table), minlength=len(counts)).tolist() == counts


@given(STORIES)
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_commands_breaks_the_routing(commands: list[tuple[dict[str, Any], int]]) -> None:
    async def scenario() -> None:
        story = Story()
        await story.tell(-1, {"action": "promote", "model_id": "m1"}, False)
        for number, (fields, luck) in enumerate(commands):
            await story.tell(number, fields, luck == 0)
            story.check_routing()

    asyncio.run(scenario())
