"""What a person reads of registered models: lists, histories, and two side by side."""

from typing import Any

import msgspec

from app.model_tables import comparison, comparison_lines, description, description_lines, list_lines
from app.models import RegistryView
from schemas.events import Deployment, ModelVersion
from schemas.experiments import Experiment, ExperimentPlan, Variant
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.views import LogView
from tests.support import version_of

SPEC = StreamSpec(name="flights", features=("a", "b"))
DAY_MS = 86_400_000


def version(model_id: str, **more: Any) -> ModelVersion:
    return msgspec.structs.replace(version_of(SPEC, model_id), **({"registered_by": "me@here"} | more))


def registry_of(records: list[ModelVersion], deployments: list[Deployment]) -> RegistryView:
    models: LogView[ModelVersion] = LogView("flights.models", ModelVersion)
    routing: LogView[Deployment] = LogView("flights.deployments", Deployment)
    models.fold(map(encode, records))
    routing.fold(map(encode, deployments))
    return RegistryView(SPEC, models, routing)


def deployment(champion: str, **more: Any) -> Deployment:
    return Deployment(
        stream="flights",
        revision=1,
        champion=champion,
        changed_time_ms=0,
        changed_by="",
        correlation_id="",
        **more,
    )


EXPERIMENT = Experiment(
    experiment_id="x",
    kind="experiment",
    plan=ExperimentPlan(metric="brier"),
    salt="flights/x",
    variants=(
        Variant(name="champion", model_id="m1", buckets=8_000),
        Variant(name="B", model_id="m2", buckets=2_000),
    ),
    table=((0, 8_000), (1, 2_000)),
)


def test_a_list_marks_what_is_routed_and_what_a_roll_back_would_bring_back() -> None:
    versions = [version(f"m{number}", version=f"1.{number}.0") for number in range(5)]
    registry = registry_of(versions, [deployment("m1", previous="m0", shadows=("m3",), experiment=EXPERIMENT)])
    header, *lines = list_lines(registry.models, registry)
    assert header.split() == ["model", "version", "status", "algorithm", "lineage", "registered", "bytes"]
    assert [line[:6].split() for line in lines] == [["<", "m0"], ["*", "m1"], ["~", "m2"], ["+", "m3"], ["m4"]]
    assert lines[4].split()[1:3] == ["1.4.0", "draft"]
    assert list_lines([], registry) == []


def test_the_history_of_a_model_says_who_changed_its_status_when_and_why() -> None:
    first = version("m1", created_time_ms=DAY_MS)
    tested = msgspec.structs.replace(
        first, status="testing", changes=1, changed_by="you@there", changed_time_ms=2 * DAY_MS, reason="looks good"
    )
    measured = msgspec.structs.replace(first, baseline="b" * 64)  # by somebody who had not seen the change
    registry = registry_of([first, tested, version("m2"), measured], [])
    found = description(registry.find("m1"), registry)
    assert (found["status"], found["baseline"], found["champion"], found["variant"]) == ("testing", "b" * 64, False, "")
    assert [(h["status"], h["by"], h["time"], h["reason"]) for h in found["history"]] == [
        ("draft", "me@here", "1970-01-02 00:00", "registered"),
        ("testing", "you@there", "1970-01-03 00:00", "looks good"),
    ]


def test_what_is_recorded_of_a_model_is_shown_without_anything_that_a_terminal_would_obey() -> None:
    first = version("m1", metrics={"auc": 0.75}, parameters={"note\x1b[2J": "a\nb"}, created_time_ms=DAY_MS)
    moved = msgspec.structs.replace(first, status="testing", changes=1, changed_by="you", reason="good\n\x1b[31mred")
    found = description(registry_of([first, moved], []).find("m1"), registry_of([first, moved], []))
    shown = list(description_lines(found))
    assert all(line.isprintable() for line in shown)
    lines = [line.split(maxsplit=1) for line in shown]
    assert ["metrics", "auc=0.75"] in lines
    assert ["parameters", r"note\x1b[2J=a\nb"] in lines
    assert ["created", "1970-01-02 00:00"] in lines
    assert shown[-1].endswith(r"by you: good\n\x1b[31mred")


ONE = version(
    "m1",
    version="1.0.0",
    features=("a", "b"),
    metrics={"auc": 0.7, "old": 1.0},
    parameters={"depth": 6, "same": "x", "flag": 1},
    training_to_time_ms=DAY_MS,
)
OTHER = version(
    "m2",
    version="2.0.0",
    features=("b", "c"),
    metrics={"auc": 0.75, "new": 2.0},
    parameters={"depth": 8, "same": "x", "flag": True},
    parent="m1",
    sha256="1" * 64,
    size_bytes=ONE.size_bytes + 1_500,
)


def test_a_comparison_has_figures_with_their_difference_and_all_else_that_differs() -> None:
    found = comparison(ONE, OTHER)
    assert found["metrics"] == {
        "auc": {"values": [0.7, 0.75], "difference": 0.75 - 0.7},
        "old": {"values": [1.0, None], "difference": None},
        "new": {"values": [None, 2.0], "difference": None},
    }
    assert found["parameters"] == {"depth": [6, 8], "flag": [1, True]}
    assert (found["features_added"], found["features_removed"], found["same_bytes"]) == (["c"], ["a"], False)
    assert found["properties"].keys() == {"version", "parent", "training_to_time_ms", "size_bytes", "sha256"}


def test_a_comparison_is_a_table_of_two_columns_and_the_difference() -> None:
    lines = [line.split() for line in comparison_lines(ONE, OTHER)]
    assert lines[:5] == [
        ["m1", "m2", "difference"],
        ["auc", "0.7", "0.75", "+0.05"],
        ["old", "1", "-"],
        ["new", "-", "2"],
        ["parameter", "depth", "6", "8"],
    ]
    assert ["size_bytes", *f"{ONE.size_bytes:,} {OTHER.size_bytes:,} +1,500".split()] in lines
    assert ["training_to", "1970-01-02", "00:00", "-"] in lines
    assert lines[-2:] == [["features", "added:", "c"], ["features", "removed:", "a"]]


def test_the_same_model_twice_differs_in_nothing_and_another_order_of_features_is_told() -> None:
    twin = msgspec.structs.replace(ONE, model_id="m2")
    assert [line for line in comparison_lines(ONE, twin) if line[0] != " "][-1] == "both are the same bytes"
    assert (comparison(ONE, twin)["properties"], comparison(ONE, twin)["parameters"]) == ({}, {})
    turned = msgspec.structs.replace(twin, features=("b", "a"))
    assert "the features are the same, in another order" in comparison_lines(ONE, turned)
