"""One batch of feature records through the stage: every record becomes one prediction or one dead letter."""

import logging
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.errors import FatalError
from schemas.events import Prediction, ShadowScore
from schemas.streams import StreamSpec
from stream.batches import Outbox, TopicPartition
from stream.deadletters import DeadLetterGate
from tests.scoring import BINARY, CLASSES, HOME, NOW_MS, Answers, Bench, Raises, measured, record_of, saved
from tests.support import Entry, Model, batch


async def test_a_prediction_says_everything_there_is_to_know_about_it() -> None:
    bench = Bench(BINARY, Model())
    predictions, letters = await bench.take(record_of(41, 0.25, None, timestamp=NOW_MS - 40))
    assert letters == []
    assert predictions == [
        Prediction(
            event_id="e41",
            entity_id="N1",
            event_time_ms=5,
            scored_time_ms=NOW_MS,
            model_id="m1",
            variant="champion",
            deployment_revision=3,
            score=0.25,
            scores=None,
            label=0,
            features=(0.25, None),
            partition=HOME,
            offset=41,
            latency_ms=40,
        )
    ]


async def test_predictions_come_in_log_order_and_each_with_its_own_score() -> None:
    bench = Bench(BINARY, Model())
    predictions, _ = await bench.take(*(record_of(i, i / 64, i / 64) for i in range(32)))
    assert [(p.offset, p.score) for p in predictions] == [(i, i / 32) for i in range(32)]


async def test_a_label_is_1_from_the_threshold_on() -> None:
    scores = [0.69, 0.7, 0.71, 0.0, 1.0]
    predictions, _ = await Bench(BINARY, Answers(scores)).take(*map(record_of, range(5)))
    assert [p.label for p in predictions] == [int(p.score >= BINARY.threshold) for p in predictions]
    assert [p.label for p in predictions][2:] == [1, 0, 1]


async def test_a_multiclass_prediction_has_the_score_of_each_class_and_the_name_of_the_best() -> None:
    bench = Bench(CLASSES, Answers([[0.25, 0.5, 0.25], [0.75, 0.125, 0.125]]))
    predictions, _ = await bench.take(record_of(0), record_of(1))
    assert [(p.label, p.score, p.scores) for p in predictions] == [
        ("tit", 0.5, [0.25, 0.5, 0.25]),
        ("owl", 0.75, [0.75, 0.125, 0.125]),
    ]


async def test_bad_records_among_good_ones_become_dead_letters_and_change_nothing_else() -> None:
    bench = Bench(BINARY, Model())
    good = [record_of(i, i / 10, 0.0) for i in (0, 2, 4)]
    bad = [Entry(1, b"{", b"N1"), Entry(3, good[0].value, b"N2")]
    predictions, letters = await bench.take(*sorted(good + bad, key=lambda record: record.offset))
    assert [(p.offset, round(p.score, 3)) for p in predictions] == [(0, 0.0), (2, 0.2), (4, 0.4)]
    assert [(letter.offset, letter.reason, letter.stage) for letter in letters] == [
        (1, "malformed_json", "score"),
        (3, "wrong_key", "score"),
    ]
    assert bench.count("ml_dead_letters_total", stage="score", reason="wrong_key") == 1
    assert bench.count("ml_predictions_total", model="m1", variant="champion", label="0") == 3


async def test_a_batch_with_nothing_good_in_it_asks_the_model_nothing() -> None:
    model = Model()
    predictions, letters = await Bench(BINARY, model).take(Entry(0, b"{", b"N1"), Entry(1, None, b"N1"))
    assert (len(predictions), len(letters), model.seen) == (0, 2, [])


@pytest.mark.parametrize(
    ("spec", "scores"),
    [
        (BINARY, [0.5, np.nan, np.inf]),
        (CLASSES, [[0.2, 0.6, 0.2], [0.1, np.nan, 0.9], [np.inf, 0, 0]]),
    ],
)
async def test_an_event_without_a_finite_score_is_a_dead_letter(spec: StreamSpec, scores: Any) -> None:
    predictions, letters = await Bench(spec, Answers(scores)).take(*map(record_of, range(3)))
    assert [p.offset for p in predictions] == [0]
    assert [(letter.offset, letter.reason) for letter in letters] == [(1, "no_score"), (2, "no_score")]


async def test_a_model_that_fails_is_counted_and_nothing_is_written() -> None:
    bench = Bench(BINARY, Answers([0.5]))
    with pytest.raises(AssertionError):
        await bench.take(record_of(0), record_of(1))
    assert bench.count("ml_prediction_errors_total") == 1
    assert bench.count("ml_predictions_total", model="m1", variant="champion", label="0") == 0


async def test_too_many_dead_letters_stop_the_worker_with_the_last_reason() -> None:
    bench = Bench(BINARY, Model(), DeadLetterGate(0.05, 100))
    with pytest.raises(FatalError, match=r"6 of the last 10 records could not be used.*the record has no value"):
        await bench.take(*(record_of(i) if i < 4 else Entry(i, b"", b"N1") for i in range(10)))


async def test_latency_runs_from_the_record_s_time_in_kafka_and_is_never_negative() -> None:
    bench = Bench(BINARY, Model())
    predictions, _ = await bench.take(record_of(0, timestamp=NOW_MS - 40), record_of(1, timestamp=NOW_MS + 5000))
    assert [p.latency_ms for p in predictions] == [40, 0]
    assert bench.count("ml_prediction_latency_seconds_sum") == pytest.approx(0.04)
    assert bench.count("ml_prediction_latency_seconds_count") == 2


async def test_shadows_score_the_same_event_in_the_same_prediction_under_their_lineage_or_their_id() -> None:
    bench = Bench(BINARY, Model(), alone=Answers([0.125, 0.25]), v7=Answers([0.5, 0.75]))
    lineage = bench.served.shadows[1]
    lineage.version = msgspec.structs.replace(lineage.version, lineage="online")
    predictions, letters = await bench.take(record_of(0, 1.0), record_of(1, 0.0))
    assert letters == []
    assert [(p.model_id, p.score, p.label) for p in predictions] == [("m1", 1.0, 1), ("m1", 0.0, 0)]
    assert [p.shadows for p in predictions] == [
        (
            ShadowScore(variant="alone", model_id="alone", score=alone),
            ShadowScore(variant="online", model_id="v7", score=online),
        )
        for alone, online in ((0.125, 0.5), (0.25, 0.75))
    ]


async def test_a_multiclass_shadow_gives_the_score_of_each_class() -> None:
    shadow = Answers([[0.25, 0.5, 0.25]])
    shadow.classes = 3
    [prediction] = (await Bench(CLASSES, Answers([[0.75, 0.125, 0.125]]), s=shadow).take(record_of(0)))[0]
    assert prediction.label == "owl"
    assert prediction.shadows == (ShadowScore(variant="s", model_id="s", score=0.5, scores=[0.25, 0.5, 0.25]),)


async def test_a_shadow_sees_exactly_what_the_champion_scored() -> None:
    shadow = Model()
    bench = Bench(BINARY, Answers([0.5, np.nan, 0.5]), s=shadow)
    predictions, letters = await bench.take(*(record_of(i, i / 8) for i in range(3)), Entry(3, b"{", b"N1"))
    assert ([p.offset for p in predictions], len(letters)) == ([0, 2], 2)
    assert [p.shadows[0].score for p in predictions] == [0.0, 0.25]
    assert [len(matrix) for matrix in shadow.seen] == [2]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Raises(), "ZeroDivisionError: oops"),
        (Answers([0.5]), "AssertionError"),
        (Answers([[0.5], [0.5], [0.5]]), "shape (3, 1) instead of (3,)"),
        (Answers([np.nan, np.inf, -np.inf]), "not every score is finite"),
    ],
    ids=["raises", "too few", "shape", "not finite"],
)
async def test_a_shadow_that_fails_is_left_out_counted_and_told_once(
    bad: Model, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(BINARY, Model(), bad=bad, good=Model())
    records = [record_of(i, i / 8) for i in range(3)]
    with caplog.at_level(logging.WARNING, "penstock.shadows"):
        for _ in range(2):
            predictions, letters = await bench.take(*records)
    assert letters == []
    assert [(p.score, [(s.variant, s.score) for s in p.shadows]) for p in predictions] == [
        (i / 8, [("good", i / 8)]) for i in range(3)
    ]
    assert bench.count("ml_shadow_errors_total", variant="bad") == 6
    assert bench.count("ml_shadow_errors_total", variant="good") == 0
    [told] = caplog.messages
    assert told.startswith("stream flights: shadow bad gives no score for some events: ")
    assert words in told


async def test_only_the_events_without_a_finite_shadow_score_do_without_it() -> None:
    bench = Bench(BINARY, Model(), s=Answers([0.5, np.nan, 0.75]))
    predictions, _ = await bench.take(*map(record_of, range(3)))
    assert [[s.score for s in p.shadows] for p in predictions] == [[0.5], [], [0.75]]
    assert bench.count("ml_shadow_errors_total", variant="s") == 1


async def test_when_the_champion_scored_nothing_the_shadows_are_asked_nothing() -> None:
    shadow = Model()
    predictions, letters = await Bench(BINARY, Answers([np.nan]), s=shadow).take(record_of(0))
    assert (len(predictions), len(letters), shadow.seen) == (0, 1, [])


async def test_without_shadows_a_prediction_takes_no_byte_for_them() -> None:
    outbox = Outbox()
    bench = Bench(BINARY, Model())
    await bench.score.process(batch(TopicPartition("flights.features", HOME), [record_of(0)]), outbox)
    [(_, value)] = outbox.targets[TopicPartition("flights.predictions", HOME)]
    assert b"shadows" not in value


async def test_what_was_scored_since_the_last_commit_is_counted_and_nothing_else() -> None:
    bench = measured(Bench(BINARY, Answers([0.5, np.nan, 0.25])))
    await bench.take(record_of(3, 0.5), record_of(4, 0.5), Entry(5, b"{", b"N1"), record_of(6, None))
    [partial] = await saved(bench)
    assert (partial.n, partial.from_offset, partial.to_offset, partial.partition) == (2, 3, 7, HOME)
    assert (partial.model_id, partial.from_time_ms, partial.to_time_ms) == ("m1", 5, 5)
    assert [(column.missing, sum(column.counts)) for column in partial.columns] == [(1, 1), (0, 2), (0, 2)]
    assert await saved(bench) == []


async def test_what_was_counted_and_not_committed_is_forgotten_when_the_task_opens_again() -> None:
    bench = measured(Bench(BINARY, Model()))
    await bench.take(record_of(0), record_of(1))
    await bench.score.open({})
    await bench.take(record_of(0))
    assert [partial.n for partial in await saved(bench)] == [1]


async def test_without_a_baseline_events_are_scored_and_nothing_is_counted() -> None:
    bench = Bench(BINARY, Model())
    predictions, _ = await bench.take(record_of(0))
    assert (len(predictions), await saved(bench)) == (1, [])
