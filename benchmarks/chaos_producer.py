"""An ordinary producer of feature events, some of them bad, that keeps a journal of where each one went.

    python -m benchmarks.chaos_producer BOOTSTRAP TOPIC JOURNAL EVENTS_PER_SECOND BAD_SHARE SEED

It runs until SIGTERM, then waits for the last acknowledgements and ends with exit code 0. A line of the journal is
`event_id partition offset kind`, with the kind `good` or one of `bad_events.KINDS`, written on acknowledgement.
"""

import json
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

from aiokafka.partitioner import murmur2
from confluent_kafka import Producer

from benchmarks import bad_events, synthetic

PARTITION_UA: Final = -1  # "unassigned": the partitioner decides
GOOD: Final = "good"
_TICK_S: Final = 0.01
LAST_ACK_S: Final = 120.0
_DRAWN: Final = 10_000
# A huge event takes as much disk as 8,000 good ones.
_WEIGHTS: Final = {kind: 1 if kind == "huge" else 10 for kind in bad_events.KINDS}


class JournaledProducer:
    """Sends events and writes the journal."""

    def __init__(self, bootstrap: str, topic: str, journal: TextIO, bad_share: float, seed: int) -> None:
        self._producer = patient_producer(bootstrap)
        self._topic = topic
        self._journal = journal
        self._bad_share = bad_share
        self._random = random.Random(seed)
        self._values = synthetic.draw(_DRAWN, seed)
        self._failures = 0
        self._number = 0

    def send_next(self) -> None:
        """Send one more event."""
        number, self._number = self._number, self._number + 1
        row = number % _DRAWN
        ((key, value),) = synthetic.documents(self._values[row : row + 1], first=number)
        if self._random.random() >= self._bad_share:
            self._produce(number, GOOD, key, value)
            return
        (kind,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        spoilt = bad_events.KINDS[kind](json.loads(value))
        partition = (home_of(key) + spoilt.detour) % synthetic.PARTITIONS if spoilt.detour else PARTITION_UA
        self._produce(number, kind, spoilt.key, spoilt.value, partition)

    def settle(self) -> bool:
        """Wait for every acknowledgement; return whether all came."""
        return self._producer.flush(LAST_ACK_S) == 0 and self._failures == 0

    def _produce(
        self, number: int, kind: str, key: bytes | None, value: bytes | None, partition: int = PARTITION_UA
    ) -> None:
        def acknowledged(error: Any, message: Any) -> None:
            if error is not None:
                self._failures += 1
                print(f"event {number} was not acknowledged: {error}", file=sys.stderr)
                return
            self._journal.write(f"{synthetic.event_id(number)} {message.partition()} {message.offset()} {kind}\n")

        self._producer.produce(self._topic, value, key, partition, on_delivery=acknowledged)
        self._producer.poll(0)


def patient_producer(bootstrap: str) -> Any:
    """Return a producer that writes each record once, however long the broker may be away."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,  # a retry after a lost acknowledgement must not become a second event
            "linger.ms": 5,
            "queue.buffering.max.messages": 500_000,  # the broker may be away for a while
            "message.max.bytes": 4 * 1024 * 1024,
            "log_level": 2,
        }
    )


def home_of(key: bytes) -> int:
    """The partition where Java's default partitioner puts a key."""
    home: int = (murmur2(key) & 0x7FFFFFFF) % synthetic.PARTITIONS
    return home


def keep_pace(
    send: Callable[[], None],
    per_second: float,
    stopped: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Send `per_second` times a second until stopped; of a hold-up, one second at most is made up for."""
    due = clock()
    while not stopped():
        now = clock()
        due = max(due, now - 1.0)
        while due <= now:
            send()
            due += 1 / per_second
        sleep(_TICK_S)


def main(bootstrap: str, topic: str, journal_file: str, per_second: str, bad_share: str, seed: str) -> int:
    """Produce until SIGTERM; return the exit code."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    with Path(journal_file).open("w", encoding="utf-8") as journal:
        producer = JournaledProducer(bootstrap, topic, journal, float(bad_share), int(seed))
        keep_pace(producer.send_next, float(per_second), lambda: bool(stop))
        return 0 if producer.settle() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
