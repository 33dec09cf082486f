"""Plans of experiments from settings, table and command line, and what became of each experiment."""

from typing import Any

import click
import msgspec
import pytest

from app.cli.experiment_options import split_plan
from app.cli.experiments import list_lines
from app.cli.types import (
    LimitType,
    NamedShareType,
    NumberType,
    ShareType,
    StepsType,
    VariantType,
    VersionType,
)
from app.experiments import assignment_of, course_of, courses_of, next_step, plan_of, share_of
from app.settings import Settings
from ml.experiments.assignment import buckets_of, expanded, initial_table, reshared
from schemas.errors import PenstockError
from schemas.events import Deployment
from schemas.experiments import Experiment, ExperimentPlan, Variant
from schemas.streams import ExperimentSpec, StreamSpec

SPEC = StreamSpec(name="flights", features=("a", "b"))
STEPS = (0.1, 0.5, 1.0)


def experiment_of(name: str, share: float = 0.2, *, epoch: int = 0, steps: tuple[float, ...] = ()) -> Experiment:
    buckets = round(share * 10_000)
    return Experiment(
        experiment_id=name,
        kind="rollout" if steps else "experiment",
        plan=ExperimentPlan(metric="brier", steps=steps),
        salt=f"flights/{name}",
        variants=(
            Variant(name="champion", model_id="m1", buckets=10_000 - buckets),
            Variant(name="B", model_id="m2", buckets=buckets),
        ),
        table=initial_table([10_000 - buckets, buckets]),
        epoch=epoch,
        started_by="me@here",
    )


def deployment_of(revision: int, experiment: Experiment | None = None, champion: str = "m1", **more: Any) -> Deployment:
    return Deployment(
        stream="flights",
        revision=revision,
        champion=champion,
        changed_time_ms=revision * 60_000,
        changed_by="me@here",
        correlation_id=str(revision),
        experiment=experiment,
        **more,
    )


def test_a_plan_is_what_the_table_says_then_the_settings_and_has_no_steps_of_its_own() -> None:
    assert plan_of(Settings(ab_min_samples=700), SPEC, {}) == ExperimentPlan(metric="brier", min_samples=700)
    table = ExperimentSpec(
        metric="cost",
        false_negative_cost=5.0,
        alpha=0.1,
        margin=0.2,
        min_samples=50,
        guard_metrics=("accuracy",),
        max_error_share=0.5,
        max_call_ms=3.0,
        max_score_psi=2.0,
    )
    spec = msgspec.structs.replace(SPEC, experiments=table)
    assert plan_of(Settings(), spec, {}) == ExperimentPlan(
        metric="cost",
        false_negative_cost=5.0,
        alpha=0.1,
        margin=0.2,
        min_samples=50,
        guard_metrics=("accuracy",),
        max_error_share=0.5,
        max_call_ms=3.0,
        max_score_psi=2.0,
    )


def test_what_is_asked_for_wins_over_the_table_and_may_be_off() -> None:
    asked = {"metric": "accuracy", "max_call_ms": None, "steps": STEPS, "automatic": False}
    plan = plan_of(Settings(), SPEC, asked)
    assert (plan.metric, plan.max_call_ms, plan.max_error_share) == ("accuracy", None, 0.01)
    assert (plan.steps, plan.automatic) == (STEPS, False)


def test_an_anomaly_stream_compares_accuracy_because_its_scores_are_no_probabilities() -> None:
    assert plan_of(Settings(), msgspec.structs.replace(SPEC, task="anomaly"), {}).metric == "accuracy"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ShareType(), "20", 0.2),
        (ShareType(), "20%", 0.2),
        (ShareType(), "7", 0.07),
        (ShareType(), "2.5%", 0.025),
        (ShareType(), "120", 1.2),  # refused by control, and audited
        (ShareType(), "-5", -0.05),
        (StepsType(), "10, 50,100%", STEPS),
        (NamedShareType(), "B=20", ("B", 0.2)),
        (VariantType(), "B=flights-1:x:20%", ("B", "flights-1:x", 0.2)),
        (VariantType(), "B=a=b:1", ("B", "a=b", 0.01)),
        (LimitType(), "0.5", 0.5),
        (LimitType(0, 1), "off", "off"),
        (NumberType(0, 1), "1", 1.0),
        (VersionType(), "1.20.0", "1.20.0"),
    ],
)
def test_shares_are_per_cent(kind: click.ParamType, text: str, value: object) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ShareType(), "much"),
        (ShareType(), "nan"),
        (ShareType(), "inf%"),
        (StepsType(), "10,,50"),
        (NamedShareType(), "20"),
        (NamedShareType(), "=20"),
        (NamedShareType(), "B=m2:20"),
        (VariantType(), "B=20"),
        (VariantType(), "m2:20"),
        (VariantType(), "=m2:20"),
        (VariantType(), "B=m2:lots"),
        (StepsType(), "10,150"),
        (StepsType(), "0,50"),
        (LimitType(), "none"),
        (LimitType(), "nan"),
        (LimitType(min=0), "inf"),
        (LimitType(0, 1), "1.01"),
        (NumberType(0, 1, min_open=True), "0"),
        (NumberType(min=0), "-inf"),
        (VersionType(), "banana"),
    ],
)
def test_what_is_no_share_no_number_and_no_version_is_told_in_words(kind: click.ParamType, text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"such as|is not a valid float|not a finite number|not in the range"):
        kind.convert(text, None, None)


def test_what_was_not_given_of_a_plan_is_left_to_the_table() -> None:
    asked = {"metric": None, "alpha": 0.1, "guard_metrics": (), "max_call_ms": "off", "reason": "", "steps": None}
    assert split_plan(asked) == ({"alpha": 0.1, "max_call_ms": None}, {"reason": ""})


def test_the_deployments_tell_what_became_of_each_experiment() -> None:
    first, second = experiment_of("first"), experiment_of("second", 0.1, steps=STEPS)
    grown = msgspec.structs.replace(second, epoch=1)
    history = [
        deployment_of(1),
        deployment_of(2, first),
        deployment_of(3, first, shadows=("m3",)),
        deployment_of(4, shadows=("m3",)),
        deployment_of(5, second),
        deployment_of(6, grown),
        deployment_of(7, champion="m2"),
        deployment_of(8, experiment_of("third"), champion="m1"),
    ]
    one, two, three = courses_of(history)
    assert ([d.revision for d in one.steps], one.outcome) == ([2], "champion m1 stayed")
    assert ([d.revision for d in two.steps], two.outcome) == ([5, 6], "B m2 was promoted")
    assert (two.experiment, two.ended) == (grown, history[6])
    assert (three.ended, three.outcome) == (None, "")
    assert course_of(history, None) == three
    assert course_of(history, "first") == one
    assert course_of(history[:4], None) is None
    with pytest.raises(
        PenstockError, match=r"no experiment or rollout 'fourth'; those that there were: first, second, third$"
    ):
        course_of(history, "fourth")


def test_another_model_than_a_variant_may_become_the_champion_when_an_experiment_ends() -> None:
    [course] = courses_of([deployment_of(1, experiment_of("x")), deployment_of(2, champion="m0")])
    assert course.outcome == "m0 became the champion"


def test_a_list_says_of_a_roll_back_that_it_was_one_and_why() -> None:
    back = deployment_of(2, champion="m0", held=True, reason="it was worse")
    [course] = courses_of([deployment_of(1, experiment_of("x")), back])
    assert course.outcome == "rolled back to m0"
    assert list_lines([course])[1].endswith("rolled back to m0: it was worse")


def test_a_rollout_goes_on_to_the_next_share_until_the_last() -> None:
    assert [next_step(experiment_of("r", share, steps=STEPS)) for share in STEPS] == [0.5, 1.0, None]
    third = 1 / 3  # whose buckets are 3,333
    assert next_step(experiment_of("r", 0.3333, steps=(third, 1.0))) == 1.0
    with pytest.raises(PenstockError, match="is no rollout and has no steps"):
        next_step(experiment_of("x"))


def test_an_entity_is_in_the_variant_that_has_its_bucket_also_after_shares_have_changed() -> None:
    before = experiment_of("x")
    after = msgspec.structs.replace(before, epoch=1, table=reshared(before.table, [5_000, 5_000]))
    found = set()
    for number in range(50):
        entity = f"e{number}"
        for deployment in (deployment_of(1, before), deployment_of(2, after)):
            assert deployment.experiment is not None
            assigned = assignment_of(deployment, entity)
            bucket = int(buckets_of([entity.encode()], "flights/x")[0])
            position = int(expanded(deployment.experiment.table)[bucket])
            assert (assigned.bucket, assigned.variant) == (bucket, ("champion", "B")[position])
            assert (assigned.epoch, assigned.deployment_revision) == (position_of(deployment), deployment.revision)
            found.add((assigned.epoch, assigned.variant, assigned.model_id))
    assert found == {(0, "champion", "m1"), (0, "B", "m2"), (1, "champion", "m1"), (1, "B", "m2")}


def position_of(deployment: Deployment) -> int:
    assert deployment.experiment is not None
    return deployment.experiment.epoch


def test_without_an_experiment_or_with_an_id_that_is_no_text_there_is_no_assignment() -> None:
    with pytest.raises(PenstockError, match="its champion m1 serves every entity"):
        assignment_of(deployment_of(1), "e1")
    with pytest.raises(PenstockError, match="is not empty"):
        assignment_of(deployment_of(1, experiment_of("x")), "")
    with pytest.raises(PenstockError, match="not UTF-8"):
        assignment_of(deployment_of(1, experiment_of("x")), "\udcff")


def test_a_share_is_that_of_the_buckets() -> None:
    assert share_of(experiment_of("x"), "B") == 0.2
