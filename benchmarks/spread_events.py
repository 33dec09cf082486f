"""Events for many streams at a steady total rate, and a reader of all their predictions.

    python -m benchmarks.spread_events BOOTSTRAP EVENTS_PER_SECOND SEED FIRST COUNT STREAM...

Event `n` has the features of row `n` (of 10,000 drawn by the seed, again and again) and goes to stream `n` modulo the
number of streams. Sends COUNT events, waits for all acknowledgements and ends with exit code 0.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks import synthetic
from benchmarks.chaos_producer import LAST_ACK_S, keep_pace, patient_producer

DRAWN: Final = 10_000
_TIMEOUT_S: Final = 30.0
_MOST_ROWS: Final = 5_000
_POLL_S: Final = 0.05


class _Scored(msgspec.Struct):
    event_id: str
    score: float
    scored_time_ms: int
    latency_ms: int


class SpreadReader:
    """Reads committed predictions of many topics from their present end: `seen` ids and scores, and `latencies_ms`."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self.seen: list[tuple[str, float]] = []
        self.latencies_ms: list[float] = []
        self._decode = msgspec.json.Decoder(_Scored).decode
        self._consumer: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": 2,
            }
        )
        known = self._consumer.list_topics(timeout=_TIMEOUT_S).topics
        places = [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]
        for place in places:  # a position of "the end" would only be asked for later, when there is more
            _, place.offset = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
        self._consumer.assign(places)

    def read_for(self, seconds: float) -> None:
        """Read what comes in so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            earliest = self._consumer.poll(_POLL_S)
            if earliest is None:
                continue
            now_ms = time.time() * 1000
            for message in [earliest, *self._consumer.consume(_MOST_ROWS, 0)]:
                if message.error():
                    raise KafkaException(message.error())
                scored = self._decode(message.value())
                self.seen.append((scored.event_id, scored.score))
                self.latencies_ms.append(now_ms - (scored.scored_time_ms - scored.latency_ms))

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


@contextlib.contextmanager
def sending(bootstrap: str, streams: Sequence[str], rate: float, seed: int, first: int, count: int) -> Iterator[None]:
    """Send `count` events from number `first` on beside the block, and wait at its end until all are acknowledged."""
    words = [bootstrap, str(rate), str(seed), str(first), str(count), *streams]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.spread_events", *words])
    try:
        yield
        if process.wait(LAST_ACK_S + count / rate):
            raise RuntimeError("the producer failed: not every event was acknowledged")
    finally:
        process.kill()
        process.wait()


def main(bootstrap: str, rate: str, seed: str, first: str, count: str, *streams: str) -> int:
    """Send the events; return the exit code."""
    producer = patient_producer(bootstrap)
    values = synthetic.draw(DRAWN, int(seed))
    numbers = iter(range(int(first), int(first) + int(count)))
    left = int(count)
    failed: list[str] = []

    def send_next() -> None:
        nonlocal left
        if (number := next(numbers, None)) is None:
            return
        left -= 1
        row = number % DRAWN
        ((key, value),) = synthetic.documents(values[row : row + 1], first=number)
        producer.produce(f"{streams[number % len(streams)]}.features", value, key, on_delivery=acknowledged)
        producer.poll(0)

    def acknowledged(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(str(error))

    keep_pace(send_next, float(rate), lambda: left == 0)
    return 0 if producer.flush(LAST_ACK_S) == 0 and not failed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
