"""Dead letters: records that cannot be used, kept with what, where and why; and the share that is too much."""

import base64
import hashlib
from collections import deque

from schemas.errors import FatalError, InvalidEvent
from schemas.events import DeadLetter
from schemas.wire import encode
from stream.batches import Outgoing, Record, TopicPartition

KEPT_BYTES = 64 * 1024


def dead_letter(record: Record, source: TopicPartition, stage: str, error: InvalidEvent, now_ms: int) -> Outgoing:
    """Return the dead letter of `record`, under its original key (its first KEPT_BYTES, should it be longer)."""
    value = record.value or b""
    letter = DeadLetter(
        topic=source.topic,
        partition=source.partition,
        offset=record.offset,
        stage=stage,
        reason=error.reason,
        message=str(error)[:2000],
        dead_time_ms=now_ms,
        size_bytes=len(value),
        sha256=hashlib.sha256(value).hexdigest(),
        original_base64=base64.b64encode(value[:KEPT_BYTES]).decode(),
    )
    return Outgoing(record.key[:KEPT_BYTES] if record.key else record.key, encode(letter))


class DeadLetterGate:
    """Stops the worker when too many of the newest records are dead letters: then the producer is wrong, not the data.

    `share` (0 to 1) of the newest `window` records is the most that may be dead; 1 lets everything pass. The
    limit is a number of records, `share * window`, so that a few bad ones at the start of a task do not trip it.
    """

    def __init__(self, share: float, window: int) -> None:
        self._limit = share * window
        self._share = share
        self._window = window
        self._steps: deque[tuple[int, int]] = deque()
        self._seen = 0
        self._dead = 0

    def pass_through(self, seen: int, dead: int, example: str) -> None:
        """Count `dead` dead letters among `seen` records; raise FatalError with `example` when it is too many."""
        self._steps.append((seen, dead))
        self._seen += seen
        self._dead += dead
        while self._seen - self._steps[0][0] >= self._window:
            old_seen, old_dead = self._steps.popleft()
            self._seen -= old_seen
            self._dead -= old_dead
        if self._share < 1 and self._dead > self._limit:
            raise FatalError(
                f"{self._dead} of the last {self._seen} records could not be used (the limit is {self._share:.0%} of "
                f"{self._window}); the last reason was: {example}. Mend the producer, or raise ML_DEAD_LETTER_SHARE."
            )
