"""The judge of the bad-input benchmark finds what it is there to find."""

import hashlib
from typing import Any

import msgspec

from benchmarks.bad_events import KINDS
from benchmarks.bad_input_checker import REASONS, DeadLetter, Prediction, judge
from benchmarks.checker import Place
from benchmarks.spoilt_stream import GOOD, UNKNOWN_FEATURE, Written

DIGEST = hashlib.sha256(b"").hexdigest()
MODEL = "champion"
SPOILT = [Written(f"b{n}", Place(n % 4, 100 + n), kind, DIGEST) for n, kind in enumerate(KINDS)]
SOUND = [Written(f"e{n}", Place(n % 4, n), UNKNOWN_FEATURE if n % 5 == 0 else GOOD, "") for n in range(20)]
SCORES = {event.event_id: 0.25 for event in SOUND}
PREDICTIONS = [Prediction(event.event_id, MODEL, 0.25, *event.place) for event in SOUND]
LETTERS = [DeadLetter(*event.place, REASONS[event.kind], "what is wrong", DIGEST) for event in SPOILT]


def _judge(predictions: list[Prediction] = PREDICTIONS, letters: list[DeadLetter] = LETTERS) -> dict[str, Any]:
    return judge(SOUND + SPOILT, predictions, letters, SCORES, MODEL)


def _flaws(found: dict[str, Any]) -> tuple[int, int, int]:
    return found["lost"], found["duplicated"], found["misjudged"]


def test_there_is_a_reason_for_each_kind_of_bad_event() -> None:
    assert REASONS.keys() == KINDS.keys()


def test_one_right_outcome_per_event_has_no_flaw() -> None:
    found = _judge()
    assert _flaws(found) == (0, 0, 0)
    assert (found["events"], found["bad"], found["predictions"], found["dead_letters"]) == (34, 14, 20, 14)
    assert found["reasons"]["nan"] == {"malformed_json": 1, "example": "what is wrong"}


def test_an_event_with_an_undeclared_feature_must_be_scored() -> None:
    letter = DeadLetter(*SOUND[0].place, "invalid_field", "", "")
    assert _flaws(_judge(PREDICTIONS[1:], [*LETTERS, letter])) == (0, 0, 1)


def test_a_missing_dead_letter_and_a_missing_prediction_are_lost() -> None:
    assert _flaws(_judge(PREDICTIONS[1:], LETTERS[1:])) == (2, 0, 0)


def test_a_second_dead_letter_is_a_double() -> None:
    assert _flaws(_judge(letters=[*LETTERS, LETTERS[0]])) == (0, 1, 0)


def test_a_reason_that_does_not_fit_is_misjudged() -> None:
    wrong = msgspec.structs.replace(LETTERS[0], reason="too_large")
    assert _flaws(_judge(letters=[wrong, *LETTERS[1:]])) == (0, 0, 1)


def test_a_dead_letter_of_other_bytes_is_misjudged() -> None:
    wrong = msgspec.structs.replace(LETTERS[0], sha256="0" * 64)
    assert _flaws(_judge(letters=[wrong, *LETTERS[1:]])) == (0, 0, 1)


def test_another_score_and_another_model_are_misjudged() -> None:
    wrong = [
        msgspec.structs.replace(PREDICTIONS[0], score=0.250001),
        msgspec.structs.replace(PREDICTIONS[1], model_id="other"),
    ]
    assert _flaws(_judge([*wrong, *PREDICTIONS[2:]])) == (0, 0, 2)
