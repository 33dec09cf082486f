"""The checker of the swap benchmark finds predictions that a half-loaded or a wrong model would make."""

import msgspec
import numpy as np
import pytest
import xgboost

from benchmarks import synthetic
from benchmarks.checker import Place
from benchmarks.swap_checker import Answer, Event, Prediction, swap_times_s, wrong_scores, wrong_switches

VALUES = synthetic.draw(40, seed=3)
PLACES = [Place(row % 2, row // 2) for row in range(40)]
DEPLOYMENTS = {1: "first", 2: "second"}


@pytest.fixture(scope="module")
def models() -> dict[str, xgboost.Booster]:
    return {"first": synthetic.train(1, trees=2), "second": synthetic.train(2, trees=2)}


@pytest.fixture(scope="module")
def events() -> dict[Place, Event]:
    rows = [[None if np.isnan(value) else value for value in row] for row in VALUES.tolist()]
    return {
        place: Event(synthetic.event_id(number), dict(zip(synthetic.FEATURES, row, strict=True)))
        for number, (place, row) in enumerate(zip(PLACES, rows, strict=True))
    }


@pytest.fixture(scope="module")
def predictions(models: dict[str, xgboost.Booster]) -> list[Prediction]:
    """The first half of each partition by the first model, the rest by the second."""
    scores = {model: list(synthetic.expected_scores(booster, VALUES).values()) for model, booster in models.items()}
    made = []
    for number, place in enumerate(PLACES):
        revision = 1 if number < 20 else 2
        model_id = DEPLOYMENTS[revision]
        made.append(
            Prediction(synthetic.event_id(number), model_id, revision, scores[model_id][number], 1_000 + number, *place)
        )
    return made


def _with(predictions: list[Prediction], number: int, **changes: object) -> list[Prediction]:
    changed = msgspec.structs.replace(predictions[number], **changes)
    return [*predictions[:number], changed, *predictions[number + 1 :]]


def test_right_predictions_have_no_flaw(
    events: dict[Place, Event], predictions: list[Prediction], models: dict[str, xgboost.Booster]
) -> None:
    assert wrong_scores(events, predictions, models) == 0
    assert wrong_switches(predictions, DEPLOYMENTS) == 0


def test_a_score_that_is_off_by_one_bit_is_wrong(
    events: dict[Place, Event], predictions: list[Prediction], models: dict[str, xgboost.Booster]
) -> None:
    nearly = float(np.nextafter(np.float32(predictions[5].score), np.float32(1)))
    assert wrong_scores(events, _with(predictions, 5, score=nearly), models) == 1


def test_the_score_of_another_model_than_the_named_one_is_wrong(
    events: dict[Place, Event], predictions: list[Prediction], models: dict[str, xgboost.Booster]
) -> None:
    assert wrong_scores(events, _with(predictions, 5, model_id="second"), models) == 1


def test_a_prediction_by_a_model_that_nobody_registered_is_wrong(
    events: dict[Place, Event], predictions: list[Prediction], models: dict[str, xgboost.Booster]
) -> None:
    assert wrong_scores(events, _with(predictions, 5, model_id="third"), models) == 1


def test_a_model_that_its_deployment_does_not_name_is_a_wrong_switch(predictions: list[Prediction]) -> None:
    assert wrong_switches(_with(predictions, 5, model_id="second"), DEPLOYMENTS) == 1


def test_a_step_back_to_an_older_deployment_is_a_wrong_switch(predictions: list[Prediction]) -> None:
    assert wrong_switches(_with(predictions, 30, model_id="first", deployment_revision=1), DEPLOYMENTS) == 1


def test_a_partition_that_never_got_to_the_newest_deployment_is_a_wrong_switch(predictions: list[Prediction]) -> None:
    assert wrong_switches(predictions, DEPLOYMENTS | {3: "third"}) == 2


def test_a_swap_lasts_from_the_answer_to_the_first_prediction_of_the_new_deployment(
    predictions: list[Prediction],
) -> None:
    answers = [
        Answer(action="promote", revision=1, decided_time_ms=0),
        Answer(action="promote", revision=2, decided_time_ms=970),
    ]
    assert swap_times_s(predictions, answers) == {"median": 0.05, "max": 0.05}
