"""The demo's producer: an ordinary Kafka client in a process of its own, which replays the flights.

    python -m app.demo.producer --bootstrap HOST:PORT --events 20000 --rate 1000 [--follow-stdin]

It reaches Kafka with the settings of the environment (TLS, SASL) and sends features and labels in the order in
which they happened, with time compressed so that `--rate` features leave per second.

The embedded broker forgets what is more than 5 MB old in a partition, so nobody may fall further behind than that.
With `--follow-stdin` the process at the other end writes, line by line, how many records have come out: features
that were answered (by a prediction or a dead letter that it has read) and labels that have become samples (or dead
letters) that all their readers have read. Whoever stands at the end of the chain speaks for all readers before it:
while more than 1 MB has not come out, nothing is sent. The narrowest place is `<s>.samples`, one partition that gets
the samples of all labels, which are the largest records; two readers tell how far they are only every some hundred
samples (1 MB). When stdin ends, so does the producer.

The embedded broker answers a fetch with one batch of each partition, whatever its size. So records leave in bursts,
each of which makes one batch per partition: many small ones are more than a reader can keep up with.

On stdout it writes a line of JSON four times a second, and a last one with `"done": true`.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, TextIO

import confluent_kafka

from app.demo.fault import Fault, in_kilometres
from app.demo.flights import STREAM, Flights, Moment, load_flights, replay, replay_start
from app.demo.pace import Pace, Readers
from app.demo.records import encode, feature_event, label_event, spoils, spoilt
from app.settings import load_settings
from schemas.errors import FatalError, PenstockError, SettingsError
from stream.connection import KafkaConnection
from topics import StreamTopics

MAX_BEHIND_BYTES: Final = 1_000_000
RECORD_BYTES: Final = 600  # no record that a feature or a label leads to is larger
DEFAULT_RATE: Final = 1_000.0  # leaves half of a two-core machine to others, and latency shows it
_TICK_S: Final = 0.1
_REPORT_S: Final = 0.25
_FLUSH_S: Final = 30.0
_NO_FAULT: Final = Fault()


class FlightSender:
    """Sends moments of the replay to the topics and counts what the broker has acknowledged; `fault` is planted."""

    def __init__(
        self,
        flights: Flights,
        topics: StreamTopics,
        producer: Any,
        bad_share: float,
        fault: Fault = _NO_FAULT,
    ) -> None:
        self._flights = flights
        self._topics = topics
        self._producer = producer
        self._bad_share = bad_share
        self._fault = fault
        self._spoilt: set[int] = set()
        self.features = 0
        self.labels = 0
        self.bad = 0
        self.bad_labels = 0
        self.faulty = 0
        self.acknowledged: dict[str, Counter[int]] = {topics.features: Counter(), topics.labels: Counter()}
        self.failure: str | None = None

    def send(self, moment: Moment) -> None:
        """Hand one record to the client; keyed by entity, so that features and labels meet at one partition."""
        if moment.is_label:
            topic, value = self._topics.labels, encode(label_event(self._flights, moment.row))
            self.labels += 1
            self.bad_labels += moment.row in self._spoilt
        else:
            topic, value = self._topics.features, self._feature_value(moment.row)
            self.features += 1
        key = self._flights.entity_ids[moment.row].encode()
        self._producer.produce(topic, key=key, value=value, on_delivery=self._delivered)

    def behind_bytes(self, records_out: int) -> int:
        """Return at most how many bytes have been sent but not come out, when `records_out` records have."""
        return (self.features + self.labels - records_out) * RECORD_BYTES

    def check(self) -> None:
        """Raise FatalError if the broker has refused a record."""
        if self.failure:
            raise FatalError(self.failure)

    def report(self) -> dict[str, Any]:
        """Return the counts so far; `bad_labels` are the labels of spoilt events, `faulty` events are in kilometres."""
        return {
            "features": self.features,
            "labels": self.labels,
            "bad": self.bad,
            "bad_labels": self.bad_labels,
            "faulty": self.faulty,
            "acknowledged": {topic: dict(sorted(counts.items())) for topic, counts in self.acknowledged.items()},
        }

    def _feature_value(self, row: int) -> bytes:
        event = feature_event(self._flights, row)
        kind = spoils(self.features, self._bad_share)
        if kind is not None:
            self.bad += 1
            self._spoilt.add(row)
            return spoilt(event, kind)
        if self._fault.hits(self._flights, row):
            self.faulty += 1
            event = in_kilometres(event)
        return encode(event)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failure = f"a record for {message.topic()} was not taken: {error}"
        else:
            self.acknowledged[message.topic()][message.partition()] += 1


class Reporter:
    """Writes a line of JSON at most every `_REPORT_S`, and the last one when asked to."""

    def __init__(self, out: TextIO, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._next_s = clock()

    def report(self, sender: FlightSender, *, done: bool = False) -> None:
        """Write the sender's counts if it is time, or if they are the last."""
        if done or self._clock() >= self._next_s:
            self._next_s = self._clock() + _REPORT_S
            self._out.write(json.dumps({"done": done, **sender.report()}) + "\n")
            self._out.flush()


def send_all(
    moments: Iterable[Moment],
    sender: FlightSender,
    pace: Pace,
    readers: Readers | None,
    tick: Callable[[], None],
) -> None:
    """Send every moment at the pace, and nothing while a reader is too far behind.

    `tick` is called before each look at the clock; it sleeps. Raises FatalError when a record was refused or the
    process that follows has gone.
    """
    due = 0
    for moment in moments:
        while due == 0 and not moment.is_label:
            tick()
            sender.check()
            if readers and readers.gone:
                raise FatalError("whoever followed the demo has gone")
            if readers is None or sender.behind_bytes(readers.records) < MAX_BEHIND_BYTES:
                due = pace.due()
        sender.send(moment)
        due -= not moment.is_label


def client_config(connection: KafkaConnection) -> dict[str, Any]:
    """Return librdkafka's settings for an idempotent producer that puts keys where Java's clients do."""
    security = {
        "security.protocol": connection.security_protocol,
        "sasl.mechanism": connection.sasl_mechanism if connection.uses_sasl else "",
        "sasl.username": connection.sasl_username,
        "sasl.password": connection.sasl_password,
        "ssl.ca.location": connection.ssl_ca_file,
        "ssl.certificate.location": connection.ssl_cert_file,
        "ssl.key.location": connection.ssl_key_file or connection.ssl_cert_file,
        "ssl.key.password": connection.ssl_key_password,
    }
    return {
        "bootstrap.servers": connection.bootstrap,
        "client.id": f"{connection.client_id}-demo",
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 100,  # a burst is flushed, so nothing lingers
        "partitioner": "murmur2_random",
        **{name: value for name, value in security.items() if value},
    }


def main() -> None:
    """Replay the flights as the command line says; exit code 1 with a sentence when a record was not taken."""
    options = _arguments()
    connection = load_settings(os.environ).kafka_connection(options.bootstrap)
    if not connection.bootstrap:
        raise SettingsError("no Kafka is named: give --bootstrap or ML_KAFKA_BOOTSTRAP")
    flights = load_flights()
    start = flights.first_at(replay_start())
    stop = min(start + options.events, len(flights))
    fault = Fault(stop - options.fault_events if options.fault_events else None)
    client = confluent_kafka.Producer(client_config(connection))
    sender = FlightSender(flights, StreamTopics(options.stream), client, options.bad_share, fault)
    reporter = Reporter(sys.stdout, time.monotonic)

    def tick() -> None:
        client.flush(_TICK_S)
        time.sleep(_TICK_S)
        reporter.report(sender)

    readers = Readers() if options.follow_stdin else None
    if readers:
        threading.Thread(target=readers.follow, args=(sys.stdin,), daemon=True).start()
    moments = replay(flights, start, stop)
    send_all(moments, sender, Pace(options.rate, time.monotonic), readers, tick)
    if left := client.flush(_FLUSH_S):
        raise FatalError(f"{left} records were not acknowledged within {_FLUSH_S:g} s")
    sender.check()
    reporter.report(sender, done=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.demo.producer", description="Replay the demo's flights.")
    parser.add_argument("--bootstrap", default="", help="Kafka's address; default: ML_KAFKA_BOOTSTRAP")
    parser.add_argument("--stream", default=STREAM)
    parser.add_argument("--events", type=int, default=sys.maxsize, help="how many features; default: all")
    parser.add_argument("--rate", type=float, default=DEFAULT_RATE, help="features per second")
    parser.add_argument("--bad-share", type=float, default=0.0, help="share of features that are spoilt on purpose")
    parser.add_argument("--fault-events", type=int, default=0, help="how many of the last features have the fault")
    parser.add_argument("--follow-stdin", action="store_true", help="wait for readers, who tell on stdin")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except PenstockError as error:
        sys.exit(f"{error}")
