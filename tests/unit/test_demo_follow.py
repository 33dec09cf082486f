"""What the demo counts, and when it says that a promise was not kept."""

import asyncio
from dataclasses import dataclass, replace

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from app.demo.drift_outcome import DriftOutcome
from app.demo.explained import Explained
from app.demo.feedback import Feedback
from app.demo.follow import SCORE_BINS, Follower, Tally
from app.demo.outcome import Outcome
from app.demo.retraining import Promotion, SeenRun
from app.demo.year import Year
from app.embedded import EmbeddedBroker
from schemas.events import DeadLetter, Prediction
from schemas.wire import encode
from stream.connection import KafkaConnection
from topics import StreamTopics

TOPICS = StreamTopics("flights")


@dataclass
class Record:
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = None


def feature(partition: int, offset: int, sent_ms: int) -> Record:
    return Record(partition, offset, sent_ms, b"{}")


def prediction(partition: int, offset: int, event_id: str = "", score: float = 0.5) -> Record:
    event = Prediction(
        event_id=event_id or f"{partition}-{offset}",
        entity_id="N1",
        event_time_ms=1_000,
        scored_time_ms=2_000,
        model_id="m1",
        variant="champion",
        deployment_revision=1,
        score=score,
        scores=None,
        label=0,
        features=(1.0, None),
        partition=partition,
        offset=offset,
    )
    return Record(partition, 900 + offset, 0, encode(event))


def sample(event_id: str) -> Record:
    document = {"event_id": event_id, "revision": 0, "event_time_ms": 1, "label_time_ms": 2, "label": 1, "score": 0.5}
    return Record(0, 0, 0, msgspec.json.encode(document))


REPORT = {
    "number": 0,
    "from_time_ms": 0,
    "to_time_ms": 1,
    "n": 2_000,
    "baseline": "january",
    "severity": "none",
    "features": [],
    "predictions": [],
    "recommendation": "",
}


def dead_letter(partition: int, offset: int, reason: str = "empty") -> Record:
    letter = DeadLetter(
        topic=TOPICS.features,
        partition=partition,
        offset=offset,
        stage="score",
        reason=reason,
        message="the record has no value",
        dead_time_ms=2_000,
        size_bytes=0,
        sha256="",
        original_base64="",
    )
    return Record(partition, 0, 0, encode(letter))


@pytest.fixture
def tally() -> Tally:
    return Tally(TOPICS, {0: 10, 1: 0}, Feedback(TOPICS, {}))


def test_each_source_is_answered_by_a_prediction_or_a_dead_letter(tally: Tally) -> None:
    tally.take(TOPICS.predictions, [prediction(0, 10), prediction(1, 0)], 0)
    tally.take(TOPICS.features_dead, [dead_letter(0, 11), dead_letter(1, 1, "invalid_field")], 0)
    assert (tally.predictions, tally.answered, tally.duplicates) == (2, 4, 0)
    assert tally.dead_letters == {"empty": 1, "invalid_field": 1}
    assert tally.last_dead_letter
    assert tally.last_dead_letter.reason == "invalid_field"


def test_a_second_answer_to_a_source_is_a_duplicate(tally: Tally) -> None:
    tally.take(TOPICS.predictions, [prediction(1, 0), prediction(1, 0)], 0)
    assert (tally.answered, tally.duplicates) == (1, 1)
    tally.take(TOPICS.features_dead, [dead_letter(1, 0)], 0)
    assert (tally.answered, tally.duplicates) == (1, 2)


def test_an_event_id_that_is_predicted_twice_is_a_duplicate_wherever_it_stands(tally: Tally) -> None:
    tally.take(TOPICS.predictions, [prediction(1, 0, "same"), prediction(1, 1, "same")], 0)
    assert tally.duplicates == 1


def test_answers_to_what_was_there_before_are_not_counted(tally: Tally) -> None:
    tally.take(TOPICS.predictions, [prediction(0, 9), prediction(0, 10)], 0)
    tally.take(TOPICS.features_dead, [dead_letter(0, 3)], 0)
    assert (tally.predictions, tally.answered, tally.dead_letters.total()) == (1, 1, 0)


def test_latency_is_from_the_records_timestamp_to_the_prediction_in_hand(tally: Tally) -> None:
    tally.take(TOPICS.features, [feature(0, 10, 1_000), feature(0, 11, 1_001)], 1_003)
    tally.take(TOPICS.predictions, [prediction(0, 10), prediction(0, 11)], 1_008)
    assert tally.latencies_ms.tolist() == [8, 7]


def test_latency_is_the_same_when_the_prediction_is_seen_before_its_source(tally: Tally) -> None:
    tally.take(TOPICS.predictions, [prediction(0, 10)], 1_008)
    tally.take(TOPICS.features, [feature(0, 10, 1_000)], 1_020)
    assert tally.latencies_ms.tolist() == [8]


def test_dead_letters_and_repeated_predictions_have_no_latency(tally: Tally) -> None:
    tally.take(TOPICS.features, [feature(0, 10, 1_000), feature(0, 11, 1_000)], 1_003)
    tally.take(TOPICS.features_dead, [dead_letter(0, 10)], 1_004)
    tally.take(TOPICS.predictions, [prediction(0, 11), prediction(0, 11)], 1_005)
    assert tally.latencies_ms.tolist() == [5]


def test_percentiles_are_of_the_latencies_from_a_place_on(tally: Tally) -> None:
    assert tally.latency_ms() == {}
    tally.take(TOPICS.features, [feature(0, 10 + i, 1_000 - i) for i in range(101)], 0)
    tally.take(TOPICS.predictions, [prediction(0, 10 + i) for i in range(101)], 1_000)
    assert tally.latency_ms() == {"p50": 50.0, "p99": 99.0}
    assert tally.latency_ms(start=98) == {"p50": 99.0, "p99": 99.98}


def test_throughput_is_from_the_first_sending_to_the_last_answer(tally: Tally) -> None:
    assert tally.throughput_eps == 0
    tally.take(TOPICS.features, [feature(0, 10, 1_000), feature(0, 11, 1_900)], 2_000)
    tally.take(TOPICS.predictions, [prediction(0, 10), prediction(0, 11)], 1_500)
    assert tally.throughput_eps == 4.0


def test_scores_are_binned_up_to_and_with_one(tally: Tally) -> None:
    tally.take(TOPICS.predictions, [prediction(1, i, score=score) for i, score in enumerate((0.0, 0.5, 1.0))], 0)
    assert [i for i, count in enumerate(tally.scores) if count] == [0, SCORE_BINS // 2, SCORE_BINS - 1]


def test_what_has_come_out_is_answers_and_labels_that_were_read_and_settled(tally: Tally) -> None:
    tally.take(TOPICS.predictions, [prediction(1, 0), prediction(1, 0)], 0)
    tally.take(TOPICS.labels, [Record(0, 0, 0, b"{}"), Record(0, 1, 0, b"{}")], 0)
    assert (tally.labels, tally.records_out) == (2, 1)
    tally.take(TOPICS.samples, [sample("a")], 0)
    assert tally.records_out == 2
    tally.take(TOPICS.samples, [sample("b"), sample("c")], 0)
    assert tally.records_out == 3


def test_events_that_the_judge_should_have_judged_have_not_come_out(tally: Tally) -> None:
    def partial(n: int, baseline: str = "january") -> Record:
        return Record(0, 0, 0, msgspec.json.encode({"n": n, "baseline": baseline}))

    tally.take(TOPICS.predictions, [prediction(1, offset) for offset in range(2_100)], 0)
    tally.take(TOPICS.histograms, [partial(1_000), partial(999)], 0)
    assert tally.records_out == 2_100, "a window that is not complete is not waited for"
    tally.take(TOPICS.histograms, [partial(101)], 0)
    assert tally.records_out == 2_100 - 101
    tally.take(TOPICS.drift, [Record(0, 0, 0, msgspec.json.encode(REPORT))], 0)
    assert tally.records_out == 2_100
    tally.take(TOPICS.histograms, [partial(1_899), partial(1_999, "june")], 0)
    assert tally.records_out == 2_100, "a window of each baseline may stay open"
    tally.take(TOPICS.histograms, [partial(1, "june")], 0)
    assert tally.records_out == 2_100 - 1


async def test_the_follower_reads_what_comes_after_it_has_started(embedded: EmbeddedBroker) -> None:
    options = KafkaConnection(bootstrap=embedded.bootstrap).client_options()
    async with AIOKafkaProducer(**options) as producer:

        async def send(topic: str, record: Record) -> None:
            await producer.send_and_wait(topic, record.value, partition=record.partition, timestamp_ms=1_000)

        await send(TOPICS.features, feature(2, 0, 1_000))
        await send(TOPICS.predictions, prediction(2, 0))
        follower = Follower(options, TOPICS, 4, read_committed=False, clock_ms=lambda: 1_007.0)
        await follower.start()
        assert {place for place, end in follower.starts.items() if end} == {
            TopicPartition(TOPICS.features, 2),
            TopicPartition(TOPICS.predictions, 2),
        }
        running = asyncio.create_task(follower.run())
        try:
            await send(TOPICS.predictions, prediction(2, 0))  # answers what was there before
            await send(TOPICS.labels, Record(1, 0, 0, b"{}"))
            await send(TOPICS.features, feature(2, 1, 1_000))
            await send(TOPICS.features_dead, dead_letter(2, 1))
            await send(TOPICS.features, feature(2, 2, 1_000))
            await send(TOPICS.predictions, prediction(2, 2))
            await send(TOPICS.labels_dead, dead_letter(1, 0, "no_prediction"))
            await send(TOPICS.histograms, Record(0, 0, 0, msgspec.json.encode({"n": 3, "baseline": "january"})))
            await send(TOPICS.drift, Record(0, 0, 0, msgspec.json.encode(REPORT)))
            for _ in range(2_000):
                read = follower.tally.drift.counted, len(follower.tally.drift.reports)
                if follower.tally.records_out == 3 and follower.tally.latencies_ms and read == (3, 1):
                    break
                await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.wait([running])
            await follower.stop()
    tally = follower.tally
    assert (tally.drift.counted, len(tally.drift.reports)) == (3, 1)
    assert (tally.predictions, tally.dead_letters.total(), tally.labels, tally.duplicates) == (1, 1, 1, 0)
    assert tally.latencies_ms.tolist() == [7]


KEPT = Outcome(
    events=10,
    bad_events=1,
    labels_sent=8,
    bad_labels=2,
    predictions=9,
    dead_letters={"empty": 1},
    duplicates=0,
    labels=8,
    samples=6,
    samples_repeated=0,
    labels_unmatched={"no_prediction": 1},
    auc={"champion": 0.66666, "online": None},
    label_delay_ms=9_000.0,
    windows=3,
    model_versions=4,
    drift=DriftOutcome(counted=9, reports=(), alerts=(), faulty=2, fault_time_ms=1),
    explained=Explained(n=9, identical=9),
    runs=(
        SeenRun(run_id="r1", phase="ended", reasons=("schedule",), outcome="skipped", message="too soon"),
        SeenRun(run_id="r2", phase="ended", reasons=("drift",), outcome="accepted", message="good", samples=70),
    ),
    runs_repeated=0,
    promotions=(Promotion("m2", "rollout m2", 5),),
    year=Year(static=0.65, served=0.67, low=0.011, high=0.029),
    throughput_eps=3_000.04,
    latency_ms={"p50": 9.0, "p99": 20.0},
    model_id="m1",
    champion_auc=0.65,
)


def test_a_kept_promise_is_no_problem_and_is_written_down() -> None:
    assert KEPT.problems() == []
    document = msgspec.json.decode(msgspec.json.encode(KEPT.document()))
    assert document.items() >= {"events": 10, "predictions": 9, "dead_letters": 1, "duplicates": 0, "labels": 8}.items()
    assert document.items() >= {"samples": 6, "labels_unmatched": 1, "labels_pending": 1, "model_versions": 4}.items()
    assert document.items() >= {"drift_alerts": 0, "drifted_features": [], "drift_windows": 0}.items()
    assert document["auc"].items() >= {"champion": 0.6667, "online": None, "static": 0.65, "served": 0.67}.items()
    assert document["auc"].items() >= {"difference": 0.02, "low": 0.011, "high": 0.029}.items()
    assert (document["retrains"], document["promotions"]) == (1, 1), "a request that was skipped is no run"
    assert "1 training runs, 1 of their models promoted" in KEPT.summary()
    assert document["explained"] == {"n": 9, "identical": 9}
    assert document["throughput_eps"] == 3_000.0
    assert document["latency_ms"] == {"p50": 9.0, "p99": 20.0}


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (
            replace(KEPT, predictions=8, drift=replace(KEPT.drift, counted=8)),
            "10 events, but 8 predictions and 1 dead letters",
        ),
        (replace(KEPT, duplicates=1), "1 events were answered more than once"),
        (
            replace(
                KEPT,
                predictions=10,
                dead_letters={},
                drift=replace(KEPT.drift, counted=10),
                explained=Explained(n=10, identical=10),
            ),
            "1 events were bad, but 0 became dead letters",
        ),
        (
            replace(KEPT, drift=replace(KEPT.drift, counted=7)),
            "9 events were scored, but 7 were counted for drift",
        ),
        (replace(KEPT, labels=7), "8 labels were sent, but 7 came out"),
        (replace(KEPT, samples=5), "6 labels were of scored events, but 5 became samples"),
        (replace(KEPT, samples_repeated=2), "2 samples came more than once"),
        (replace(KEPT, runs_repeated=1), "1 training runs ended more than once"),
        (
            replace(KEPT, labels_unmatched={"no_prediction": 3}),
            "2 labels were of bad events, but 3 became dead letters",
        ),
        (replace(KEPT, labels_unmatched={"outside_window": 1}), "labels became dead letters as outside_window"),
        (
            replace(KEPT, explained=Explained(n=9, identical=8, why="m1 at 0:7 of the predictions: the file is gone")),
            "of 9 predictions executed again, only 8 are identical (m1 at 0:7 of the predictions: the file is gone)",
        ),
        (
            replace(KEPT, explained=Explained(n=8, identical=8)),
            "9 predictions were to be executed again, but only 8 were found",
        ),
        (
            replace(KEPT, explained=Explained(why="nothing listens there")),
            "9 predictions were to be executed again, but only 0 were found (nothing listens there)",
        ),
        (replace(KEPT, failure="nothing has come out for 30 s", predictions=3), "nothing has come out for 30 s"),
    ],
)
def test_a_broken_promise_is_a_sentence(broken: Outcome, sentence: str) -> None:
    assert broken.problems() == [sentence]
