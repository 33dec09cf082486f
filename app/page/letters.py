"""What is shown of dead letters: how many wait, why they were dead, and a few of them.

A letter waits until a receipt in its topic says that its original was sent again (see `app.dead_letters`).
"""

import base64
import binascii
import heapq
from collections import Counter
from typing import Final

from app.dead_letters import REPLAY
from app.page.document import DeadLetters, ShownDeadLetter
from schemas.events import DeadLetter
from stream.batches import TopicPartition

EXAMPLES: Final = 8
MOST_LETTERS: Final = 2_000
_ORIGINAL_LETTERS: Final = 400


class LetterFold:
    """The fold of a stream's dead-letter topics. The newest 2,000 that wait are kept: about 1 MB at most."""

    def __init__(self) -> None:
        self._answered: dict[TopicPartition, int] = {}
        self._waiting: dict[tuple[str, int, int], ShownDeadLetter] = {}
        self._has_older = False

    def pass_over(self) -> None:
        """Take into account that there are older letters, which were not read."""
        self._has_older = True

    def answered(self, source: TopicPartition) -> int:
        """Return the offset behind the last original of `source` that became a letter; 0 when none did."""
        return self._answered.get(source, 0)

    def take(self, letter: DeadLetter) -> None:
        """Go on with a later letter."""
        place = (letter.topic, letter.partition, letter.offset)
        self._waiting.pop(place, None)
        if letter.stage == REPLAY:
            return
        source = TopicPartition(letter.topic, letter.partition)
        self._answered[source] = max(self.answered(source), letter.offset + 1)
        self._waiting[place] = _shown(letter)
        if len(self._waiting) > MOST_LETTERS:
            del self._waiting[next(iter(self._waiting))]
            self._has_older = True

    def letters(self) -> DeadLetters:
        """Return counts of what was read and waits, and the newest examples."""
        waiting = self._waiting.values()
        return DeadLetters(
            count=len(waiting),
            at_least=self._has_older,
            reasons=dict(Counter(letter.reason for letter in waiting).most_common()),
            examples=tuple(heapq.nlargest(EXAMPLES, waiting, key=lambda letter: letter.dead_time_ms)),
        )


def _shown(letter: DeadLetter) -> ShownDeadLetter:
    return ShownDeadLetter(
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        reason=letter.reason,
        message=letter.message,
        original=_beginning(letter.original_base64),
        dead_time_ms=letter.dead_time_ms,
    )


def _beginning(encoded: str) -> str:
    """Return the beginning of an original as text; nothing when no worker wrote this letter."""
    try:
        original = base64.b64decode(encoded[: 4 * _ORIGINAL_LETTERS])
    except binascii.Error:
        return ""
    text = original.decode(errors="replace")
    return text if len(text) <= _ORIGINAL_LETTERS else text[: _ORIGINAL_LETTERS - 1] + "…"
