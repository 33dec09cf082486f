"""What is shown of models and experiments: the fold of their logs, however it is cut, and who has which role."""

import asyncio
from typing import Any

import msgspec
import pytest

from agents.views import KEPT_MS, Fold
from agents.views.experiments import MOST_REPORTS
from agents.views.routing import MOST_EXPERIMENTS
from app.experiments import assignment_of
from ml.experiments.assignment import expanded
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from schemas.wire import encode
from stores.view_keys import assignment_key, views_of
from tests.support import Entry, leap_through, version_of
from tests.viewing import (
    ALERTS,
    DEPLOYMENTS,
    EXPERIMENTS,
    MODELS,
    NOW_MS,
    SPEC,
    Reader,
    entries,
    experiment_of,
    routed,
    scene,
    told_of,
)


def version(model_id: str, **changes: Any) -> ModelVersion:
    return msgspec.structs.replace(version_of(SPEC, model_id), **changes)


def recalled(logs: dict[Any, list[Entry]]) -> dict[str, Any]:
    """What a fold of whole logs shows: documents by key."""
    fold = Fold("flights")
    leap_through(fold.recall(Reader(logs), None, NOW_MS))
    return {key: msgspec.json.decode(entry.value) for key, entry in fold.view().entries.items()}  # type: ignore[arg-type]


def test_a_model_is_shown_as_the_registry_has_it_whatever_came_last() -> None:
    moved = version("m1", status="staging", changes=2, reason="fine")
    shown = recalled({MODELS: entries(version("m1"), moved, version("m1", baseline="b" * 64, changes=1))})
    assert msgspec.convert(shown["ml:model:flights:m1"], ModelVersion) == msgspec.structs.replace(
        moved, baseline="b" * 64
    )


def test_every_model_of_a_long_log_is_shown_but_those_that_were_pruned() -> None:
    gone = [version(f"m{number}", status="archived", pruned=True) for number in range(40)]
    shown = recalled({MODELS: entries(*[version(f"m{number}", status="archived") for number in range(90)], *gone)})
    assert set(shown) == {f"ml:model:flights:m{number}" for number in range(40, 90)}


def test_a_model_tells_what_it_is_routed_as() -> None:
    deployment = routed(1, experiment_of("x", 50, 30, 20), shadows=("m4", "m5"), previous="m4")
    shown = recalled(
        {MODELS: entries(*[version(f"m{number}") for number in range(1, 7)]), DEPLOYMENTS: entries(deployment)}
    )
    assert {key[-2:]: value["routed"] for key, value in shown.items() if key.startswith("ml:")} == {
        "m1": ["champion"],
        "m2": ["variant v1"],
        "m3": ["variant v2"],
        "m4": ["shadow", "previous"],
        "m5": ["shadow"],
        "m6": [],
    }


def test_only_models_whose_role_or_record_changed_are_made_anew() -> None:
    fold = Fold("flights")
    fold.take(MODELS, entries(*[version(f"m{number}") for number in range(1, 5)]), 4)
    fold.take(DEPLOYMENTS, entries(routed(1, previous="m4")), 1)
    before = fold.view()
    fold.take(DEPLOYMENTS, entries(routed(2, champion="m2", previous="m1")), 2)
    fold.take(MODELS, entries(version("m3", metrics={"auc": 0.9}), version("unknown", pruned=True)), 6)
    after = fold.view()
    changed = {key[-2:] for key in after.entries if after.entries[key] is not before.entries[key]}
    assert changed == {"m1", "m2", "m3", "m4"}
    fold.take(DEPLOYMENTS, entries(routed(3, champion="m2", previous="m1")), 3)
    assert all(entry is after.entries[key] for key, entry in fold.view().entries.items())
    assert before.mark != after.mark


def test_an_experiment_is_shown_with_its_shares_and_its_newest_report() -> None:
    deployments = [routed(1, experiment_of("x", 90, 10)), routed(2, experiment_of("x", 50, 50, epoch=1))]
    reports = [told_of("", 9), told_of("x", 0), told_of("x", 1), told_of("", 10), told_of("unknown", 4)]
    shown = recalled({DEPLOYMENTS: entries(*deployments), EXPERIMENTS: entries(*reports)})
    [found] = [value for key, value in shown.items() if key == "ab:experiment:flights:x"]
    assert found.pop("report")["number"] == 1
    assert found == {
        "stream": "flights",
        "experiment_id": "x",
        "kind": "experiment",
        "running": True,
        "deployment_revision": 2,
        "epoch": 1,
        "started_time_ms": 0,
        "started_by": "",
        "shares": {"champion": 0.5, "v1": 0.5},
        "models": {"champion": "m1", "v1": "m2"},
    }
    assert "ab:experiment:flights:unknown" not in shown


@pytest.mark.parametrize("then", [None, experiment_of("y", 50, 50)])
def test_an_experiment_that_ended_is_shown_for_thirty_days(then: Any) -> None:
    fold = Fold("flights")
    ended_ms = NOW_MS - 1_000
    fold.take(DEPLOYMENTS, entries(routed(1, experiment_of("x", 90, 10)), timestamp=ended_ms - 5), 1)
    assert fold.view().entries["ab:experiment:flights:x"].until_ms is None
    fold.take(DEPLOYMENTS, entries(routed(2, then), timestamp=ended_ms), 2)
    shown = fold.view().entries["ab:experiment:flights:x"]
    assert msgspec.json.decode(shown.value)["running"] is False  # type: ignore[arg-type]
    assert shown.until_ms == ended_ms + KEPT_MS
    fold.take(DEPLOYMENTS, entries(routed(3), timestamp=NOW_MS), 3)
    assert fold.view().entries["ab:experiment:flights:x"] is shown


def test_reports_are_read_back_until_each_experiment_has_one_and_not_beyond() -> None:
    deployments = [routed(1, experiment_of("x", 90, 10)), routed(2, experiment_of("y", 90, 10)), routed(3)]
    first = [told_of("old", number) for number in range(30)]
    reports = [*first, told_of("x", 7), *[told_of("y", number) for number in range(30)]]
    logs = {DEPLOYMENTS: entries(*deployments), EXPERIMENTS: entries(*reports)}
    reader = Reader(logs)
    fold = Fold("flights")
    leap_through(fold.recall(reader, None, NOW_MS))
    assert reader.read.count(EXPERIMENTS) == 11
    assert [recalled(logs)[f"ab:experiment:flights:{name}"]["report"]["number"] for name in "xy"] == [7, 29]
    junk = [Entry(number, encode(told_of("y", number)), timestamp=NOW_MS) for number in range(MOST_REPORTS + 30)]
    reader = Reader({**logs, EXPERIMENTS: junk})
    leap_through(Fold("flights").recall(reader, None, NOW_MS))
    assert 3 * reader.read.count(EXPERIMENTS) <= MOST_REPORTS + 3


def test_deployments_are_read_back_for_thirty_days_and_the_routing_at_their_begin_is_known() -> None:
    old = NOW_MS - KEPT_MS - 1
    deployments = [
        *entries(*[routed(number) for number in range(1, 60)], timestamp=old),
        *entries(routed(60, experiment_of("x", 90, 10)), first=59, timestamp=old),
        *entries(routed(61, experiment_of("x", 80, 20, epoch=1)), first=60),
    ]
    reader = Reader({DEPLOYMENTS: deployments})
    fold = Fold("flights")
    leap_through(fold.recall(reader, None, NOW_MS))
    assert reader.read.count(DEPLOYMENTS) == 1
    assert list(fold.view().entries) == ["ab:experiment:flights:x"]


def test_only_the_newest_experiments_are_shown() -> None:
    fold = Fold("flights")
    for number in range(MOST_EXPERIMENTS + 5):
        fold.take(EXPERIMENTS, entries(told_of(f"x{number}", 0)), 1)
        fold.take(DEPLOYMENTS, entries(routed(number, experiment_of(f"x{number}", 50, 50))), 1)
    shown = fold.view().entries
    assert set(shown) == {f"ab:experiment:flights:x{number}" for number in range(5, MOST_EXPERIMENTS + 5)}
    assert all(msgspec.json.decode(entry.value)["report"] for entry in shown.values())  # type: ignore[arg-type]


def test_what_is_no_event_of_its_log_is_passed_over() -> None:
    junk = [Entry(0, b"junk", timestamp=NOW_MS), Entry(1, None, timestamp=NOW_MS)]
    half = b'{"experiment_id": "x", "number": "none"}'
    logs = {
        MODELS: [*junk, *entries(version("m1"), first=2)],
        DEPLOYMENTS: [*junk, *entries(routed(1, experiment_of("x", 50, 50)), first=2)],
        EXPERIMENTS: [*entries(told_of("x", 0)), *junk, Entry(3, half, timestamp=NOW_MS)],
        ALERTS: junk,
    }
    shown = recalled(logs)
    assert shown["ab:experiment:flights:x"]["report"]["number"] == 0
    assert shown["ml:model:flights:m1"]["routed"] == ["champion"]


def test_the_stage_shows_models_and_experiments_and_news_of_them_alone() -> None:
    logs = {MODELS: entries(version("m1"), version("m2")), DEPLOYMENTS: entries(routed(1))}

    async def main() -> None:
        made = scene(logs)
        await made.stage.open({MODELS: 2, DEPLOYMENTS: 1})
        await asyncio.sleep(1)
        assert made.views.value("ml:model:flights:m1")["routed"] == ["champion"]
        assert made.views.assigning == ""
        await made.take(DEPLOYMENTS, entries(routed(2, experiment_of("x", 90, 10)), first=1))
        await asyncio.sleep(1)
        assert made.views.value("ml:model:flights:m2")["routed"] == ["variant v1"]
        assert made.views.value("ab:experiment:flights:x")["report"] is None
        before = made.views.assigning
        await made.take(EXPERIMENTS, entries(told_of("x", 0)))
        await asyncio.sleep(1)
        assert made.views.value("ab:experiment:flights:x")["report"]["number"] == 0
        assert made.views.assigning == before
        await made.take(DEPLOYMENTS, entries(routed(3, experiment_of("x", 50, 50, epoch=1)), first=2))
        await made.take(MODELS, entries(version("m2", pruned=True), first=2))
        await asyncio.sleep(1)
        assert made.views.assigning != before
        assert made.views.ids("ml:model:flights:") == ["m1"]
        assert made.views.calls == [True, False, False, False]
        await made.stage.close()

    leap_through(main())


def test_an_entity_is_assigned_by_the_table_of_the_deployment_and_by_nothing_else() -> None:
    deployment = routed(7, experiment_of("x", 60, 30, 10, epoch=2))
    assert deployment.experiment is not None
    found = [assignment_of(deployment, f"N{number}") for number in range(2_000)]
    positions = expanded(deployment.experiment.table)
    for assignment in found:
        variant = deployment.experiment.variants[positions[assignment.bucket]]
        assert (assignment.variant, assignment.model_id) == (variant.name, variant.model_id)
        assert (assignment.experiment_id, assignment.epoch, assignment.deployment_revision) == ("x", 2, 7)
    assert sum(assignment.variant == "v1" for assignment in found) / 2_000 == pytest.approx(0.3, abs=0.05)
    with pytest.raises(PenstockError, match="no experiment"):
        assignment_of(routed(8), "N1")


def test_no_two_assignments_and_no_two_streams_share_a_key() -> None:
    pairs = [("a:b", "c"), ("a", "b:c"), ("a%3Ab", "c"), ("a%253Ab", "c")]
    assert len({assignment_key("s", *pair) for pair in pairs}) == len(pairs)
    views = views_of("flights")
    for key in (
        b"drift:stats:flights",
        b"drift:stats:flights:feature:a",
        b"ml:model:flights:m",
        b"drift:views:flights",
    ):
        assert views.match(key), key
    for key in (
        b"drift:stats:flights-ewr",
        b"ml:model:flights-ewr:m",
        b"ml:model:other:flights:",
        b"views:mark:flights",
    ):
        assert not views.match(key), key
