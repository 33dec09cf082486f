"""An experiment on the score stage: every event is scored by the model of the variant that its entity belongs to."""

import logging
from typing import Any

import numpy as np
import pytest

from agents.arms import Arm, ask_arms
from ml.experiments.assignment import Runs, bucket_counts, initial_table, reshared
from schemas.events import Prediction, ShadowScore
from stream.batches import Outbox, TopicPartition
from stream.metric_values import Metrics
from tests.scoring import (
    BINARY,
    CLASSES,
    HOME,
    Answers,
    Bench,
    Constant,
    Raises,
    compare,
    entities,
    measured,
    places_of,
    record_of,
    saved,
)
from tests.support import Entry, Model, batch

NAMES = entities(60)
ALL_TO_B: Runs = ((1, 10_000),)


def records(**values: float) -> list[Entry]:
    return [record_of(i, values.get("a", i / 128), entity=name) for i, name in enumerate(NAMES)]


def bench_of(champion: Model, table: Runs | None = None, /, **models: Model | None) -> Bench:
    bench = Bench(BINARY, champion)
    compare(bench, table, **models)
    return bench


def variants_of(predictions: list[Prediction]) -> dict[str, str]:
    return {prediction.entity_id: prediction.variant for prediction in predictions}


async def test_every_event_is_scored_by_the_model_of_its_variant_and_says_so() -> None:
    b, c = Constant(0.25), Constant(0.75)
    bench = bench_of(Model(), b=b, c=c)
    predictions, letters = await bench.take(*records())
    assert letters == []
    assert [(p.offset, p.entity_id, p.deployment_revision) for p in predictions] == [
        (i, name, 4) for i, name in enumerate(NAMES)
    ]
    expected = [("m1", "champion"), ("b", "b"), ("c", "c")]
    places = places_of(bench, NAMES)
    assert set(places) == {0, 1, 2}
    assert [(p.model_id, p.variant) for p in predictions] == [expected[place] for place in places]
    assert [p.score for p in predictions] == [(i / 128, 0.25, 0.75)[place] for i, place in enumerate(places)]
    assert [p.label for p in predictions] == [int(p.score >= BINARY.threshold) for p in predictions]


async def test_each_model_is_asked_once_with_its_own_events_in_their_order() -> None:
    models = [Model(), Model(), Model()]
    bench = bench_of(models[0], b=models[1], c=models[2])
    await bench.take(*records())
    for place, model in enumerate(models):
        [matrix] = model.seen
        assert matrix.dtype == np.float32
        assert matrix.flags.c_contiguous
        assert matrix[:, 0].tolist() == [i / 128 for i, at in enumerate(places_of(bench, NAMES)) if at == place]


async def test_an_entity_stays_with_its_variant_whatever_it_comes_with() -> None:
    bench = bench_of(Model(), b=Model())
    together = variants_of((await bench.take(*records()))[0])
    for i, name in enumerate(NAMES[:10]):
        [alone] = (await bench.take(record_of(100 + i, entity=name)))[0]
        assert alone.variant == together[name]


async def test_a_reshare_takes_entities_only_from_who_shrinks_to_who_grows() -> None:
    bench = bench_of(Model(), initial_table((8_000, 1_500, 500)), b=Model(), c=Model())
    before = variants_of((await bench.take(*records()))[0])
    assert bench.served.experiment is not None
    compare(bench, reshared(bench.served.experiment.table, (5_000, 1_000, 4_000)), b=Model(), c=Model())
    predictions, _ = await bench.take(*records())
    after = variants_of(predictions)
    assert {p.deployment_revision for p in predictions} == {5}
    moved = {(before[name], after[name]) for name in NAMES if before[name] != after[name]}
    assert moved <= {("champion", "c"), ("b", "c")}
    assert ("champion", "c") in moved


async def test_variants_get_their_shares_of_the_entities() -> None:
    names = entities(2_000)
    bench = bench_of(Model(), initial_table(bucket_counts([0.7, 0.2, 0.1])), b=Model(), c=Model())
    predictions, _ = await bench.take(*(record_of(i, entity=name) for i, name in enumerate(names)))
    found = [sum(p.variant == variant for p in predictions) for variant in ("champion", "b", "c")]
    for n, share in zip(found, (0.7, 0.2, 0.1), strict=True):
        assert abs(n - 2_000 * share) < 4 * np.sqrt(2_000 * share * (1 - share))


class Shapes(Model):
    """Gives scores in the wrong shape."""

    def predict(self, matrix: Any) -> Any:
        return np.zeros((len(matrix), 1))


class Words(Model):
    """Gives no numbers."""

    def predict(self, matrix: Any) -> Any:
        return np.array(["a"] * len(matrix))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Raises(), "ZeroDivisionError: oops"),
        (Answers([0.5]), "AssertionError"),
        (Shapes(), "1) instead of ("),
        (Words(), "TypeError"),
        (Constant(np.nan), "not every score is finite"),
        (Constant(-np.inf), "not every score is finite"),
    ],
    ids=["raises", "too few", "shape", "no numbers", "not a number", "infinite"],
)
async def test_where_a_variant_s_model_fails_the_champion_s_score_is_served_counted_and_told_once(
    bad: Model, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    champion = Model()
    bench = bench_of(champion, bad=bad, good=Constant(0.75))
    with caplog.at_level(logging.WARNING, "penstock.arms"):
        for _ in range(2):
            predictions, letters = await bench.take(*records())
    assert letters == []
    expected = [
        ("champion", "m1", i / 128) if place == 0 else ("bad", "m1", i / 128) if place == 1 else ("good", "good", 0.75)
        for i, place in enumerate(places_of(bench, NAMES))
    ]
    assert [(p.variant, p.model_id, p.score) for p in predictions] == expected
    assert len(champion.seen) == 2  # asked once in each batch, for its own events and those of the bad one
    assert bench.count("ml_variant_errors_total", variant="bad") == 2 * places_of(bench, NAMES).count(1)
    assert bench.count("ml_variant_errors_total", variant="good") == 0
    [told] = caplog.messages
    assert told.startswith("stream flights: model bad of variant bad gives no score for some events, which get the")
    assert words in told


async def test_a_variant_whose_model_is_not_there_gets_the_champion_s_scores_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = bench_of(Model(), b=None)
    with caplog.at_level(logging.WARNING, "penstock.arms"):
        predictions, _ = await bench.take(*records())
    places = places_of(bench, NAMES)
    assert [(p.variant, p.model_id) for p in predictions] == [(("champion", "b")[place], "m1") for place in places]
    assert bench.count("ml_variant_errors_total", variant="b") == places.count(1)
    assert caplog.messages == []  # there is an alert


def test_a_model_has_not_failed_where_its_store_was_away() -> None:
    arms = [Arm("champion", "m1", Constant(0.5)), Arm("bad", "bad", Raises())]
    arms += [Arm("gone", "gone"), Arm("away", "away", away=True), Arm("half", "half", Half())]
    places = np.repeat(np.arange(5, dtype=np.int16), 2)
    answer = ask_arms(arms, places, np.zeros((10, 2), dtype=np.float32), Metrics(), "flights", lambda: 0)
    assert answer.own is not None
    assert answer.failed is not None
    assert places[answer.own].tolist() == [0, 0, 4]
    assert places[answer.failed].tolist() == [1, 1, 2, 2, 4]
    rows = places >= 3
    few = answer.take(rows)
    assert few.failed is not None
    assert few.failed.tolist() == answer.failed[rows].tolist()


class Half(Model):
    """Knows every other event only."""

    def predict(self, matrix: Any) -> Any:
        scores = np.full(len(matrix), 0.75, dtype=np.float32)
        scores[::2] = np.nan
        return scores


async def test_only_the_events_without_a_finite_score_get_the_champion_s() -> None:
    bench = bench_of(Model(), ALL_TO_B, b=Half())
    predictions, _ = await bench.take(*records())
    assert [(p.model_id, p.score) for p in predictions[:4]] == [("m1", 0), ("b", 0.75), ("m1", 2 / 128), ("b", 0.75)]
    assert {p.variant for p in predictions} == {"b"}
    assert bench.count("ml_variant_errors_total", variant="b") == len(NAMES) // 2


async def test_without_a_finite_score_of_the_champion_either_an_event_is_a_dead_letter() -> None:
    bench = bench_of(Constant(np.nan), b=Half())
    predictions, letters = await bench.take(*records())
    ours = [i for i, place in enumerate(places_of(bench, NAMES)) if place == 1]
    assert [p.offset for p in predictions] == ours[1::2]
    assert {p.model_id for p in predictions} == {"b"}
    assert len(predictions) + len(letters) == len(NAMES)
    assert {letter.reason for letter in letters} == {"no_score"}


async def test_a_champion_that_fails_is_counted_and_nothing_is_written() -> None:
    bench, outbox = bench_of(Raises(), b=Model()), Outbox()
    with pytest.raises(ZeroDivisionError):
        await bench.score.process(batch(TopicPartition("flights.features", HOME), records()), outbox)
    assert outbox.targets == {}
    assert bench.count("ml_prediction_errors_total") == 1


async def test_a_champion_without_any_share_is_asked_nothing_unless_it_must_stand_in() -> None:
    champion = Model()
    bench = bench_of(champion, ALL_TO_B, b=Constant(0.5))
    predictions, _ = await bench.take(*records())
    assert {(p.variant, p.model_id) for p in predictions} == {("b", "b")}
    assert champion.seen == []


async def test_shadows_score_every_event_beside_whichever_variant() -> None:
    bench = Bench(BINARY, Model(), s=Constant(0.5))
    compare(bench, b=Constant(0.25))
    predictions, _ = await bench.take(*records())
    assert {p.shadows for p in predictions} == {(ShadowScore(variant="s", model_id="s", score=0.5),)}
    assert {p.variant for p in predictions} == {"champion", "b"}


async def test_multiclass_variants_give_the_score_of_each_class_and_fail_row_by_row_too() -> None:
    first, second = [0.5, 0.25, 0.25], [0.125, 0.125, 0.75]
    bench = Bench(CLASSES, Constant(first))
    compare(bench, b=Constant(second), c=Constant([0.5, np.nan, 0.5]), d=Constant(0.5))
    predictions, letters = await bench.take(*records())
    assert letters == []
    expected = [("m1", "owl", first), ("b", "jay", second), ("m1", "owl", first), ("m1", "owl", first)]
    places = places_of(bench, NAMES)
    assert [(p.model_id, p.label, p.scores) for p in predictions] == [expected[place] for place in places]
    assert [p.variant for p in predictions] == [("champion", "b", "c", "d")[place] for place in places]


async def test_scores_are_as_precise_as_the_most_precise_model_gives_them() -> None:
    bench = bench_of(Constant(0.1), b=Constant(0.1, np.float64))
    predictions, _ = await bench.take(*records())
    exact = {"champion": float(np.float32(0.1)), "b": 0.1}
    assert [p.score for p in predictions] == [exact[p.variant] for p in predictions]


async def test_predictions_are_counted_by_model_variant_and_label() -> None:
    bench = bench_of(Constant(0.9), b=Constant(0.1), c=Raises())
    await bench.take(*records())
    at = places_of(bench, NAMES)
    for model, variant, label, n in (("m1", "champion", "1", 0), ("b", "b", "0", 1), ("m1", "c", "1", 2)):
        assert bench.count("ml_predictions_total", model=model, variant=variant, label=label) == at.count(n)


async def test_all_features_are_counted_for_drift_and_only_the_champion_s_own_predictions() -> None:
    bench = measured(bench_of(Model(), b=Constant(0.5), c=Raises()))
    await bench.take(*records())
    [partial] = await saved(bench)
    ours = places_of(bench, NAMES).count(0)
    assert (partial.n, partial.model_id, partial.to_offset) == (len(NAMES), "m1", len(NAMES))
    assert [(column.missing, sum(column.counts)) for column in partial.columns] == [
        (0, len(NAMES)),
        (0, len(NAMES)),
        (len(NAMES) - ours, ours),
    ]
