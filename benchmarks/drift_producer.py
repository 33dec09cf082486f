"""An ordinary producer of a given number of good events, all different.

    python -m benchmarks.drift_producer BOOTSTRAP TOPIC JOURNAL EVENTS EVENTS_PER_SECOND SEED

It goes on at its pace until SIGTERM; if that comes before it has sent EVENTS, it sends what is left without a pause.
Then it waits for the last acknowledgements, writes into the journal how many events there are, and ends with exit code
0. Those are numbered from 0, and `draw` tells what each one is.
"""

import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import synthetic
from benchmarks.chaos_producer import LAST_ACK_S, keep_pace, patient_producer

_PIECE: Final = 20_000
_QUEUE_WAIT_S: Final = 0.05


def draw(events: int, seed: int) -> NDArray[np.float64]:
    """Return the features of the first `events` events, shape (events, 10)."""
    pieces = [_piece(number, seed) for number in range(-(-events // _PIECE))]
    return np.concatenate(pieces)[:events]


def _piece(number: int, seed: int) -> NDArray[np.float64]:
    return synthetic.draw(_PIECE, seed * 1_000_003 + number)


class _Events:
    """Sends one event after the other."""

    def __init__(self, bootstrap: str, topic: str, seed: int) -> None:
        self._producer = patient_producer(bootstrap)
        self._topic = topic
        self._documents = self._all(seed)
        self._failures = 0
        self.sent = 0

    def send_next(self) -> None:
        """Send one more event."""
        key, value = next(self._documents)
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._acknowledged)
                break
            except BufferError:
                self._producer.poll(_QUEUE_WAIT_S)
        self._producer.poll(0)
        self.sent += 1

    def settle(self) -> bool:
        """Wait for every acknowledgement; return whether all came."""
        return self._producer.flush(LAST_ACK_S) == 0 and self._failures == 0

    def _acknowledged(self, error: Any, _: Any) -> None:
        self._failures += error is not None

    @staticmethod
    def _all(seed: int) -> Iterator[tuple[bytes, bytes]]:
        for number in count():
            yield from synthetic.documents(_piece(number, seed), first=number * _PIECE)


def main(bootstrap: str, topic: str, journal_file: str, events: str, per_second: str, seed: str) -> int:
    """Produce until SIGTERM, and `events` at least; return the exit code."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    producer = _Events(bootstrap, topic, int(seed))
    keep_pace(producer.send_next, float(per_second), lambda: bool(stop))
    while producer.sent < int(events):
        producer.send_next()
    settled = producer.settle()
    Path(journal_file).write_text(f"{producer.sent}\n", encoding="utf-8")
    return 0 if settled else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
