"""What a dead letter keeps, and when too many of them stop the worker."""

import base64
import hashlib

import pytest

from schemas.errors import FatalError, InvalidEvent
from schemas.events import DeadLetter
from schemas.wire import decode
from stream.batches import TopicPartition
from stream.deadletters import KEPT_BYTES, DeadLetterGate, dead_letter
from tests.support import Entry
from topics import MAX_MESSAGE_BYTES

SOURCE = TopicPartition("flights.features", 3)
ERROR = InvalidEvent("malformed_json", "the value is not JSON")


def _letter(value: bytes | None, key: bytes | None = b"N123") -> tuple[bytes | None, DeadLetter]:
    out = dead_letter(Entry(17, value, key), SOURCE, "score", ERROR, now_ms=1000)
    return out.key, decode(DeadLetter, out.value)


def test_it_says_what_where_and_why() -> None:
    key, letter = _letter(b"{broken")
    assert key == b"N123"
    assert (letter.topic, letter.partition, letter.offset, letter.stage) == ("flights.features", 3, 17, "score")
    assert (letter.reason, letter.message) == ("malformed_json", "the value is not JSON")
    assert base64.b64decode(letter.original_base64) == b"{broken"
    assert (letter.size_bytes, letter.sha256) == (7, hashlib.sha256(b"{broken").hexdigest())
    assert letter.dead_time_ms == 1000


def test_a_large_original_is_kept_in_part_with_the_size_and_hash_of_the_whole() -> None:
    value = bytes(range(256)) * 8192
    _, letter = _letter(value)
    assert base64.b64decode(letter.original_base64) == value[:KEPT_BYTES]
    assert (letter.size_bytes, letter.sha256) == (len(value), hashlib.sha256(value).hexdigest())


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_a_value_has_a_letter_too(value: bytes | None) -> None:
    key, letter = _letter(value, key=None)
    assert key is None
    assert (letter.size_bytes, letter.original_base64) == (0, "")


def test_an_endless_message_is_cut() -> None:
    error = InvalidEvent("invalid_field", "x" * 1_000_000)
    out = dead_letter(Entry(0, b"{}", b"k"), SOURCE, "score", error, now_ms=0)
    assert len(out.value) < 3000


def test_a_letter_fits_its_topic_however_large_the_key_was() -> None:
    out = dead_letter(Entry(0, b"", b"k" * (MAX_MESSAGE_BYTES - 100)), SOURCE, "score", ERROR, now_ms=0)
    assert out.key is not None
    assert len(out.key) + len(out.value) < MAX_MESSAGE_BYTES - 100


def test_few_dead_letters_pass_and_one_more_than_the_share_stops() -> None:
    gate = DeadLetterGate(share=0.05, window=1000)
    gate.pass_through(500, 50, "so")
    with pytest.raises(FatalError, match=r"51 of the last 501 records .* 5% of 1000.*feature 'a' is missing"):
        gate.pass_through(1, 1, "feature 'a' is missing")


def test_the_sentence_says_what_to_do() -> None:
    with pytest.raises(FatalError, match="Mend the producer, or raise ML_DEAD_LETTER_SHARE"):
        DeadLetterGate(share=0.0, window=1000).pass_through(1, 1, "broken")


def test_an_all_bad_beginning_does_not_stop_before_there_are_many() -> None:
    gate = DeadLetterGate(share=0.05, window=10_000)
    for _ in range(500):
        gate.pass_through(1, 1, "broken")


def test_what_has_left_the_window_is_forgotten() -> None:
    gate = DeadLetterGate(share=0.05, window=1000)
    for _ in range(20):
        gate.pass_through(100, 40, "broken")
        gate.pass_through(1000, 0, "")


def test_a_steady_share_below_the_limit_never_stops_and_one_above_always_does() -> None:
    gate = DeadLetterGate(share=0.05, window=1000)
    for _ in range(200):
        gate.pass_through(100, 4, "broken")
    with pytest.raises(FatalError):
        for _ in range(20):
            gate.pass_through(100, 7, "broken")


def test_a_share_of_one_lets_everything_pass() -> None:
    gate = DeadLetterGate(share=1.0, window=10)
    for _ in range(100):
        gate.pass_through(10, 10, "broken")
