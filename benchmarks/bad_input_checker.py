"""Judges what became of good and bad events: the right outcome, once, and for the right reason."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from benchmarks.checker import Place, Scored, Sent, tally
from benchmarks.spoilt_stream import Written

REASONS: Final[Mapping[str, str]] = {
    "broken_json": "malformed_json",
    "not_utf8": "malformed_json",
    "wrong_type": "invalid_field",
    "missing_feature": "invalid_field",
    "missing_time": "invalid_field",
    "nan": "malformed_json",
    "infinity": "malformed_json",
    "beyond_float32": "out_of_range",
    "empty_value": "empty",
    "null_value": "empty",
    "null_key": "no_key",
    "key_of_another": "wrong_key",
    "wrong_partition": "wrong_partition",
    "huge": "too_large",
}
"""The reason that fits each kind of bad event."""


class Prediction(msgspec.Struct):
    """What is read of a prediction."""

    event_id: str
    model_id: str
    score: float
    partition: int
    offset: int

    @property
    def place(self) -> Place:
        """Where its event lies."""
        return Place(self.partition, self.offset)


class DeadLetter(msgspec.Struct):
    """What is read of a dead letter."""

    partition: int
    offset: int
    reason: str
    message: str
    sha256: str

    @property
    def place(self) -> Place:
        """Where its record lies."""
        return Place(self.partition, self.offset)


def judge(
    written: Sequence[Written],
    predictions: Sequence[Prediction],
    dead_letters: Sequence[DeadLetter],
    scores: Mapping[str, float],
    model_id: str,
) -> dict[str, Any]:
    """Return the counts. `scores` are the right ones by event id, which `model_id` must have given.

    `misjudged` are events with a wrong outcome: a prediction for a bad one, a dead letter for a good one, another
    score or model, a reason that does not fit, or a dead letter of other bytes.
    """
    found = tally(
        (Sent(event.event_id, event.place, event.good) for event in written),
        (Scored(prediction.event_id, prediction.place) for prediction in predictions),
        (letter.place for letter in dead_letters),
    )
    wrong_scores = sum(1 for p in predictions if p.score != scores.get(p.event_id) or p.model_id != model_id)
    bad = {event.place: event for event in written if not event.good}
    wrong_reasons = sum(1 for letter in dead_letters if letter.place in bad and not _fits(letter, bad[letter.place]))
    return {
        "events": found.events,
        "bad": found.dead_letters_expected,
        "predictions": len(predictions),
        "dead_letters": found.dead_letters,
        "lost": found.lost,
        "duplicated": found.duplicated,
        "misjudged": found.misjudged + found.unknown + wrong_scores + wrong_reasons,
        "reasons": _reasons(dead_letters, bad),
    }


def _fits(letter: DeadLetter, event: Written) -> bool:
    return letter.reason == REASONS[event.kind] and letter.sha256 == event.sha256


def _reasons(dead_letters: Iterable[DeadLetter], bad: Mapping[Place, Written]) -> dict[str, Any]:
    """Return, for each kind of bad event, how often which reason was given, and what one dead letter says."""
    counts: dict[str, Counter[str]] = {}
    examples: dict[str, str] = {}
    for letter in dead_letters:
        kind = bad[letter.place].kind if letter.place in bad else "none that was sent"
        counts.setdefault(kind, Counter())[letter.reason] += 1
        examples.setdefault(kind, letter.message)
    return {kind: {**counts[kind], "example": examples[kind]} for kind in sorted(counts)}
