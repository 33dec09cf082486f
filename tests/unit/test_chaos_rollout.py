"""The checker of the chaos run of rollouts finds what it is there to find."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.rollout_checker import table_flaws
from ml.experiments.assignment import reshared
from schemas.experiments import CHAMPION, Experiment
from tests.rollout_log import EVENTS, REPLACE, FakeKafka, audit, deployments, predictions, report


@pytest.fixture
def kafka(tmp_path: Path) -> FakeKafka:
    return FakeKafka(tmp_path)


def test_a_run_without_a_flaw_is_right(kafka: FakeKafka) -> None:
    outcome = kafka.outcome()
    told = outcome.as_dict()
    assert "differences" not in told
    assert outcome.right
    assert (told["promoted"], told["rolled_back"]) == (True, True)
    assert (told["champion"], told["events"], told["moved_wrongly"]) == ("better", 9 * EVENTS, 0)
    assert [(step["action"], step["model"], step["share"], step["by"]) for step in told["steps"]] == [
        ("promote", "january", None, "a person"),
        ("start", "better", 0.1, "a person"),
        ("reshare", "better", 0.5, "itself"),
        ("reshare", "better", 1.0, "itself"),
        ("promote", "better", None, "itself"),
        ("start", "worse", 0.1, "a person"),
        ("stop", "worse", 0.0, "itself"),
        ("rollback", "january", None, "a person"),
        ("promote", "better", None, "a person"),
    ]
    assert list(told["shares"]) == ["better, epoch 0", "better, epoch 1", "better, epoch 2", "worse, epoch 0"]
    assert told["shares"]["better, epoch 2"]["observed"] == 1.0


def test_why_a_rollout_took_a_step_is_told_once_for_each_epoch(kafka: FakeKafka) -> None:
    assert kafka.outcome().as_dict()["why"] == {
        "better, epoch 0": {
            "step": "advance",
            "verdict": "better",
            "samples": 3_000,
            "broken": ["scores"],
            "brier": [(0.04, 0.01, 0.07)],
            "why": "it is better",
        }
    }


@pytest.mark.parametrize(
    ("plant", "figure"), [("skip", "lost"), ("double", "duplicated"), ("swap", "misassigned")], ids=str
)
def test_a_planted_fault_is_found(kafka: FakeKafka, plant: str, figure: str) -> None:
    outcome = kafka.outcome(plant)
    assert not outcome.right
    assert outcome.as_dict()[figure] == 1


@pytest.mark.parametrize(
    ("changes", "figure"),
    [
        ({"variant": "challenger"}, "misassigned"),
        ({"model_id": "m-worse"}, "other_model"),
        ({"deployment_revision": 99}, "unknown_revision"),
        ({"deployment_revision": 1}, "older_routing"),
    ],
)
def test_a_prediction_that_is_not_by_its_deployment_is_found(
    kafka: FakeKafka, changes: dict[str, Any], figure: str
) -> None:
    kafka.only(5, CHAMPION)[100].update(changes)
    outcome = kafka.outcome()
    assert not outcome.right
    assert outcome.as_dict()[figure] >= 1


def test_an_entity_that_leaves_the_challenger_is_found_though_each_prediction_is_as_its_table_says(
    kafka: FakeKafka,
) -> None:
    """The later tables are drawn anew: each has the shares asked for, and moves far more than it must."""
    old = deployments()[2].experiment
    assert old is not None
    anew = REPLACE(old, table=((1, 5_000), (0, 5_000)))
    kafka.change("deployments", 2, experiment=REPLACE(anew, table=((0, 5_000), (1, 5_000))))
    kafka.change("deployments", 1, experiment=REPLACE(_running(1), table=((1, 1_000), (0, 9_000))))
    kafka.topics["predictions"] = predictions(kafka.topics["deployments"])
    outcome = kafka.outcome()
    told = outcome.as_dict()
    assert (told["misassigned"], told["other_model"]) == (0, 0)
    assert told["moved_wrongly"] > 50
    assert "revision 3: 6000 buckets have moved, and 4000 had to" in told["differences"]
    assert not outcome.right


def _running(position: int) -> Experiment:
    running = deployments()[position].experiment
    assert running is not None
    return running


def test_entities_return_to_the_champion_when_a_share_shrinks_and_that_is_right() -> None:
    first, second, third = (_running(position) for position in (1, 2, 3))
    back = REPLACE(first, epoch=3, table=reshared(third.table, (9_000, 1_000)))
    told = deployments()[:4]
    told.append(REPLACE(told[3], revision=5, experiment=back))
    assert second.variants[1].buckets == 5_000
    assert table_flaws(told) == []


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({"table": ((0, 9_000), (1, 999))}, "the table does not give each of 10000 buckets to a variant"),
        ({"table": ((0, 9_000), (2, 1_000))}, "the table does not give each of 10000 buckets to a variant"),
        ({"table": ((0, 9_001), (1, 999))}, "the table does not give the variants the buckets that they have"),
    ],
)
def test_a_table_that_is_not_what_the_shares_say_is_found(changes: dict[str, Any], flaw: str) -> None:
    told = deployments()
    told[1] = REPLACE(told[1], experiment=REPLACE(_running(1), **changes))
    assert f"revision 2: {flaw}" in table_flaws(told)


def test_another_salt_during_an_experiment_is_found() -> None:
    told = deployments()
    told[2] = REPLACE(told[2], experiment=REPLACE(_running(2), salt="other"))
    assert "revision 3: the salt or the variants' names have changed during the experiment" in table_flaws(told)


def test_a_bucket_that_takes_the_wrong_way_is_found_though_the_number_is_right() -> None:
    """One bucket of the challenger is swapped for another of the champion, and one less than needed is given to it."""
    told = deployments()
    told[2] = REPLACE(told[2], experiment=REPLACE(_running(2), table=((0, 5_000), (1, 4_999), (0, 1))))
    found = table_flaws(told)
    assert "revision 3: a bucket has moved from a variant that does not shrink, or to one that does not grow" in found


def test_a_share_that_is_not_what_was_asked_for_is_found(kafka: FakeKafka) -> None:
    """Too many events come from the challenger's entities: everybody else's are left out, in most cases."""
    served = kafka.topics["predictions"]
    lost = {id(each) for each in kafka.only(2, CHAMPION)[: 3 * EVENTS // 4]}
    kafka.topics["predictions"] = [each for each in served if id(each) not in lost]
    outcome = kafka.outcome()
    assert any("the share of better, epoch 0 is " in each for each in outcome.as_dict()["differences"])


def test_a_single_event_of_the_champion_at_a_share_of_all_is_found(kafka: FakeKafka) -> None:
    kafka.only(4, "challenger")[0]["variant"] = CHAMPION
    told = kafka.outcome().as_dict()
    assert "the share of better, epoch 2 is inf deviations off" in told["differences"]
    assert told["misassigned"] == 1


def test_a_doubled_step_is_found(kafka: FakeKafka) -> None:
    kafka.change("deployments", 3, correlation_id="c3")
    found = kafka.outcome().as_dict()["differences"]
    assert "command c3 has changed the routing more than once" in found


def test_an_answer_that_is_missing_doubled_or_out_of_order_is_found(kafka: FakeKafka) -> None:
    answers = kafka.topics["audit"]
    kafka.topics["audit"] = [*answers[:5], answers[6], answers[5], *answers[7:-1], answers[-2]]
    found = kafka.outcome().as_dict()["differences"]
    assert "revision 8 has 2 audit events, and should have 1" in found
    assert "revision 9 has 0 audit events, and should have 1" in found
    assert "the audit log tells of the deployments in another order" in found


def test_a_rollout_may_be_answered_again_when_it_asks_again(kafka: FakeKafka) -> None:
    kafka.topics["audit"].append(audit()[2])
    outcome = kafka.outcome()
    assert outcome.right
    assert outcome.as_dict()["repeated_answers"] == 1


def test_a_refused_command_is_found(kafka: FakeKafka) -> None:
    refused = REPLACE(audit()[2], outcome="refused", correlation_id="x", issued_by="rollout r1", reason="too late")
    kafka.topics["audit"].append(refused)
    assert kafka.outcome().as_dict()["differences"] == ["rollout r1 was refused: too late"]


def test_a_skipped_epoch_is_found(kafka: FakeKafka) -> None:
    kafka.change("deployments", 2, experiment=REPLACE(_running(2), epoch=2))
    found = kafka.outcome().as_dict()["differences"]
    assert "revision 3 is not the next epoch of the experiment before it" in found


def test_deployments_that_are_not_numbered_one_by_one_are_found(kafka: FakeKafka) -> None:
    kafka.change("deployments", 8, revision=10)
    assert "the deployments are not numbered from 1 on, one by one" in kafka.outcome().as_dict()["differences"]


def test_a_step_that_a_person_took_in_the_rollouts_place_is_found(kafka: FakeKafka) -> None:
    kafka.change("deployments", 4, changed_by="anna")
    outcome = kafka.outcome()
    assert outcome.as_dict()["differences"] == [
        "step 5 is promote better by a person, and should be promote better by itself"
    ]
    assert not outcome.as_dict()["promoted"]


def test_a_worse_model_that_is_not_taken_back_by_itself_is_found(kafka: FakeKafka) -> None:
    kafka.change("deployments", 6, changed_by="anna")
    told = kafka.outcome().as_dict()
    assert not told["rolled_back"]
    assert told["differences"] == ["step 7 is stop worse at 0% by a person, and should be stop worse at 0% by itself"]


def test_a_step_too_few_is_found(kafka: FakeKafka) -> None:
    assert kafka.outcome(rollbacks=2).as_dict()["differences"] == ["there are 9 steps, and should be 11"]


def test_a_report_that_is_there_twice_is_found(kafka: FakeKafka) -> None:
    kafka.topics["experiments"].append(report(2, "advance"))
    assert kafka.outcome().as_dict()["differences"] == ["the reports of r1 are not numbered from 0 on, one by one"]


def test_a_run_that_ends_with_another_champion_is_wrong(kafka: FakeKafka) -> None:
    kafka.topics["deployments"].pop()
    kafka.topics["audit"].pop()
    kafka.topics["predictions"] = predictions(kafka.topics["deployments"])
    outcome = kafka.outcome()
    assert (outcome.champion, outcome.right) == ("january", False)
