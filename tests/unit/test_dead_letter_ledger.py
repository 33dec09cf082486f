"""Which dead letters wait, which originals would be accepted now, and what `penstock dead-letters` prints of them."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.dead_letters import ago
from app.cli.types import PlaceType
from app.dead_letter_replay import Examiner, Outcome
from app.dead_letters import REPLAY, TOPIC_NAMES, Lane, Ledger, Letter
from app.text import printable
from schemas.errors import InvalidEvent
from schemas.events import Command, DeadLetter
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import TopicPartition
from stream.deadletters import KEPT_BYTES, dead_letter
from stream.partitioner import partitions_of

SPEC = StreamSpec(name="flights", features=("distance", "hour"))
FEATURES, LABELS, COMMANDS = (Lane.of("flights", name) for name in TOPIC_NAMES)
KEY = b"N14228"
HOME = int(partitions_of([KEY], SPEC.partitions)[0])


@dataclass(frozen=True)
class Record:
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0


def event(**changes: Any) -> bytes:
    document = {"event_id": "1", "entity_id": KEY.decode(), "event_time_ms": 5, "features": {"distance": 1, "hour": 2}}
    return json.dumps(document | changes).encode()


def label(**changes: Any) -> bytes:
    document = {"event_id": "1", "entity_id": KEY.decode(), "label": 1, "label_time_ms": 6}
    return json.dumps(document | changes).encode()


def letter(value: bytes | None, key: bytes | None = KEY, lane: Lane = FEATURES, partition: int = 0) -> Letter:
    """The dead letter that a stage writes of such a record."""
    record, source = Record(7, key, value), TopicPartition(lane.topic, partition)
    written = dead_letter(record, source, "score", InvalidEvent("some_reason", "a sentence"), now_ms=99)
    return Letter(partition, written.key, decode(DeadLetter, written.value))


def slip(offset: int, reason: str = "empty", stage: str = "score", time_ms: int = 0, partition: int = 0) -> Record:
    whole = msgspec.structs.replace(
        letter(b"").event, offset=offset, reason=reason, stage=stage, dead_time_ms=time_ms, partition=partition
    )
    return Record(offset=1000 + offset, key=KEY, value=encode(whole))


def fold(*records: Record) -> Ledger:
    ledger = Ledger()
    for record in records:
        ledger.fold(TopicPartition(FEATURES.dead, 0), record)
    return ledger


def test_a_letter_waits_until_its_original_was_sent_again() -> None:
    ledger = fold(slip(1), slip(2), slip(1, "replayed", REPLAY))
    assert ledger.waiting.keys() == {(0, 2)}
    assert ledger.replayed == {"empty": 1}


def test_an_original_that_is_refused_again_waits_again() -> None:
    ledger = fold(slip(1), slip(1, "replayed", REPLAY), slip(8, "no_score"), slip(1))
    assert ledger.waiting.keys() == {(0, 1), (0, 8)}


def test_a_letter_that_was_written_twice_waits_once_and_is_replayed_once() -> None:
    ledger = fold(slip(1), slip(1), slip(1, "replayed", REPLAY), slip(1, "replayed", REPLAY))
    assert not ledger.waiting
    assert ledger.replayed == {"empty": 1}


def test_what_is_no_dead_letter_is_counted_and_left_alone() -> None:
    part = b'{"partition": 0, "offset": 1, "stage": "score", "reason": "empty", "dead_time_ms": 1}'
    ledger = fold(Record(0, None, b"junk"), Record(1, None, None), Record(2, None, part), slip(1))
    assert (ledger.unreadable, len(ledger.waiting)) == (3, 1)


def test_an_original_that_no_worker_can_have_written_is_incomplete() -> None:
    event_ = msgspec.structs.replace(letter(event()).event, original_base64="no base64")
    assert refusal(Letter(0, KEY, event_)) == "incomplete"


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans())))
def test_the_last_word_on_each_letter_counts(words: list[tuple[int, bool]]) -> None:
    ledger = fold(*(slip(offset, stage=REPLAY if replayed else "score") for offset, replayed in words))
    last = dict(words)
    assert {offset for _, offset in ledger.waiting} == {offset for offset, replayed in last.items() if not replayed}


def test_letters_are_chosen_by_reason_and_place_the_newest_first() -> None:
    ledger = fold(slip(1, time_ms=5), slip(2, "no_key", time_ms=9), slip(3, time_ms=7), slip(3, partition=1))
    assert [w.offset for w in ledger.select(reasons=["empty"])] == [1003, 1001, 1003]
    assert [w.reason for w in ledger.select(places=[(0, 2), (0, 1)])] == ["no_key", "empty"]
    assert [w.offset for w in ledger.select()] == [1002, 1003, 1001, 1003]
    assert ledger.select(["no_key"], [(0, 1)]) == []


def test_letters_are_counted_by_reason_with_the_time_of_the_oldest_and_the_newest_that_wait() -> None:
    ledger = fold(slip(1, time_ms=5), slip(2, time_ms=3), slip(3, time_ms=9), slip(4, "no_key"))
    ledger.fold(TopicPartition(FEATURES.dead, 0), slip(3, "replayed", REPLAY))
    empty, no_key = ledger.counts()
    assert (empty.reason, empty.waiting, empty.replayed, empty.oldest_ms, empty.newest_ms) == ("empty", 2, 1, 3, 5)
    assert (no_key.reason, no_key.waiting) == ("no_key", 1)


def refusal(original: Letter, lane: Lane = FEATURES, max_event_bytes: int = 1024**2) -> str:
    """The reason why the original would not be accepted."""
    with pytest.raises(InvalidEvent) as caught:
        Examiner(SPEC, lane, SPEC.partitions, max_event_bytes).original(original)
    return caught.value.reason


def test_an_event_on_the_wrong_partition_goes_to_its_own_with_its_key_and_value() -> None:
    wrong = (HOME + 1) % SPEC.partitions
    original = Examiner(SPEC, FEATURES, SPEC.partitions, 1024).original(letter(event(), partition=wrong))
    assert (original.partition, original.key, original.value) == (HOME, KEY, event())


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (letter(None), "empty"),
        (letter(b"junk"), "malformed_json"),
        (letter(event(features={"distance": 1})), "invalid_field"),
        (letter(event(features={"distance": 1e39, "hour": 1})), "out_of_range"),
        (letter(event(), key=None), "no_key"),
        (letter(event(), key=b"another"), "wrong_key"),
        (letter(b" " * KEPT_BYTES + event()), "incomplete"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_come_back_is_not_sent(refused: Letter, reason: str) -> None:
    assert refusal(refused) == reason


def test_an_event_that_was_too_large_is_sent_once_the_settings_allow_it() -> None:
    large = letter(event(padding="x" * 2000))
    assert refusal(large, max_event_bytes=1000) == "too_large"
    assert Examiner(SPEC, FEATURES, SPEC.partitions, 4000).original(large).partition == HOME


def test_many_events_of_a_wrong_partitioner_do_not_end_a_replay() -> None:
    examiner = Examiner(SPEC, FEATURES, SPEC.partitions, 1024)
    homes = Counter(
        examiner.original(letter(event(entity_id=f"e{i}"), key=f"e{i}".encode())).partition for i in range(200)
    )
    assert homes.keys() == {0, 1, 2, 3}


def test_a_label_goes_to_the_partition_of_its_entity_whatever_the_join_said_of_its_time() -> None:
    wrong = (HOME + 1) % SPEC.partitions
    original = Examiner(SPEC, LABELS, SPEC.partitions, 1024).original(letter(label(), lane=LABELS, partition=wrong))
    assert (original.partition, original.key, original.value) == (HOME, KEY, label())


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (letter(b"junk", lane=LABELS), "malformed_json"),
        (letter(event(), lane=LABELS), "invalid_field"),
        (letter(label(label="late"), lane=LABELS), "unknown_label"),
        (letter(label(), key=b"another", lane=LABELS), "wrong_key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_label_that_would_come_back_is_not_sent(refused: Letter, reason: str) -> None:
    assert refusal(refused, LABELS) == reason


def test_a_label_that_was_unknown_is_sent_once_the_stream_knows_it() -> None:
    several = msgspec.structs.replace(SPEC, task="multiclass", classes=("early", "late"))
    unknown = letter(label(label="late"), lane=LABELS)
    assert Examiner(several, LABELS, SPEC.partitions, 1024).original(unknown).value == unknown.original


def test_a_command_goes_back_to_where_its_order_is_kept_if_it_can_be_read() -> None:
    command = Command(
        stream="flights", action="promote", model_id="m", expected_revision=0, issued_by="me", issued_time_ms=1,
        correlation_id="c",
    )  # fmt: skip
    examiner = Examiner(SPEC, COMMANDS, 4, 1024)
    assert examiner.original(letter(encode(command), key=b"flights", lane=COMMANDS)).partition == 0
    assert refusal(letter(b"{}", lane=COMMANDS), COMMANDS) == "invalid_field"


def test_what_is_kept_is_told_by_why_with_a_count_and_an_example() -> None:
    outcome = Outcome()
    for sentence in ("first", "second"):
        outcome.keep(letter(b"").event, InvalidEvent("empty", sentence))
    kept = outcome.kept["empty"]
    assert (kept.count, kept.example, kept.place) == (2, "first", (0, 7))


@given(st.text())
def test_nothing_in_a_dead_letter_can_steer_the_terminal(text: str) -> None:
    assert all(character.isprintable() for character in printable(text))


def test_readable_text_is_printed_as_it_is() -> None:
    assert printable('{"a": "é 日本"}') == '{"a": "é 日本"}'
    assert printable("\x1b[31m\n") == "\\x1b[31m\\n"


@pytest.mark.parametrize(
    ("age_ms", "words"),
    [(-5, "just now"), (999, "just now"), (1000, "1 s ago"), (119_999, "1 min ago"), (90_000_000, "1 d ago")],
)
def test_ages_are_told_in_their_largest_unit(age_ms: int, words: str) -> None:
    assert ago(age_ms) == words


def test_a_place_is_written_as_list_prints_it() -> None:
    assert PlaceType().convert("3:1204", None, None) == (3, 1204)
    for wrong in ("3", "a:1", "3:-1", "3:1204:2", ""):
        with pytest.raises(click.BadParameter, match="such as 3:1204"):
            PlaceType().convert(wrong, None, None)
