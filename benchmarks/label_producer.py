"""An ordinary producer of events and their labels, which keeps a journal of what must become of each.

    python -m benchmarks.label_producer BOOTSTRAP JOURNAL EVENTS_PER_SECOND SEED

It runs until SIGTERM, then sends the labels that are still to come, waits for the last acknowledgements and ends with
exit code 0. A line of the journal is a `Journaled` in JSON, written on acknowledgement.
"""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from benchmarks.chaos_producer import LAST_ACK_S, keep_pace, patient_producer
from benchmarks.label_script import Fate, Message, Script

_QUEUE_WAIT_S: Final = 0.05


class Journaled(msgspec.Struct, frozen=True):
    """Where a record went, and what must become of it."""

    partition: int
    offset: int
    fate: Fate


class LabelProducer:
    """Sends what the script says and writes the journal."""

    def __init__(self, bootstrap: str, script: Script, journal: TextIO) -> None:
        self._producer = patient_producer(bootstrap)
        self._script = script
        self._journal = journal
        self._encode = msgspec.json.Encoder().encode
        self._failures = 0

    def step(self) -> None:
        """Send the next event and the labels due before it."""
        self._send(self._script.step())

    def end(self) -> bool:
        """Send the rest and wait for every acknowledgement; return whether all came."""
        self._send(self._script.end())
        return self._producer.flush(LAST_ACK_S) == 0 and self._failures == 0

    def _send(self, messages: Iterator[Message]) -> None:
        for message in messages:
            while True:
                try:
                    self._producer.produce(
                        message.topic, message.value, message.key, on_delivery=self._acknowledged(message.fate)
                    )
                    break
                except BufferError:
                    self._producer.poll(_QUEUE_WAIT_S)
            self._producer.poll(0)

    def _acknowledged(self, fate: Fate | None) -> Any:
        def note(error: Any, message: Any) -> None:
            if error is not None:
                self._failures += 1
                print(f"a record of {message.topic()} was not acknowledged: {error}", file=sys.stderr)
            elif fate is not None:
                line = self._encode(Journaled(message.partition(), message.offset(), fate))
                self._journal.write(line.decode() + "\n")

        return note


def main(bootstrap: str, journal_file: str, per_second: str, seed: str) -> int:
    """Produce until SIGTERM; return the exit code."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    with Path(journal_file).open("w", encoding="utf-8") as journal:
        producer = LabelProducer(bootstrap, Script(int(seed)), journal)
        keep_pace(producer.step, float(per_second), lambda: bool(stop))
        return 0 if producer.end() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
