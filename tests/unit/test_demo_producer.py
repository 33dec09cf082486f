"""The demo's producer: its pace, its patience with readers, its spoilt events, and where its keys go."""

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import pytest

from app.demo.fault import Fault, fault_events, in_kilometres
from app.demo.flights import ONLINE, Flights, Moment, flights_stream, load_flights, replay
from app.demo.pace import Pace, Readers
from app.demo.producer import MAX_BEHIND_BYTES, RECORD_BYTES, FlightSender, client_config, send_all
from app.demo.records import encode, feature_event, spoils, spoilt
from app.embedded import EmbeddedBroker
from schemas.errors import FatalError
from schemas.events import Sample, ShadowScore
from schemas.features import FeatureReader
from schemas.wire import encode as encode_event
from stream.connection import KafkaConnection
from stream.partitioner import partitions_of
from topics import StreamTopics

TOPICS = StreamTopics("flights")


@pytest.fixture(scope="module")
def flights() -> Flights:
    return load_flights()


class Clock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Broker:
    """Takes what a confluent_kafka.Producer would."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, bytes]] = []

    def produce(self, topic: str, *, key: bytes, value: bytes, on_delivery: Callable[[Any, Any], None]) -> None:
        self.records.append((topic, key, value))


def test_the_pace_is_kept_over_many_small_steps() -> None:
    clock = Clock()
    pace = Pace(3_000, clock)
    sent = 0
    for _ in range(1_000):
        clock.now_s += 0.0037
        sent += pace.due()
    assert sent == pytest.approx(3_000 * 3.7, abs=1)


def test_a_long_pause_is_not_caught_up_at_once() -> None:
    clock = Clock()
    pace = Pace(3_000, clock)
    clock.now_s += 10
    assert pace.due() == 450
    assert pace.due() == 0


def test_a_slow_pace_still_sends() -> None:
    clock = Clock()
    pace = Pace(2, clock)
    clock.now_s += 0.6
    assert pace.due() == 1


def test_records_leave_in_the_order_of_the_replay_keyed_by_entity(flights: Flights) -> None:
    broker, clock = Broker(), Clock()
    moments = list(replay(flights, 0, 200))

    def tick() -> None:
        clock.now_s += 0.005

    send_all(moments, FlightSender(flights, TOPICS, broker, 0), Pace(1_000, clock), None, tick)
    assert [(topic, key, json.loads(value)["event_id"]) for topic, key, value in broker.records] == [
        (
            TOPICS.labels if moment.is_label else TOPICS.features,
            flights.entity_ids[moment.row].encode(),
            flights.event_ids[moment.row],
        )
        for moment in moments
    ]


def test_nothing_is_sent_while_a_reader_is_1_mb_behind(flights: Flights) -> None:
    clock = Clock()
    sender = FlightSender(flights, TOPICS, Broker(), 0)
    readers = Readers()
    held: list[int] = []

    def tick() -> None:
        clock.now_s += 0.01
        if held and held[-1] == sender.features:  # it holds: now the readers catch up
            readers.records = sender.features
        held.append(sender.features)

    send_all((Moment(row, False) for row in range(30_000)), sender, Pace(100_000, clock), readers, tick)
    stops = [now for now, after in itertools.pairwise(held) if now == after]
    most = MAX_BEHIND_BYTES // RECORD_BYTES
    assert sender.features == 30_000
    assert len(stops) >= 2
    assert stops[0] == pytest.approx(most, abs=1_100)  # as many leave in 0.01 s
    assert stops[1] - stops[0] == pytest.approx(most, abs=1_100)


def test_no_record_is_larger_than_the_producer_takes_it_to_be(flights: Flights) -> None:
    def longest(names: list[str]) -> str:
        return max(names, key=len)

    sample = Sample(
        event_id=longest(flights.event_ids) + "-123abc",
        entity_id=longest(flights.entity_ids),
        revision=0,
        event_time_ms=1_388_552_400_000,
        label_time_ms=1_388_552_400_000,
        features=tuple(float(most) for most in flights.features.max(axis=0)),
        label=1,
        weight=1.0,
        score=1 / 3,
        predicted=1,
        model_id="flights-20261121T130725-82cbb680",
        variant="champion",
        deployment_revision=1_000,
        scored_time_ms=1_388_552_400_000,
        latency_ms=10_000,
        shadows=(ShadowScore(variant=ONLINE, model_id=f"{ONLINE}@100000", score=1 / 3),),
    )
    size_bytes = len(encode_event(sample))
    assert RECORD_BYTES / 2 < size_bytes < RECORD_BYTES - 50  # what Kafka adds to a record is less


def test_labels_of_spoilt_events_are_counted(flights: Flights) -> None:
    broker = Broker()
    sender = FlightSender(flights, TOPICS, broker, 0.5)
    moments = list(replay(flights, 0, 40))
    for moment in moments:
        sender.send(moment)
    spoilt_rows = {row for row in range(40) if spoils(row, 0.5) is not None}
    landed = {moment.row for moment in moments if moment.is_label}
    report = sender.report()
    assert (report["bad"], report["bad_labels"]) == (20, len(spoilt_rows & landed))
    assert 0 < report["bad_labels"] < report["labels"]


def test_the_fault_changes_the_distance_of_one_airline_from_one_flight_on_and_nothing_else(flights: Flights) -> None:
    def sent(fault: Fault) -> tuple[FlightSender, list[dict[str, Any]]]:
        broker = Broker()
        sender = FlightSender(flights, TOPICS, broker, 0, fault=fault)
        for moment in replay(flights, 0, 200):
            sender.send(moment)
        return sender, [json.loads(value) for _, _, value in broker.records]

    sender, faulty = sent(Fault(first_row=150))
    _, good = sent(Fault())
    changed = {ours["event_id"]: ours for ours, theirs in zip(faulty, good, strict=True) if ours != theirs}
    assert changed.keys() == {name for name in flights.event_ids[150:200] if name[11:13] == "UA"}
    assert sender.report()["faulty"] == len(changed) > 5
    truth = {event["event_id"]: event for event in good if "features" in event}
    for name, event in changed.items():
        miles = truth[name]["features"]["distance_miles"]
        assert event["features"]["distance_miles"] == pytest.approx(miles * 1.609344, abs=0.05)
        event["features"]["distance_miles"] = miles
        assert event == truth[name]


def test_a_spoilt_event_is_not_counted_as_one_with_the_fault(flights: Flights) -> None:
    sender = FlightSender(flights, TOPICS, Broker(), 1.0, fault=Fault(first_row=0))
    for row in range(20):
        sender.send(Moment(row, False))
    assert (sender.report()["bad"], sender.report()["faulty"]) == (20, 0)


@pytest.mark.parametrize(("events", "faulty"), [(110_942, 11_094), (50_000, 6_000), (4_000, 2_000), (1, 0)])
def test_the_fault_is_in_the_last_tenth_or_in_three_windows_but_not_in_more_than_half(events: int, faulty: int) -> None:
    assert fault_events(events) == faulty


def test_kilometres_can_be_scored(flights: Flights) -> None:
    event = in_kilometres(feature_event(flights, 5))
    reader = FeatureReader(flights_stream())
    (good,), bad = reader.read([encode(event)])
    assert bad == {}
    assert reader.rows([good]) == [tuple(event["features"].values())]


def test_readers_are_as_far_as_the_last_line_says_and_gone_at_its_end() -> None:
    readers = Readers()
    readers.follow(io.StringIO("7\n42\n"))
    assert (readers.records, readers.gone) == (42, True)


def test_the_producer_ends_when_whoever_follows_it_has_gone(flights: Flights) -> None:
    sender = FlightSender(flights, TOPICS, Broker(), 0)
    with pytest.raises(FatalError, match="has gone"):
        send_all([Moment(0, False)], sender, Pace(1, Clock()), Readers(gone=True), lambda: None)


def test_a_refused_record_ends_the_producer_with_a_sentence(flights: Flights) -> None:
    class Message:
        def topic(self) -> str:
            return TOPICS.features

    class Refusing(Broker):
        def produce(self, topic: str, *, key: bytes, value: bytes, on_delivery: Callable[[Any, Any], None]) -> None:
            on_delivery("message too large", Message())

    clock = Clock()

    def tick() -> None:
        clock.now_s += 1

    sender = FlightSender(flights, TOPICS, Refusing(), 0)
    with pytest.raises(FatalError, match=r"flights\.features was not taken: message too large"):
        send_all([Moment(0, False), Moment(1, False)], sender, Pace(1, clock), None, tick)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.01, 0.25, 1.0])
def test_spoilt_events_are_spread_evenly(share: float) -> None:
    kinds = [kind for position in range(1_000) if (kind := spoils(position, share)) is not None]
    assert kinds == list(range(int(1_000 * share)))


def test_every_kind_of_spoilt_event_is_refused_and_the_good_one_is_not(flights: Flights) -> None:
    reader = FeatureReader(flights_stream())
    event = feature_event(flights, 5)
    reasons = []
    for kind in range(5):
        events, bad = reader.read([spoilt(event, kind)])
        bad |= reader.overflows(reader.matrix(reader.rows(events)))
        reasons.append(bad[0].reason)
    assert reasons == ["malformed_json", "invalid_field", "invalid_field", "out_of_range", "empty"]
    (good,), bad = reader.read([encode(event)])
    assert bad == {}
    assert reader.rows([good]) == [tuple(flights.features[5].tolist())]


def test_tls_and_login_reach_the_client() -> None:
    config = client_config(
        KafkaConnection(
            bootstrap="kafka:9093",
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="ann",
            sasl_password="secret",
            ssl_ca_file="ca.pem",
            ssl_cert_file="both.pem",
        )
    )
    assert config["security.protocol"] == "SASL_SSL"
    assert (config["sasl.mechanism"], config["sasl.username"], config["sasl.password"]) == (
        "SCRAM-SHA-512",
        "ann",
        "secret",
    )
    assert (config["ssl.ca.location"], config["ssl.key.location"]) == ("ca.pem", "both.pem")


def test_a_client_without_login_is_not_given_one() -> None:
    config = client_config(KafkaConnection(bootstrap="kafka:9092"))
    assert not [name for name in config if name.startswith(("sasl", "ssl"))]
    confluent_kafka.Producer(config)  # librdkafka knows every name


def test_the_process_sends_to_the_partitions_of_murmur2_and_says_how_many(embedded: EmbeddedBroker) -> None:
    command = [sys.executable, "-m", "app.demo.producer", f"--bootstrap={embedded.bootstrap}", "--events=400"]
    command += ["--rate=20000", "--bad-share=0.05", "--fault-events=100"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    assert 0 < report["faulty"] < 100
    assert (report["done"], report["features"], report["bad"]) == (True, 400, 20)
    records = list(read_all(embedded.bootstrap, [TOPICS.features, TOPICS.labels], 400 + report["labels"]))
    keys = [key for _, _, key in records]
    assert [partition for _, partition, _ in records] == partitions_of(keys, 4).tolist()
    for topic, counts in report["acknowledged"].items():
        assert counts == {str(place): sum((topic, place) == record[:2] for record in records) for place in range(4)}


def read_all(bootstrap: str, topics: list[str], count: int) -> Iterator[tuple[str, int, bytes]]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "test"})
    consumer.assign([confluent_kafka.TopicPartition(name, place, 0) for name in topics for place in range(4)])
    try:
        for _ in range(count):
            message = consumer.poll(10)
            assert message is not None
            assert message.error() is None
            yield message.topic(), message.partition(), message.key()
    finally:
        consumer.close()
