"""Variants of an experiment that are loaded, or cannot be; and what is kept at hand for a roll-back."""

import asyncio
import logging
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.errors import KafkaConnectionError

from agents.serving import ARMS_S, FORGIVEN_S, RETRY_S, SOON_S, Served, Serving
from agents.shelf import ModelShelf, ModelUnusable
from ml.experiments.assignment import bucket_counts, expanded, initial_table, reshared
from schemas.events import Alert, ModelVersion
from schemas.experiments import Experiment
from stores.artifacts import ArtifactCorrupted, ArtifactMissing, ArtifactUnavailable
from tests.scoring import experiment_of
from tests.serving import OTHER, OWN, SPEC, World, baseline_of, serving
from tests.support import Model, version_of

TABLE = initial_table(bucket_counts([0.5, 0.5]))


def experiment(*models: str) -> Experiment:
    n = len(models) + 1
    return experiment_of(initial_table(bucket_counts([1 / n] * n)), *models)


def arms_of(served: Served) -> list[tuple[str, str, bool]]:
    return [(arm.name, arm.model_id, arm.model is not None) for arm in served.arms]


@serving
async def test_variants_are_loaded_beside_the_champion_before_shadows_and_swapped_in_together(world: World) -> None:
    world.register("m1", "b", "c", "s")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.load_s = ARMS_S / 4
    world.deploy("m1", 2, "s", experiment=experiment("b", "c"))
    await asyncio.sleep(2.9 * world.load_s)
    assert (await world.serving.ready()).arms == ()
    await asyncio.sleep(0.2 * world.load_s)
    served = await world.serving.ready()
    assert arms_of(served) == [("champion", "m1", True), ("b", "b", True), ("c", "c", True)]
    assert served.arms[0].model is served.model
    assert served.table is not None
    assert np.bincount(served.table).tolist() == [3_334, 3_333, 3_333]
    assert served.experiment is not None
    assert world.got == [("m1",), ("b", "m1"), ("c", "m1", "b"), ("s", "m1", "b", "c")]
    assert (world.routed[-1], world.routed_beside[-1]) == ("m1", ["b", "c", "s"])


@serving
async def test_an_experiment_waits_only_so_long_for_its_models_and_not_at_all_when_it_ends(world: World) -> None:
    world.register("m1", "b", "c")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.slow["c"] = 3600.0
    world.deploy("m1", 2, experiment=experiment("b", "c"))
    await asyncio.sleep(ARMS_S - 1.0)
    assert (await world.serving.ready()).deployment.revision == 1
    await asyncio.sleep(2.0)
    served = await world.serving.ready()
    assert arms_of(served) == [("champion", "m1", True), ("b", "b", True), ("c", "c", False)]
    assert [arm.away for arm in served.arms] == [False, False, True]
    world.deploy("m1", 3)
    await asyncio.sleep(0.1)
    assert (await world.serving.ready()).deployment.revision == 3
    world.deploy("m1", 4, experiment=experiment("b", "c"))
    await asyncio.sleep(1.0)
    world.deploy("m1", 5)
    await asyncio.sleep(0.1)
    assert (await world.serving.ready()).deployment.revision == 5


@serving
async def test_a_store_that_is_away_is_not_held_against_a_variant_for_a_while_and_a_broken_model_is(
    world: World,
) -> None:
    async def away() -> dict[str, bool]:
        return {arm.name: arm.away for arm in (await world.serving.ready()).arms if arm.model is None}

    world.register("m1", "b", "c", "d")
    world.broken = {"b": ArtifactUnavailable("no answer"), "c": ArtifactCorrupted("its SHA-256 is wrong")}
    world.broken["d"] = ArtifactMissing("does not exist")
    world.deploy("m1", 1, experiment=experiment("b", "c", "d"))
    await asyncio.sleep(0.5)
    assert await away() == {"b": True, "c": False, "d": False}
    await asyncio.sleep(FORGIVEN_S + RETRY_S)
    assert await away() == {"b": False, "c": False, "d": False}
    del world.broken["b"]
    await asyncio.sleep(RETRY_S)
    assert list(await away()) == ["c", "d"]


@serving
async def test_a_blip_of_the_store_is_over_within_seconds_however_long_it_was_away_before(world: World) -> None:
    world.register("m1", "b")
    world.broken["b"] = ArtifactUnavailable("no answer")
    world.deploy("m1", 1, experiment=experiment("b"))
    await asyncio.sleep(2 * FORGIVEN_S)
    assert [arm.away for arm in (await world.serving.ready()).arms] == [False, False]
    world.deploy("m1", 2)
    await asyncio.sleep(1.0)
    world.deploy("m1", 3, experiment=experiment("b"))
    await asyncio.sleep(0.1)
    assert [arm.away for arm in (await world.serving.ready()).arms] == [False, True]
    world.broken.clear()
    await asyncio.sleep(SOON_S[0])
    assert arms_of(await world.serving.ready())[1] == ("b", "b", True)


@serving
async def test_a_reshare_changes_the_table_and_loads_nothing(world: World) -> None:
    world.register("m1", "b")
    world.deploy("m1", 1, experiment=experiment("b"))
    before = await world.serving.ready()
    world.got.clear()
    table = reshared(TABLE, (9_000, 1_000))
    world.deploy("m1", 2, experiment=experiment_of(table, "b"))
    await asyncio.sleep(1.0)
    after = await world.serving.ready()
    assert (after.deployment.revision, world.got) == (2, [])
    assert after.arms[1] is before.arms[1]
    assert after.table is not None
    assert np.array_equal(after.table, expanded(table))
    world.deploy("m1", 3)
    await asyncio.sleep(1.0)
    served = await world.serving.ready()
    assert (served.arms, served.table, served.experiment) == ((), None, None)
    assert world.routed_beside[-1] == []


@serving
async def test_a_shadow_becomes_a_variant_and_a_variant_the_champion_without_being_loaded_again(world: World) -> None:
    world.register("m1", "b")
    world.deploy("m1", 1, "b")
    await asyncio.sleep(1.0)
    model = (await world.serving.ready()).shadows[0].model
    world.broken["b"] = ModelUnusable("the file was changed")
    world.deploy("m1", 2, experiment=experiment("b"))
    await asyncio.sleep(1.0)
    assert (await world.serving.ready()).arms[1].model is model
    world.deploy("b", 3)
    await asyncio.sleep(1.0)
    served = await world.serving.ready()
    assert (world.champion, served.model is model, world.alerts) == ("b", True, [])
    assert world.got == [("m1",), ("b", "m1")]


@serving
async def test_a_variant_that_cannot_be_had_keeps_its_place_is_told_once_and_tried_again(world: World) -> None:
    world.register("m1", "b", "c")
    world.broken["b"] = ModelUnusable("the store is away")
    world.deploy("m1", 1, experiment=experiment("b", "c"))
    await asyncio.sleep(3 * RETRY_S)
    served = await world.serving.ready()
    assert arms_of(served) == [("champion", "m1", True), ("b", "b", False), ("c", "c", True)]
    assert not served.is_complete
    [alert] = world.alerts
    assert (alert.kind, alert.severity, alert.subject) == ("variant_unusable", "medium", "b")
    assert alert.message == (
        "model b of variant b cannot be loaded: the store is away; its events get the champion's scores"
    )
    assert alert.recommendation == "Restore the artifact, or stop experiment x."
    failures = world.metrics.registry.get_sample_value("ml_model_load_failures_total", {"stream": "flights"})
    assert failures == 3
    assert world.routed_beside[-1] == ["c"]
    world.broken.clear()
    await asyncio.sleep(RETRY_S + 1.0)
    served = await world.serving.ready()
    assert arms_of(served)[1] == ("b", "b", True)
    assert world.routed_beside[-1] == ["b", "c"]
    tried = len(world.got)
    await asyncio.sleep(10 * RETRY_S)
    assert len(world.got) == tried


@serving
async def test_the_alert_of_a_variant_that_cannot_be_sent_now_is_sent_later(world: World) -> None:
    world.register("m1")
    world.alert_errors.append(KafkaConnectionError())
    world.deploy("m1", 1, experiment=experiment("nobody"))
    await asyncio.sleep(1.0)
    assert (world.champion, world.alerts) == ("m1", [])
    await asyncio.sleep(RETRY_S + 1.0)
    assert ["model nobody is not in flights.models" in alert.message for alert in world.alerts] == [True]


@serving
async def test_events_of_an_experiment_are_measured_against_the_champion_s_baseline(world: World) -> None:
    world.baselines[OWN] = baseline_of("a", "b")
    world.measure("m1", OWN)
    world.register("b")
    world.deploy("m1", 1, experiment=experiment("b"))
    await asyncio.sleep(1.0)
    assert world.baseline == OWN


@serving
async def test_where_nothing_is_scored_room_is_reserved_for_variants_too(world: World) -> None:
    quiet = asyncio.create_task(world.new_serving(loads=False).follow())
    world.broken["m1"] = ModelUnusable("so that the other Serving, which loads, routes nothing")
    world.register("m1", "b", "s")
    world.deploy("m1", 1, "s", experiment=experiment("b"))
    await asyncio.sleep(1.0)
    assert (world.routed, world.routed_beside) == (["m1"], [["b", "s"]])
    quiet.cancel()


@serving
async def test_the_previous_champion_is_loaded_last_while_the_new_one_serves_already(world: World) -> None:
    world.register("m1", "m2", "s")
    world.load_s = 10.0
    world.deploy("m2", 7, "s", previous="m1")
    await asyncio.sleep(21.0)
    assert (world.champion, world.got) == ("m2", [("m2",), ("s", "m2"), ("m1", "m2", "s")])
    assert world.routed_beside[-1] == ["s"]
    await asyncio.sleep(10 * RETRY_S)
    assert len(world.got) == 3


@serving
async def test_the_previous_champion_s_baseline_is_at_hand_too(world: World) -> None:
    world.baselines |= {OWN: baseline_of("a", "b"), OTHER: baseline_of("a", "b")}
    world.measure("m1", OWN)
    world.measure("m2", OTHER)
    world.deploy("m2", 2, previous="m1")
    await asyncio.sleep(1.0)
    assert world.opened == [(OTHER, 9), (OWN, 9)]
    world.deploy("m1", 3)
    await asyncio.sleep(1.0)
    assert (world.champion, world.baseline, len(world.opened)) == ("m1", OWN, 2)


@serving
async def test_an_experiment_with_a_table_that_is_none_leaves_the_last_deployment_in_force(world: World) -> None:
    world.register("m1", "b")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    for revision, table in enumerate((((0, 9_999),), ((0, 9_999), (2, 1))), start=2):
        world.deploy("m1", revision, experiment=msgspec.structs.replace(experiment("b"), table=table))
        await asyncio.sleep(1.0)
    assert (await world.serving.ready()).deployment.revision == 1
    assert ["bucket table" in alert.message for alert in world.alerts] == [True, True]


@serving
async def test_a_newer_deployment_does_not_wait_for_the_previous_champion_of_an_older_one(world: World) -> None:
    world.register("m1", "m2", "m3")
    world.deploy("m2", 2, previous="m1")
    await world.serving.ready()
    world.load_s = 10.0
    world.deploy("m2", 3, previous="m1")
    await asyncio.sleep(1.0)
    world.deploy("m3", 4, previous="m2")
    await asyncio.sleep(10.5)
    assert world.champion == "m3"


@serving
async def test_what_cannot_be_had_for_a_roll_back_alarms_nobody(world: World) -> None:
    world.register("m1", "m2")
    world.broken["m1"] = ModelUnusable("gone")
    world.deploy("m2", 2, previous="m1")
    await asyncio.sleep(1.0)
    world.deploy("m2", 3, previous="nobody")
    await asyncio.sleep(1.0)
    assert (world.champion, world.alerts) == ("m2", [])
    failures = world.metrics.registry.get_sample_value("ml_model_load_failures_total", {"stream": "flights"})
    assert not failures


class Shelved:
    """A Serving on a real shelf, and which models were opened from their files."""

    def __init__(self, budget_bytes: int) -> None:
        self.world = World()
        self.opened: list[str] = []
        self.shelf = ModelShelf(self._open, budget_bytes)
        world = self.world
        self.serving = Serving(
            *(SPEC, world.models, world.deployments, world.catch_up, self.shelf),
            *(world.open_baseline, world.metrics, world.alert, lambda: 5000),
        )

    def _open(self, version: ModelVersion) -> Model:
        self.opened.append(version.model_id)
        return Model()

    async def deploy(self, name: str, revision: int, **changes: Any) -> None:
        """Deploy, and wait until that serves and nothing is loaded any more."""
        self.world.deploy(name, revision, **changes)
        for _ in range(500):
            await asyncio.sleep(0.002)
            served = self.serving.current
            if served is not None and served.deployment.revision == revision:
                await asyncio.sleep(0.05)
                return
        raise AssertionError(f"revision {revision} never serves")


async def test_a_roll_back_after_a_restart_loads_nothing() -> None:
    shelved = Shelved(budget_bytes=250)
    shelved.world.register("m1", "m2")
    following = asyncio.create_task(shelved.serving.follow())
    await shelved.deploy("m2", 2, previous="m1")
    assert shelved.opened == ["m2", "m1"]
    await shelved.deploy("m1", 3, previous="", held=True)
    assert shelved.opened == ["m2", "m1"]
    following.cancel()


async def test_what_a_roll_back_would_bring_back_takes_no_room_from_what_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelved = Shelved(budget_bytes=250)
    shelved.world.register("m1", "m2", "b")
    following = asyncio.create_task(shelved.serving.follow())
    with caplog.at_level(logging.INFO, "penstock.serving"):
        await shelved.deploy("m2", 2, previous="m1", experiment=experiment("b"))
    assert shelved.opened == ["m2", "b"]
    assert "model m1 is not ready for a roll-back: model m1 needs 100 bytes" in caplog.text
    following.cancel()


async def test_a_champion_gets_the_room_of_what_was_kept_for_a_roll_back() -> None:
    shelved = Shelved(budget_bytes=250)
    shelved.world.register("m1", "m2", "m3")
    following = asyncio.create_task(shelved.serving.follow())
    await shelved.deploy("m2", 2, previous="m1")
    await shelved.deploy("m3", 3, previous="m2")
    assert shelved.opened == ["m2", "m1", "m3"]
    assert sorted(model_id for _, model_id, _ in shelved.shelf.loaded) == ["m2", "m3"]
    following.cancel()


def test_every_worker_raises_the_same_alert_of_a_variant() -> None:
    async def alerts_of_one() -> list[Alert]:
        world = World()
        following = asyncio.create_task(world.serving.follow())
        world.register("m1", "b")
        world.broken["b"] = ModelUnusable("gone")
        world.deploy("m1", 1, experiment=experiment("b"))
        await world.serving.ready()
        following.cancel()
        return world.alerts

    one, other = asyncio.run(alerts_of_one()), asyncio.run(alerts_of_one())
    assert [alert.id for alert in one] == [alert.id for alert in other]
    assert version_of(SPEC, "b").model_id == one[0].subject
