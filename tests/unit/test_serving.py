"""Which model serves: the newest that can be had, and everybody hears when that is not the newest."""

import asyncio

import msgspec
from aiokafka.errors import KafkaConnectionError

from agents.serving import LOAD_S, REST_S, RETRY_S, SOON_S
from agents.shelf import ModelUnusable
from agents.yardsticks import BASELINE_S
from schemas.errors import PenstockError
from schemas.wire import encode
from stores.artifacts import ArtifactUnavailable
from tests.serving import OTHER, OWN, SPEC, World, baseline_of, serving
from tests.support import deployment_of, version_of


@serving
async def test_batches_wait_until_a_champion_is_loaded(world: World) -> None:
    waiting = asyncio.create_task(world.serving.ready())
    await asyncio.sleep(3600.0)
    assert not waiting.done()
    world.register("m1")
    world.deploy("m1", 1)
    served = await waiting
    assert (served.version.model_id, served.deployment.revision) == ("m1", 1)
    assert world.routed == ["m1"]


@serving
async def test_the_old_champion_serves_until_the_new_one_is_loaded(world: World) -> None:
    world.register("m1", "m2")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.load_s = 10.0
    world.deploy("m2", 2)
    await asyncio.sleep(9.0)
    assert (await world.serving.ready()).version.model_id == "m1"
    await asyncio.sleep(2.0)
    assert (await world.serving.ready()).version.model_id == "m2"
    assert world.routed == ["m1", "m2"]
    assert world.alerts == []


@serving
async def test_a_deployment_back_to_an_earlier_model_is_followed(world: World) -> None:
    world.register("m1", "m2")
    for revision, name in enumerate(("m1", "m2", "m1"), start=1):
        world.deploy(name, revision)
        await asyncio.sleep(1.0)
    assert world.champion == "m1"
    assert world.routed == ["m1", "m2", "m1"]


@serving
async def test_a_deployment_may_be_seen_before_its_model(world: World) -> None:
    world.late = [version_of(SPEC, "m1")]
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    assert world.champion == "m1"


@serving
async def test_when_the_champion_cannot_be_had_the_previous_one_serves_on_and_everybody_hears(world: World) -> None:
    world.register("m1", "m2")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.broken["m2"] = ModelUnusable("the file was changed")
    world.deploy("m2", 2)
    await asyncio.sleep(1.0)
    assert world.champion == "m1"
    [alert] = world.alerts
    assert (alert.kind, alert.severity, alert.subject, alert.raised_time_ms) == (
        "champion_unusable",
        "critical",
        "m2",
        5000,
    )
    assert alert.message == "champion m2 cannot be loaded: the file was changed; model m1 serves on"
    failures = world.metrics.registry.get_sample_value("ml_model_load_failures_total", {"stream": "flights"})
    assert failures == 1


@serving
async def test_at_start_the_newest_that_can_be_had_serves(world: World) -> None:
    world.broken = {"m2": ModelUnusable("gone"), "m3": ModelUnusable("gone")}
    world.register("m1", "m2", "m3")
    for revision, name in enumerate(("m1", "m2", "m3"), start=1):
        world.deployments.events.append(deployment_of(SPEC, name, revision))
    world.deployments.fold([])
    await asyncio.sleep(1.0)
    assert world.champion == "m1"
    assert [alert.subject for alert in world.alerts] == ["m3", "m2"]


@serving
async def test_it_is_tried_again_and_served_once_it_can_be_had_with_one_alert_for_one_cause(world: World) -> None:
    world.register("m1", "m2")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.broken["m2"] = ModelUnusable("the store is away")
    world.deploy("m2", 2)
    await asyncio.sleep(5 * RETRY_S)
    assert len(world.alerts) == 1
    world.broken.clear()
    await asyncio.sleep(RETRY_S + 1.0)
    assert world.champion == "m2"


@serving
async def test_a_deployment_of_a_model_nobody_registered_is_told_as_such(world: World) -> None:
    world.deploy("m9", 1)
    await asyncio.sleep(1.0)
    assert world.champion is None
    assert "model m9 is not in flights.models" in world.alerts[0].message


@serving
async def test_every_worker_raises_the_same_alert(world: World) -> None:
    world.register("m1")
    world.broken["m1"] = ModelUnusable("gone")
    world.deploy("m1", 1)
    other = asyncio.create_task(world.new_serving().follow())
    await asyncio.sleep(1.0)
    assert len(world.alerts) == 2
    assert len({alert.id for alert in world.alerts}) == 1
    world.broken["m1"] = ModelUnusable("gone")
    world.deploy("m1", 2)
    await asyncio.sleep(1.0)
    assert len({alert.id for alert in world.alerts}) == 2
    other.cancel()


@serving
async def test_an_alert_that_cannot_be_sent_now_is_sent_later_and_stops_nothing(world: World) -> None:
    world.register("m1", "m2")
    world.alert_errors.append(KafkaConnectionError())
    world.broken["m2"] = ModelUnusable("gone")
    world.deployments.events.append(deployment_of(SPEC, "m1", 1))
    world.deploy("m2", 2)
    await asyncio.sleep(1.0)
    assert world.champion == "m1"
    await asyncio.sleep(RETRY_S + 1.0)
    assert [alert.subject for alert in world.alerts] == ["m2"]


@serving
async def test_champion_and_shadows_are_swapped_in_together_and_each_is_loaded_once(world: World) -> None:
    world.register("m1", "m2", "s1", "s2")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.load_s = REST_S / 3
    world.deploy("m2", 2, "s1", "s2")
    await asyncio.sleep(2.9 * world.load_s)
    assert (world.champion, world.shadows) == ("m1", [])
    await asyncio.sleep(0.2 * world.load_s)
    assert (world.champion, world.shadows) == ("m2", ["s1", "s2"])
    assert world.got == [("m1",), ("m2",), ("s1", "m2"), ("s2", "m2", "s1")]
    assert (world.routed, world.routed_beside[-1]) == (["m1", "m2"], ["s1", "s2"])


@serving
async def test_a_champion_serves_while_its_shadows_are_loaded_and_each_joins_it_as_it_comes(world: World) -> None:
    world.baselines[OWN] = baseline_of("a", "b")
    world.register("m1", "s1", "s2")
    world.measure("m2", OWN)
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.load_s = 8.0
    world.deploy("m2", 2, "s1", "s2")
    seen = []
    for _ in range(4):
        await asyncio.sleep(8.0 + REST_S / 2)
        seen.append((world.champion, world.baseline, world.shadows))
    assert seen[0] == ("m1", None, [])
    assert seen[1:] == [("m2", OWN, []), ("m2", OWN, ["s1"]), ("m2", OWN, ["s1", "s2"])]


@serving
async def test_a_roll_back_waits_for_nothing_that_hangs(world: World) -> None:
    world.register("m1", "m2", "s1", "s2")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.deploy("m2", 2, previous="m1")
    await asyncio.sleep(1.0)
    world.slow = {"s1": 3600.0, "s2": 3600.0}
    world.deploy("m2", 3, "s1", previous="m1")
    await asyncio.sleep(0.5 * REST_S)
    assert (await world.serving.ready()).deployment.revision == 2
    await asyncio.sleep(REST_S)
    assert (await world.serving.ready()).deployment.revision == 3
    world.deploy("m1", 4, "s1")
    await asyncio.sleep(1.1 * REST_S)
    assert world.champion == "m1"
    world.slow["m9"] = 3600.0
    world.register("m9")
    world.deploy("m9", 5)
    await asyncio.sleep(10.0)
    world.deploy("m2", 6)
    await asyncio.sleep(0.1)
    assert (world.champion, (await world.serving.ready()).deployment.revision) == ("m2", 6)


@serving
async def test_a_shadow_that_takes_too_long_does_not_keep_the_next_one_waiting(world: World) -> None:
    world.register("m1", "s1", "s2")
    world.slow["s1"] = 3600.0
    world.deploy("m1", 1, "s1", "s2")
    await asyncio.sleep(LOAD_S + 1.0)
    assert (world.champion, world.shadows) == ("m1", ["s2"])
    assert "the model store did not give it within 45 s" in world.alerts[0].message
    world.slow.clear()
    await asyncio.sleep(SOON_S[0] + 0.1)
    assert world.shadows == ["s1", "s2"]


@serving
async def test_when_the_store_was_away_for_a_moment_it_is_asked_again_within_seconds(world: World) -> None:
    world.register("m1", "m2", "s1")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.broken["m2"] = world.broken["s1"] = ArtifactUnavailable("no answer")
    world.deploy("m2", 2, "s1")
    await asyncio.sleep(sum(SOON_S) + 0.1)
    asked = world.got.count(("m2",))
    assert (world.champion, asked) == ("m1", 1 + len(SOON_S))
    await asyncio.sleep(2 * RETRY_S)  # it stays away: from now on seldom
    assert world.got.count(("m2",)) == asked + 2
    del world.broken["m2"]
    await asyncio.sleep(RETRY_S)
    assert (world.champion, world.shadows) == ("m2", [])


@serving
async def test_a_deployment_that_only_changes_shadows_loads_nothing_that_is_there(world: World) -> None:
    world.register("m1", "s1", "s2")
    world.deploy("m1", 1, "s1")
    await asyncio.sleep(1.0)
    before = await world.serving.ready()
    world.got.clear()
    world.broken = {"m1": ModelUnusable("gone"), "s1": ModelUnusable("gone")}
    world.deploy("m1", 2, "s1", "s2")
    await asyncio.sleep(1.0)
    after = await world.serving.ready()
    assert world.got == [("s2", "m1", "s1")]
    assert after.model is before.model
    assert after.shadows[0] is before.shadows[0]
    assert (after.deployment.revision, world.shadows, world.alerts) == (2, ["s1", "s2"], [])
    world.deploy("m1", 3)
    await asyncio.sleep(1.0)
    assert (world.shadows, world.routed_beside[-1]) == ([], [])


@serving
async def test_a_shadow_that_cannot_be_had_is_left_out_told_softly_and_tried_again(world: World) -> None:
    world.register("m1", "m2", "s1", "s2")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    world.broken["s1"] = ModelUnusable("the store is away")
    world.deploy("m2", 2, "s1", "s2")
    await asyncio.sleep(1.0)
    assert (world.champion, world.shadows) == ("m2", ["s2"])
    await asyncio.sleep(3 * RETRY_S)
    [alert] = world.alerts
    assert (alert.kind, alert.severity, alert.subject) == ("shadow_unusable", "low", "s1")
    assert alert.message == "shadow s1 cannot be loaded: the store is away; events are scored without it"
    world.broken.clear()
    await asyncio.sleep(RETRY_S + 1.0)
    assert world.shadows == ["s1", "s2"]
    assert world.routed == ["m1", "m2", "m2"]
    tried = len(world.got)
    await asyncio.sleep(10 * RETRY_S)
    assert len(world.got) == tried


@serving
async def test_when_the_new_champion_cannot_be_had_the_old_deployment_s_shadows_are_tried_again(world: World) -> None:
    world.register("m1", "m2", "s1")
    world.broken = {"m2": ModelUnusable("gone"), "s1": ModelUnusable("gone")}
    world.deploy("m1", 1, "s1")
    await asyncio.sleep(1.0)
    world.deploy("m2", 2)
    await asyncio.sleep(1.0)
    assert (world.champion, world.shadows) == ("m1", [])
    del world.broken["s1"]
    await asyncio.sleep(RETRY_S + 1.0)
    assert (world.champion, world.shadows) == ("m1", ["s1"])
    del world.broken["m2"]
    await asyncio.sleep(RETRY_S + 1.0)
    assert (world.champion, world.shadows) == ("m2", [])


@serving
async def test_the_newest_record_of_a_model_counts(world: World) -> None:
    world.register("m1")
    world.models.fold([encode(msgspec.structs.replace(version_of(SPEC, "m1"), memory_bytes=7))])
    world.deploy("m1", 1)
    assert (await world.serving.ready()).version.memory_bytes == 7


@serving
async def test_where_nothing_is_scored_room_is_reserved_and_no_model_is_loaded(world: World) -> None:
    quiet = asyncio.create_task(world.new_serving(loads=False).follow())
    world.broken["m1"] = ModelUnusable("so that the other Serving, which loads, routes nothing")
    world.register("m1", "s1")
    world.deploy("m1", 1, "s1")
    await asyncio.sleep(1.0)
    assert (world.routed, world.routed_beside) == (["m1"], [["s1"]])
    assert world.got == [("m1",)]
    world.late = [version_of(SPEC, "s2")]
    world.deploy("m1", 2, "s2")
    await asyncio.sleep(1.0)
    assert world.routed_beside[-1] == ["s2"]
    quiet.cancel()


@serving
async def test_events_are_counted_against_the_champion_s_own_baseline_and_it_is_opened_once(world: World) -> None:
    world.baselines[OWN] = baseline_of("a", "b")
    world.measure("m1", OWN)
    world.deploy("m1", 1)
    yardstick = (await world.serving.ready()).yardstick
    assert yardstick is not None
    assert (yardstick.sha256, yardstick.baseline) == (OWN, world.baselines[OWN])
    world.register("s1")
    world.deploy("m1", 2, "s1")
    await asyncio.sleep(10 * RETRY_S)
    after = await world.serving.ready()
    assert (after.deployment.revision, world.opened) == (2, [(OWN, 9)])
    assert after.yardstick is yardstick


@serving
async def test_a_version_without_a_baseline_is_measured_against_its_nearest_ancestor_s(world: World) -> None:
    world.baselines |= {OWN: baseline_of("a", "b"), OTHER: baseline_of("a", "b")}
    world.measure("v0", OTHER)
    world.measure("v1", OWN, parent="v0", status="archived", pruned=True)
    world.measure("v2", "", parent="v1")
    world.measure("v3", "", parent="v2")
    world.deploy("v3", 1)
    await asyncio.sleep(1.0)
    assert (world.champion, world.baseline, world.opened) == ("v3", OWN, [(OWN, 9)])


@serving
async def test_ancestors_in_a_circle_have_no_baseline_and_hang_nobody(world: World) -> None:
    world.measure("v1", "", parent="v2")
    world.measure("v2", "", parent="v1")
    world.deploy("v2", 1)
    await asyncio.sleep(1.0)
    assert (world.champion, world.baseline, world.alerts) == ("v2", None, [])


@serving
async def test_a_later_record_of_the_champion_gives_it_a_baseline_without_a_deployment(world: World) -> None:
    world.baselines |= {OWN: baseline_of("a", "b"), OTHER: baseline_of("a", "b")}
    world.register("m1")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    before = await world.serving.ready()
    assert before.yardstick is None
    for sha256 in (OWN, OTHER):
        world.measure("m1", sha256)
        await asyncio.sleep(1.0)
        assert world.baseline == sha256
    after = await world.serving.ready()
    assert (after.model is before.model, after.deployment.revision, world.got) == (True, 1, [("m1",)])


@serving
async def test_a_baseline_that_cannot_be_read_stops_nothing_is_told_once_and_tried_again(world: World) -> None:
    world.baselines[OWN] = PenstockError("the file does not exist")
    world.measure("m1", OWN)
    world.deploy("m1", 1)
    await asyncio.sleep(3 * RETRY_S)
    assert (world.champion, world.baseline) == ("m1", None)
    [alert] = world.alerts
    assert (alert.kind, alert.severity, alert.subject) == ("baseline_unusable", "low", "m1")
    assert alert.message.startswith("the baseline for champion m1 cannot be used: the file does not exist; events are")
    assert "`penstock drift baseline m1 --stream flights --data FILE`" in alert.recommendation
    failures = world.metrics.registry.get_sample_value("ml_model_load_failures_total", {"stream": "flights"})
    assert not failures
    world.baselines[OWN] = baseline_of("a", "b")
    await asyncio.sleep(RETRY_S + 1.0)
    assert (world.champion, world.baseline) == ("m1", OWN)


@serving
async def test_a_baseline_of_other_features_is_not_counted_against(world: World) -> None:
    world.baselines[OWN] = baseline_of("b", "a")
    world.measure("parent", OWN)
    world.measure("m1", "", parent="parent")
    world.deploy("m1", 1)
    await asyncio.sleep(1.0)
    assert (world.champion, world.baseline) == ("m1", None)
    [alert] = world.alerts
    assert alert.message.startswith("the baseline of parent for champion m1 cannot be used: the baseline is of other")
    assert "b, a" in alert.message


@serving
async def test_a_baseline_that_will_never_fit_is_not_read_again_once_somebody_heard_of_it(world: World) -> None:
    world.baselines |= {OWN: baseline_of("b", "a"), OTHER: baseline_of("a", "b")}
    world.alert_errors += [KafkaConnectionError(), KafkaConnectionError()]  # neither alert gets out at first
    world.measure("m1", OWN)
    world.deploy("m1", 1, "s1")  # a shadow that nobody registered: that is tried again for ever
    await asyncio.sleep(10 * RETRY_S)
    assert (world.champion, world.baseline, len(world.opened)) == ("m1", None, 2)
    assert {alert.kind for alert in world.alerts} == {"baseline_unusable", "shadow_unusable"}
    world.measure("m1", OTHER)
    await asyncio.sleep(1.0)
    assert world.baseline == OTHER
    world.measure("m2", OWN)
    world.deploy("m2", 2)
    await asyncio.sleep(1.0)
    assert [alert.subject for alert in world.alerts if alert.kind == "baseline_unusable"] == ["m1", "m2"]
    opened = len(world.opened)
    await asyncio.sleep(10 * RETRY_S)
    assert len(world.opened) == opened


@serving
async def test_a_gauge_tells_whether_the_champion_s_events_are_measured(world: World) -> None:
    def measured() -> float | None:
        return world.metrics.registry.get_sample_value("ml_drift_measured", {"stream": "flights"})

    world.baselines[OWN] = baseline_of("a", "b")
    world.measure("m1", OWN)
    world.register("m2")
    for revision, (name, told) in enumerate((("m1", 1.0), ("m2", 0.0), ("m1", 1.0)), start=1):
        world.deploy(name, revision)
        await asyncio.sleep(1.0)
        assert measured() == told


@serving
async def test_a_champion_waits_only_so_long_for_its_baseline_and_an_odd_error_harms_nobody(world: World) -> None:
    world.baselines[OWN] = baseline_of("a", "b")
    world.load_s = 15.0
    world.measure("m1", OWN)
    world.deploy("m1", 1)
    await asyncio.sleep(15.0 + BASELINE_S + 1.0)
    assert (world.champion, world.baseline) == ("m1", None)
    assert "the model store did not give it within 10 s" in world.alerts[0].message
    world.load_s = 1.0
    world.measure("m1", OTHER)  # which nobody has stored: the double of the store raises a KeyError
    await asyncio.sleep(2.0)
    assert (world.champion, world.baseline) == ("m1", None)
    assert "KeyError" in world.alerts[1].message
