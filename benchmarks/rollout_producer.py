"""An ordinary producer of flights and their landings, year after year, that keeps a journal of where each event went.

    python -m benchmarks.rollout_producer BOOTSTRAP JOURNAL EVENTS_PER_SECOND

The year begins in February, as in the demo; each round comes 48 weeks after the one before, and its event ids end with
its number. It runs until SIGTERM, then waits for the last acknowledgements and ends with exit code 0: landings that are
still to come are never told. A line of the journal is `event_id partition offset`, written on acknowledgement.
"""

import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import numpy as np

from app.demo.flights import NO_LABEL, STREAM, Flights, load_flights, replay, replay_start
from app.demo.records import encode, feature_event, label_event
from benchmarks.chaos_producer import LAST_ACK_S, keep_pace, patient_producer
from topics.specs import StreamTopics

ROUND_MS: Final = 48 * 7 * 24 * 3_600_000
"""From one round to the next: whole weeks, and more than from February to the last landing of December."""

_QUEUE_WAIT_S: Final = 0.05


class Message(NamedTuple):
    """A record of `<s>.features`, or of `<s>.labels` (then without an event id)."""

    topic: str
    key: bytes
    value: bytes
    event_id: str


def messages(flights: Flights, topics: StreamTopics) -> Iterator[Message]:
    """Yield departures and landings in the order in which they happen, round after round without end."""
    start = flights.first_at(replay_start())
    for number in count():
        shifted, run = _shifted(flights, number), f"-{number}"
        for row, is_label in replay(shifted, start, len(flights)):
            key = flights.entity_ids[row].encode()
            if is_label:
                yield Message(topics.labels, key, encode(label_event(shifted, row, run)), "")
            else:
                event = feature_event(shifted, row, run)
                yield Message(topics.features, key, encode(event), event["event_id"])


def _shifted(flights: Flights, rounds: int) -> Flights:
    landed = flights.label_time_ms != NO_LABEL
    return replace(
        flights,
        event_time_ms=flights.event_time_ms + rounds * ROUND_MS,
        label_time_ms=np.where(landed, flights.label_time_ms + rounds * ROUND_MS, NO_LABEL),
    )


class _Sender:
    """Sends the messages and writes the journal."""

    def __init__(self, bootstrap: str, journal: TextIO) -> None:
        self._producer = patient_producer(bootstrap)
        self._messages = messages(load_flights(), StreamTopics(STREAM))
        self._journal = journal
        self._failures = 0

    def send_next(self) -> None:
        """Send the next event, after the landings before it."""
        for message in self._messages:
            self._send(message)
            if message.event_id:
                return

    def settle(self) -> bool:
        """Wait for every acknowledgement; return whether all came."""
        return self._producer.flush(LAST_ACK_S) == 0 and self._failures == 0

    def _send(self, message: Message) -> None:
        while True:
            try:
                self._producer.produce(
                    message.topic, message.value, message.key, on_delivery=self._acknowledged(message.event_id)
                )
                break
            except BufferError:
                self._producer.poll(_QUEUE_WAIT_S)
        self._producer.poll(0)

    def _acknowledged(self, event_id: str) -> Any:
        def note(error: Any, message: Any) -> None:
            if error is not None:
                self._failures += 1
                print(f"a record of {message.topic()} was not acknowledged: {error}", file=sys.stderr)
            elif event_id:
                self._journal.write(f"{event_id} {message.partition()} {message.offset()}\n")

        return note


def main(bootstrap: str, journal_file: str, per_second: str) -> int:
    """Produce until SIGTERM; return the exit code."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    with Path(journal_file).open("w", encoding="utf-8") as journal:
        sender = _Sender(bootstrap, journal)
        keep_pace(sender.send_next, float(per_second), lambda: bool(stop))
        return 0 if sender.settle() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
