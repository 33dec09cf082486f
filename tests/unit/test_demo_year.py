"""What retraining was worth: the very same events, scored by January's model, with the days as clusters."""

import numpy as np
import pytest
import xgboost

from app.demo.champion import roc_auc, train_champion
from app.demo.fault import CARRIER, FEATURE, KILOMETRES, Fault
from app.demo.feedback import Served
from app.demo.flights import FEATURES, NO_LABEL, Flights, carrier, load_flights, replay_start
from app.demo.year import Year, judge_year, static_scores


@pytest.fixture(scope="module")
def flights() -> Flights:
    return load_flights()


@pytest.fixture(scope="module")
def champion(flights: Flights) -> xgboost.Booster:
    return train_champion(flights, seed=1)


def february(flights: Flights, count: int = 8_000) -> np.ndarray:
    rows = np.flatnonzero((flights.labels != NO_LABEL) & (np.arange(len(flights)) >= flights.first_at(replay_start())))
    return rows[:count]


def served_by(scores: np.ndarray, flights: Flights, rows: np.ndarray) -> Served:
    return Served([flights.event_ids[row] for row in rows], flights.labels[rows], scores[rows])


def test_what_january_served_alone_is_no_difference(flights: Flights, champion: xgboost.Booster) -> None:
    rows, scores = february(flights), static_scores(champion, flights, Fault())
    year = judge_year(flights, champion, Fault(), served_by(scores, flights, rows))
    assert (year.difference, year.low, year.high) == (0, 0, 0)
    assert year.static == pytest.approx(roc_auc(flights.labels[rows], scores[rows]))
    assert "includes 0" in year.summary()


def test_better_scores_are_a_difference_whose_interval_excludes_zero(
    flights: Flights, champion: xgboost.Booster
) -> None:
    rows, scores = february(flights), static_scores(champion, flights, Fault())
    better = scores + 0.1 * (flights.labels == 1)
    year = judge_year(flights, champion, Fault(), served_by(better, flights, rows))
    assert year.low is not None
    assert year.difference is not None
    assert year.high is not None
    assert 0 < year.low < year.difference < year.high
    assert "excludes 0" in year.summary()
    assert [month.month for month in year.months] == ["Feb"]
    assert year.months[0].samples == len(rows)


def test_days_are_the_clusters_so_more_flights_of_a_day_say_little_more(
    flights: Flights, champion: xgboost.Booster
) -> None:
    rows, scores = february(flights), static_scores(champion, flights, Fault())
    lucky = np.random.default_rng(3).normal(0, 0.05, 400)[flights.event_time_ms // 86_400_000 % 400]
    year = judge_year(flights, champion, Fault(), served_by(scores + lucky, flights, rows))
    assert year.low is not None
    assert year.high is not None
    assert year.high - year.low > 0.005, "flights as clusters would give a third of this"


def test_the_static_model_sees_the_fault_as_it_was_sent(flights: Flights, champion: xgboost.Booster) -> None:
    first = len(flights) - 500
    clean, faulty = static_scores(champion, flights, Fault()), static_scores(champion, flights, Fault(first))
    assert np.array_equal(clean[:first], faulty[:first])
    row = next(row for row in range(first, len(flights)) if carrier(flights, row) == CARRIER)
    features = flights.features[row].astype(np.float32)
    place = FEATURES.index(FEATURE)
    features[place] = round(float(flights.features[row][place]) * KILOMETRES, 1)
    assert faulty[row] == champion.inplace_predict(features[None, :])[0]


def test_without_both_classes_nothing_is_said(flights: Flights, champion: xgboost.Booster) -> None:
    rows = february(flights)[:1]
    scores = static_scores(champion, flights, Fault())
    assert judge_year(flights, champion, Fault(), served_by(scores, flights, rows)) == Year()
    assert "Too few days" in Year().summary()
