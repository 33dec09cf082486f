"""How an experiment starts, gets other shares and ends, and why it may not."""

from typing import Any

import msgspec
import numpy as np
import pytest

from agents.routes import Routes, routes_of
from agents.routing import effect_of, rerouted
from ml.experiments.assignment import expanded
from ml.experiments.monitor import MAX_EPOCHS
from schemas.errors import PenstockError
from schemas.events import Command, Deployment, ModelVersion
from schemas.experiments import Experiment, ExperimentPlan, Variant
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from tests.support import deployment_of, experiment_of, version_of

SPEC = StreamSpec(name="flights", features=("a", "b"))
PLAN = ExperimentPlan(metric="brier")
ROLLOUT = msgspec.structs.replace(PLAN, steps=(0.1, 0.5, 1.0))
OWNERS = {"m1": "", "m2": "", "m3": "", "m4": "", "a1": "a", "a2": "a", "b1": "b", "b2": "b"}


def _find(model_id: str) -> ModelVersion | None:
    if model_id == "old":
        return msgspec.structs.replace(version_of(SPEC, model_id), status="archived")
    if model_id == "lost":
        return msgspec.structs.replace(version_of(SPEC, model_id), status="archived", pruned=True)
    if model_id not in OWNERS:
        return None
    return msgspec.structs.replace(version_of(SPEC, model_id), lineage=OWNERS[model_id])


def _start(**changes: Any) -> Command:
    command = Command(
        stream="flights",
        action="start",
        expected_revision=3,
        issued_by="ada",
        issued_time_ms=1,
        correlation_id="c",
        experiment_id="x",
        plan=PLAN,
        variants={"b": "m2"},
        shares={"b": 0.25},
    )
    return msgspec.structs.replace(command, **changes)


def _reshare(shares: dict[str, float], **changes: Any) -> Command:
    return _start(**({"action": "reshare", "plan": None, "variants": {}, "shares": shares} | changes))


def _stop(**changes: Any) -> Command:
    return _start(**({"action": "stop", "plan": None, "variants": {}, "shares": {}} | changes))


def _at(*shadows: str, experiment: Experiment | None = None) -> list[Deployment]:
    newest = deployment_of(SPEC, "m1", 3)
    return [msgspec.structs.replace(newest, shadows=shadows, previous="m4", held=True, experiment=experiment)]


def _run(command: Command, history: list[Deployment]) -> Experiment:
    experiment = rerouted(command, history, _find, 50).experiment
    assert experiment is not None
    return experiment


def test_an_experiment_gives_each_variant_its_share_of_the_buckets_and_the_champion_the_rest() -> None:
    command = _start(variants={"c": "m3", "b": "m2"}, shares={"b": 0.25, "c": 0.05})
    assert rerouted(command, _at("b1"), _find, 50) == Routes(
        "m1",
        ("b1",),
        previous="m4",
        held=True,
        experiment=Experiment(
            experiment_id="x",
            kind="experiment",
            plan=PLAN,
            salt="flights/x",
            variants=(
                Variant(name="champion", model_id="m1", buckets=7_000),
                Variant(name="c", model_id="m3", buckets=500),
                Variant(name="b", model_id="m2", buckets=2_500),
            ),
            table=((0, 7_000), (1, 500), (2, 2_500)),
            epoch=0,
            started_time_ms=50,
            started_by="ada",
        ),
    )


def test_a_plan_with_steps_is_a_rollout_that_begins_with_the_first() -> None:
    running = _run(_start(plan=ROLLOUT, shares={"b": 0.1}), _at())
    assert (running.kind, [variant.buckets for variant in running.variants]) == ("rollout", [9_000, 1_000])


def test_a_model_that_becomes_a_variant_is_no_shadow_any_more_and_neither_is_one_of_its_lineage() -> None:
    command = _start(variants={"b": "m2", "c": "a2"}, shares={"b": 0.1, "c": 0.1})
    assert rerouted(command, _at("m3", "m2", "a1", "b1"), _find, 0).shadows == ("m3", "b1")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"plan": None}, "a command to start must have a plan"),
        ({"experiment_id": ""}, "must name the experiment"),
        ({"expected_revision": 2}, "is at revision 3, not at 2"),
        ({"expected_revision": None}, "a command to start must name the revision that it expects: it is 3"),
        ({"variants": {}, "shares": {}}, "needs a variant besides the champion"),
        ({"variants": {"champion": "m2"}, "shares": {"champion": 0.5}}, "cannot be called 'champion'"),
        ({"variants": {"": "m2"}, "shares": {"": 0.5}}, "cannot be called ''"),
        ({"variants": {"v" * 257: "m2"}}, "choose another name"),
        ({"variants": {"b": "m99"}}, "no model 'm99' is registered in stream 'flights'"),
        ({"variants": {"b": ""}}, "a command to start must name a model"),
        ({"variants": {"b": "m1"}}, "model m1 is the champion: variant 'b' needs another one"),
        ({"variants": {"b": "old"}}, "model old is archived; restore it first"),
        ({"variants": {"b": "lost"}}, "model lost was pruned"),
        ({"variants": {"b": "m2", "c": "m2"}, "shares": {"b": 0.1, "c": 0.1}}, "two variants have model m2"),
        ({"variants": {"b": "a1", "c": "a2"}, "shares": {"b": 0.1, "c": 0.1}}, "two variants have lineage a"),
        ({"shares": {}}, "the share of 'b' is missing"),
        ({"shares": {"b": 0.1, "c": 0.1}}, "there is no variant 'c'; the variants are b"),
        ({"shares": {"b": 0.1, "champion": 0.9}}, "the share of 'champion' is not asked for"),
        ({"shares": {"b": -0.1}}, "the share of 'b' is -10 %; it must be from 0 to 100 %"),
        ({"shares": {"b": 1.2}}, "the share of 'b' is 120 %; it must be from 0 to 100 %"),
        ({"shares": {"b": float("nan")}}, "it must be from 0 to 100 %"),
        ({"variants": {"b": "m2", "c": "m3"}, "shares": {"b": 0.6, "c": 0.6}}, "add up to 120 %, which is more"),
        ({"shares": {"b": 0.00004}}, "the share of 'b' is less than one of 10,000 buckets"),
        ({"shares": {"b": 0.0}}, "the share of 'b' is less than one of 10,000 buckets"),
        ({"shares": {"b": 1.0}}, "the share of 'champion' is less than one of 10,000 buckets"),
        ({"plan": ROLLOUT, "shares": {"b": 0.5}}, r"a rollout starts at its first step, 10 %, not at 50 %"),
        ({"plan": msgspec.structs.replace(PLAN, steps=(0.25, 0.25))}, "the steps of a rollout must rise"),
        (
            {"plan": msgspec.structs.replace(PLAN, steps=tuple(0.01 * i for i in range(1, 34))), "shares": {"b": 0.01}},
            "a rollout has 32 steps at most, not 33",
        ),
        (
            {"plan": msgspec.structs.replace(PLAN, steps=(1.0,)), "shares": {"b": 1.0}},
            "the share of 'champion' is less than one of 10,000 buckets: it would get no traffic",
        ),
        ({"experiment_id": "x" * 201}, "the name of an experiment has 200 characters at most, not 201"),
        (
            {"plan": ROLLOUT, "variants": {"b": "m2", "c": "m3"}, "shares": {"b": 0.1, "c": 0.1}},
            "a rollout has one variant besides the champion, not 2",
        ),
    ],
)
def test_an_experiment_that_makes_no_sense_is_refused_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PenstockError, match=sentence):
        rerouted(_start(**changes), _at(), _find, 0)


def test_the_longest_name_fits_into_what_a_rollout_asks_for() -> None:
    running = _run(_start(plan=ROLLOUT, shares={"b": 0.1}, experiment_id="x" * 200), _at())
    asked = {"experiment_id": "x" * 200, "correlation_id": f"{'x' * 200}-{MAX_EPOCHS}-promote"}
    command = _reshare({"b": 0.5}, issued_by=f"rollout {'x' * 200}", **asked)
    assert _run(decode(Command, encode(command)), _at(experiment=running)).epoch == 1


def test_a_stream_without_a_champion_has_no_experiment() -> None:
    with pytest.raises(PenstockError, match="no champion yet to compare with"):
        rerouted(_start(expected_revision=0), [], _find, 0)


def test_a_version_of_the_champion_s_lineage_is_no_challenger() -> None:
    history = [msgspec.structs.replace(deployment_of(SPEC, "a1", 3))]
    with pytest.raises(PenstockError, match="model a2 of variant 'b' is of the same lineage as the champion a1"):
        rerouted(_start(variants={"b": "a2"}), history, _find, 0)


def test_a_stream_has_one_experiment_at_a_time_and_no_name_twice() -> None:
    running = _at(experiment=experiment_of("m1", "m3", experiment_id="w"))
    with pytest.raises(
        PenstockError,
        match="experiment 'w' runs, and a stream has one at a time; stop it first: penstock experiments stop w",
    ):
        rerouted(_start(), running, _find, 0)
    ended = [*running, *_at()]
    with pytest.raises(PenstockError, match="there was an experiment or rollout 'w' before: choose another name"):
        rerouted(_start(experiment_id="w"), ended, _find, 0)


@pytest.mark.parametrize(
    ("task", "plan", "sentence"),
    [
        ("anomaly", {}, "brier needs probabilities"),
        ("anomaly", {"metric": "cost", "guard_metrics": ("log_loss",)}, "log_loss needs probabilities"),
        ("multiclass", {"metric": "cost"}, "cost is of false positives and negatives"),
    ],
)
def test_a_metric_that_the_stream_does_not_have_is_refused(task: str, plan: dict[str, Any], sentence: str) -> None:
    def find(model_id: str) -> ModelVersion | None:
        return msgspec.structs.replace(version_of(SPEC, model_id), task=task)

    with pytest.raises(PenstockError, match=sentence):
        rerouted(_start(plan=msgspec.structs.replace(PLAN, **plan)), _at(), find, 0)
    good = msgspec.structs.replace(PLAN, metric="accuracy")
    assert rerouted(_start(plan=good), _at(), find, 0).experiment is not None


def test_other_shares_move_only_the_buckets_that_must_move() -> None:
    before = _run(_start(variants={"b": "m2", "c": "m3"}, shares={"b": 0.2, "c": 0.3}), _at())
    after = _run(_reshare({"c": 0.1, "b": 0.35}), _at(experiment=before))
    assert [variant.buckets for variant in after.variants] == [5_500, 3_500, 1_000]
    old, new = expanded(before.table), expanded(after.table)
    assert np.bincount(new).tolist() == [5_500, 3_500, 1_000]
    assert int((old != new).sum()) == 2_000
    assert set(old[old != new].tolist()) == {2}
    assert (after.epoch, after.salt, after.started_time_ms) == (1, before.salt, before.started_time_ms)


def test_a_variant_may_get_nothing_for_a_while() -> None:
    before = _run(_start(variants={"b": "m2", "c": "m3"}, shares={"b": 0.2, "c": 0.3}), _at())
    after = _run(_reshare({"c": 0.3, "b": 0.0}), _at(experiment=before))
    assert [variant.buckets for variant in after.variants] == [7_000, 0, 3_000]


RUNNING = _run(_start(), _at())
STEPPING = _run(_start(plan=ROLLOUT, shares={"b": 0.1}), _at())


@pytest.mark.parametrize(
    ("experiment", "command", "sentence"),
    [
        (None, _reshare({"b": 0.5}), "experiment 'x' does not run; no experiment or rollout does"),
        (None, _stop(), "experiment 'x' does not run; no experiment or rollout does"),
        (RUNNING, _reshare({"b": 0.5}, experiment_id="y"), "experiment 'y' does not run; what does is experiment 'x'"),
        (RUNNING, _stop(experiment_id="y"), "experiment 'y' does not run; what does is experiment 'x'"),
        (RUNNING, _reshare({"b": 0.5}, experiment_id=""), "a command to reshare must name the experiment"),
        (RUNNING, _stop(experiment_id=""), "a command to stop must name the experiment"),
        (RUNNING, _reshare({}), "the share of 'b' is missing"),
        (RUNNING, _reshare({"b": 0.5, "c": 0.1}), "there is no variant 'c'"),
        (RUNNING, _reshare({"b": 1.5}), "it must be from 0 to 100 %"),
        (RUNNING, _reshare({"b": 0.00001}), "less than one of 10,000 buckets"),
        (RUNNING, _reshare({"b": 0.25}), "experiment 'x' has these shares already"),
        (RUNNING, _reshare({"b": 0.5}, expected_revision=2), "is at revision 3, not at 2"),
        (RUNNING, _reshare({"b": 0.5}, expected_revision=None), "must name the revision"),
        (RUNNING, _stop(expected_revision=None, expected_epoch=1), "is at epoch 0, not at 1"),
        (STEPPING, _reshare({"b": 0.4}), "the share 40 % is no step of this rollout; its steps are 10 %, 50 %, 100 %"),
        (STEPPING, _reshare({"b": 0.5}, expected_epoch=4), "rollout 'x' is at epoch 0, not at 4"),
    ],
)
def test_other_shares_and_an_end_are_refused_in_one_sentence(
    experiment: Experiment | None, command: Command, sentence: str
) -> None:
    with pytest.raises(PenstockError, match=sentence):
        rerouted(command, _at(experiment=experiment), _find, 0)


def test_a_rollout_takes_its_steps_by_the_epoch_whatever_the_revision_is() -> None:
    command = _reshare({"b": 0.5}, expected_revision=None, expected_epoch=0)
    second = _run(command, _at(experiment=STEPPING))
    assert (second.epoch, [variant.buckets for variant in second.variants]) == (1, [5_000, 5_000])
    last = _run(msgspec.structs.replace(command, expected_epoch=1, shares={"b": 1.0}), _at(experiment=second))
    assert (last.epoch, last.table) == (2, ((1, 10_000),))
    promote = msgspec.structs.replace(command, action="promote", model_id="m2", expected_epoch=2)
    assert rerouted(promote, _at(experiment=last), _find, 0) == Routes("m2", previous="m1")
    with pytest.raises(PenstockError, match="is at epoch 2, not at 1"):
        rerouted(msgspec.structs.replace(promote, expected_epoch=1), _at(experiment=last), _find, 0)


def test_an_experiment_has_no_more_epochs_than_can_be_judged() -> None:
    running = msgspec.structs.replace(_run(_start(), _at()), epoch=MAX_EPOCHS - 2)
    last = _run(_reshare({"b": 0.3}), _at(experiment=running))
    assert last.epoch == MAX_EPOCHS - 1
    with pytest.raises(PenstockError, match="were changed 31 times, and cannot be changed again"):
        _run(_reshare({"b": 0.4}), _at(experiment=last))


def test_an_end_leaves_the_champion_and_the_shadows() -> None:
    history = _at("m3", experiment=RUNNING)
    assert rerouted(_stop(), history, _find, 0) == routes_of(history)._replace(experiment=None)


@pytest.mark.parametrize(
    ("before", "command"),
    [(None, _start()), (RUNNING, _reshare({"b": 0.5})), (RUNNING, _stop())],
)
def test_a_command_of_an_experiment_was_done_when_its_effect_is_there(
    before: Experiment | None, command: Command
) -> None:
    history = _at(experiment=before)
    routes = rerouted(command, history, _find, 0)
    done = msgspec.structs.replace(history[-1], revision=4, experiment=routes.experiment, correlation_id="c")
    assert effect_of(command, [*history, done]) is done
    assert effect_of(command, history) is None
    assert effect_of(msgspec.structs.replace(command, experiment_id="y"), [*history, done]) is None
    unchanged = msgspec.structs.replace(done, experiment=before)
    assert effect_of(command, [*history, unchanged]) is None
