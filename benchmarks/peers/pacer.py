"""A producer that keeps a fixed rate, and notes when each event went out.

    python -m benchmarks.peers.pacer BOOTSTRAP TOPIC EVENTS_PER_SECOND EVENTS SEED NOTES

It sends the first PROBES events at once, waits for a line on its standard input, and sends the others at the rate. Then
it writes NOTES: an array with the time of each event in milliseconds, which is that of its own sending.

It must not take the broker's core away: all events are prepared before the first is sent, and what is due goes out
every 5 ms. Every millisecond would cost the broker, the readers and this process together more than twice as much at
10,000 events per second, because each request and each answer has its price.
"""

import gc
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from confluent_kafka import Producer

from benchmarks import synthetic

PROBES: Final = 40
_TICK_S: Final = 0.005
_LAST_ACK_S: Final = 30.0
_TIME: Final = b'"event_time_ms":'
_DIGITS: Final = 13


def prepared(events: int, seed: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield of each event its key, and its value before and after the digits of its time."""
    for key, value in synthetic.documents(synthetic.draw(events, seed)):
        head, name, tail = value.partition(_TIME)
        yield key, head + name, tail[_DIGITS:]


class Pacer:
    """Sends prepared events and notes when."""

    def __init__(self, bootstrap: str, topic: str, events: int, seed: int) -> None:
        self._producer: Any = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 2,
            }
        )
        self._topic = topic
        self._events = list(prepared(events, seed))
        self._sent = 0
        self.times_ms = np.zeros(events)

    def send(self, count: int) -> None:
        """Send the next `count` events now."""
        for number in range(self._sent, self._sent + count):
            key, head, tail = self._events[number]
            now_ms = time.time() * 1000
            self.times_ms[number] = now_ms
            self._producer.produce(self._topic, b"%s%d%s" % (head, now_ms, tail), key)
        self._producer.poll(0)
        self._sent += count

    def pace(self, rate: float) -> None:
        """Send all the others, evenly; after a hold-up what is due goes out at once."""
        first, began = self._sent, time.monotonic()
        while self._sent < len(self._events):
            due = min(len(self._events), first + int((time.monotonic() - began) * rate))
            if due > self._sent:
                self.send(due - self._sent)
            time.sleep(_TICK_S)

    def settle(self) -> bool:
        """Wait for every acknowledgement; return whether all came."""
        return bool(self._producer.flush(_LAST_ACK_S) == 0)


def main(bootstrap: str, topic: str, rate: str, events: str, seed: str, notes: str) -> int:
    """Probe, pace and write the notes; return the exit code."""
    gc.disable()
    pacer = Pacer(bootstrap, topic, int(events), int(seed))
    pacer.send(PROBES)
    if not pacer.settle() or not sys.stdin.readline():
        return 1
    pacer.pace(float(rate))
    if not pacer.settle():
        return 1
    np.save(notes, pacer.times_ms)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
