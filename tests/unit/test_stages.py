"""The stages of a stream: what they take from the settings."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from agents.learn import Learn
from agents.notify import Notify
from agents.shelf import ModelShelf
from agents.train import Train
from app.roles import ROLES, inputs_of
from app.settings import Settings, load_settings
from app.stages import StreamStages, drift_of
from schemas.sinks import Sink, SlackSpec
from schemas.streams import DriftSpec, LearnerSpec, StreamSpec
from schemas.training import TrainingSpec
from stream.metric_values import Metrics
from tests.support import deployment_of, version_of
from tests.training import resources_of

ENVIRON = {
    "ML_ONLINE_STRATEGY": "periodic",
    "ML_ONLINE_BATCH_SIZE": "7",
    "ML_ONLINE_MAX_BUFFER": "70",
    "ML_MODEL_SIGNING_KEY": "a key for tests",
}


def nothing(*_: Any) -> Any:
    raise AssertionError("nothing is opened here")


def stages_of(settings: Settings, training: TrainingSpec | None = None, **learners: LearnerSpec) -> StreamStages:
    stream = StreamSpec(name="flights", features=("a",), learners=learners, training=training)
    return StreamStages(stream, settings, ModelShelf(nothing, 1), Metrics(), nothing, nothing, nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (LearnerSpec(algorithm="river-logistic"), ("periodic", 7, 70)),
        (LearnerSpec(algorithm="river-logistic", strategy="adaptive"), ("adaptive", 7, 70)),
        (LearnerSpec(algorithm="river-logistic", batch_size=3, max_buffer=9), ("periodic", 3, 9)),
    ],
)
def test_a_learner_takes_from_the_settings_what_its_table_leaves_open(
    declared: LearnerSpec, expected: tuple[str, int, int]
) -> None:
    stages = stages_of(load_settings(ENVIRON), online=declared)
    [made] = [stage.make(0, 1) for stage in stages.stages("learn") if stage.group == "learn-online"]
    assert isinstance(made, Learn)
    learner = made._learner
    assert (learner.strategy, learner.batch_size, learner.max_buffer) == expected


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (DriftSpec(), (500, 60, 0.01)),
        (DriftSpec(window_events=20, check_seconds=7, threshold=0.0), (20, 7, 0.0)),
        (DriftSpec(window_minutes=5, min_psi=0.2), (500, 60, 0.01)),
    ],
)
def test_how_drift_is_watched_comes_from_the_settings_where_the_stream_s_table_leaves_it_open(
    declared: DriftSpec, expected: tuple[int, int, float]
) -> None:
    environ = {"ML_DRIFT_WINDOW_SIZE": "500", "ML_DRIFT_CHECK_INTERVAL": "60", "ML_DRIFT_THRESHOLD": "0.01"}
    drift = drift_of(load_settings(environ), StreamSpec(name="flights", features=("a",), drift=declared))
    assert (drift.window_events, drift.check_seconds, drift.threshold) == expected
    assert (drift.window_minutes, drift.min_psi) == (declared.window_minutes, declared.min_psi)


def test_a_run_gets_its_stream_with_what_the_settings_say_of_drift() -> None:
    settings = load_settings(ENVIRON | {"ML_DRIFT_THRESHOLD": "0.003"})
    stages = stages_of(settings, TrainingSpec())
    stages._resources = resources_of
    stages._follower = SimpleNamespace(caught_up=nothing)  # type: ignore[assignment]
    [stage] = stages.stages("train")
    made = stage.make(0, 1)
    assert isinstance(made, Train)
    assert made._spec == replace(stages.spec, drift=drift_of(settings, stages.spec))
    assert made._spec.drift.threshold == 0.003


def test_the_stages_read_what_the_doctor_looks_at() -> None:
    stages = stages_of(Settings(), TrainingSpec(), online=LearnerSpec(algorithm="river-logistic"))
    for role in ROLES:
        made = {stage.group: stage.topics for stage in stages.stages(role)}
        assert made == inputs_of(stages.spec, role)


def test_alerts_are_delivered_where_a_sink_gets_those_of_the_stream() -> None:
    sinks = (
        Sink(SlackSpec(name="ops"), "https://hooks.example.com/T0"),
        Sink(SlackSpec(name="birds", streams=("birds",)), "https://hooks.example.com/T1"),
    )
    stages = {stage.group: stage for stage in stages_of(Settings(sinks=sinks)).stages("learn")}
    assert (stages["notify"].topics, stages["notify"].single) == (("flights.alerts",), True)
    made = stages["notify"].make(0, 1)
    assert isinstance(made, Notify)
    assert [outlet.spec.name for outlet in made._outlets] == ["ops"]
    for none in (Settings(), Settings(sinks=sinks[1:])):  # what waits from before is to be given up
        [stage] = [stage for stage in stages_of(none).stages("learn") if stage.group == "notify"]
        made = stage.make(0, 1)
        assert isinstance(made, Notify)
        assert not made._outlets


def test_only_a_stream_that_is_trained_has_a_train_stage_and_on_one_partition_only() -> None:
    [stage] = stages_of(Settings(), TrainingSpec()).stages("train")
    assert (stage.group, stage.topics, stage.single) == ("train", ("flights.retrain",), True)
    assert stages_of(Settings()).stages("train") == []


def test_statuses_and_routed_models_come_from_the_views() -> None:
    stages = stages_of(Settings())
    old, new = version_of(stages.spec, "old"), version_of(stages.spec, "new")
    other = version_of(stages.spec, "other")
    assert (stages.statuses, stages.routed) == (Counter(), [])
    stages.models.events += [old, new, other, replace(new, status="production", changes=1)]
    assert stages.statuses == {"draft": 2, "production": 1}
    stages.deployments.events.append(replace(deployment_of(stages.spec, "new", 1), previous="old", shadows=("gone",)))
    assert [(version.model_id, version.status) for version in stages.routed] == [
        ("new", "production"),
        ("old", "draft"),
    ]
