"""What the demo counts of the labels that come back, and how far it believes the other readers to be."""

from dataclasses import dataclass

import msgspec
import pytest

from app.demo.feedback import Feedback
from app.demo.flights import ARCHIVE_SAMPLES, ONLINE, PUBLISH_SAMPLES, WINDOW_SAMPLES
from schemas.events import ShadowScore
from schemas.wire import encode
from tests.support import sample_of
from topics import StreamTopics

TOPICS = StreamTopics("flights")


@dataclass
class Record:
    value: bytes
    key: bytes | None = None
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


def sample(
    event_id: str, label: int = 0, score: float = 0.5, online: float | None = None, delay_ms: int = 60_000
) -> Record:
    shadows = [ShadowScore(variant="another", model_id="x", score=0.0)]
    if online is not None:
        shadows.append(ShadowScore(variant=ONLINE, model_id="m", score=online))
    changes = {"event_id": event_id, "label": label, "score": score, "shadows": tuple(shadows)}
    return Record(encode(sample_of(1, label_time_ms=1_000 + delay_ms, **changes)))


def letter(partition: int, offset: int) -> Record:
    document = {
        "topic": TOPICS.labels,
        "partition": partition,
        "offset": offset,
        "stage": "join",
        "reason": "no_prediction",
        "message": "",
        "dead_time_ms": 0,
        "size_bytes": 0,
        "sha256": "",
        "original_base64": "",
    }
    return Record(msgspec.json.encode(document))


def learnt(lineage: str, last_offset: int) -> Record:
    return Record(msgspec.json.encode({"lineage": lineage, "last_offset": last_offset}))


def window(number: int, *, mature: bool = False) -> Record:
    return Record(msgspec.json.encode({"number": number, "mature": mature, "variants": []}))


def read(feedback: Feedback, topic: str, *records: Record) -> None:
    for record in records:
        feedback.takers[topic](record)


@pytest.fixture
def feedback() -> Feedback:
    return Feedback(TOPICS, {0: 10}, samples_offset=100)


def test_a_sample_that_comes_again_is_not_another_sample(feedback: Feedback) -> None:
    read(feedback, TOPICS.samples, sample("a"), sample("b"), sample("a"))
    assert (feedback.samples, feedback.repeated) == (2, 1)


def test_triggers_are_not_counted(feedback: Feedback) -> None:
    read(feedback, TOPICS.samples, sample("a"), Record(b'{"lineage": "online"}', key=b"trigger"))
    assert feedback.samples == 1


def test_what_was_served_is_told_sample_by_sample_without_corrections(feedback: Feedback) -> None:
    corrected = Record(encode(sample_of(1, event_id="a", revision=1, label=1, score=0.9)))
    read(feedback, TOPICS.samples, sample("a", 0, 0.9), corrected, sample("b", 1, 0.2))
    served = feedback.served
    assert (served.event_ids, served.labels.tolist(), served.scores.tolist()) == (["a", "b"], [0, 1], [0.9, 0.2])


def test_dead_letters_of_labels_that_were_there_before_are_not_counted(feedback: Feedback) -> None:
    read(feedback, TOPICS.labels_dead, letter(0, 9), letter(0, 10), letter(1, 0))
    assert feedback.unmatched == {"no_prediction": 2}
    assert feedback.settled == 2


def test_each_variants_auc_is_over_the_samples_that_carry_its_score(feedback: Feedback) -> None:
    assert feedback.auc("champion") is None
    read(feedback, TOPICS.samples, sample("a", 0, 0.2), sample("b", 0, 0.6))
    assert feedback.auc("champion") is None, "one class alone has no order"
    read(feedback, TOPICS.samples, sample("c", 1, 0.5, online=0.9), sample("d", 0, 0.1, online=0.3))
    assert feedback.auc("champion") == pytest.approx(2 / 3)
    assert feedback.auc(ONLINE) == 1.0


def test_the_label_delay_is_the_median_of_the_newest_samples(feedback: Feedback) -> None:
    assert feedback.label_delay_ms is None
    read(feedback, TOPICS.samples, *(sample(f"old{i}", delay_ms=5) for i in range(3_000)))
    read(feedback, TOPICS.samples, *(sample(f"new{i}", delay_ms=7) for i in range(1_001)))
    assert feedback.label_delay_ms == 7


def test_a_version_that_is_registered_again_is_the_same_version(feedback: Feedback) -> None:
    versions = [Record(msgspec.json.encode({"model_id": model_id})) for model_id in ("m1", "online@500", "m1")]
    read(feedback, TOPICS.models, *versions)
    assert feedback.versions == {"m1", "online@500"}


def test_a_mature_window_takes_the_place_of_its_first_look(feedback: Feedback) -> None:
    read(feedback, TOPICS.performance, window(0), window(1), window(0, mature=True))
    assert [feedback.windows[number].mature for number in (0, 1)] == [True, False]


def archived(offset: int, key: bytes = b"archive.0") -> Record:
    return Record(msgspec.json.encode({"offsets": {TOPICS.samples: offset}}), key=key)


def test_samples_that_are_not_archived_are_not_settled(feedback: Feedback) -> None:
    read(feedback, TOPICS.samples, *(sample(str(i)) for i in range(ARCHIVE_SAMPLES + 10)))
    read(feedback, TOPICS.updates, learnt(ONLINE, 9_999))
    read(feedback, TOPICS.performance, window(0), window(1))
    read(feedback, TOPICS.checkpoints, archived(9_999, key=b"evaluate.0"))
    assert feedback.settled == ARCHIVE_SAMPLES, "the archive may be anywhere before the end of its first chunk"
    read(feedback, TOPICS.checkpoints, archived(100 + ARCHIVE_SAMPLES))
    assert feedback.settled == ARCHIVE_SAMPLES + 10


def test_samples_that_the_learner_or_the_evaluator_has_not_read_are_not_settled(feedback: Feedback) -> None:
    read(feedback, TOPICS.checkpoints, archived(99_999))
    count = WINDOW_SAMPLES + 10
    read(feedback, TOPICS.samples, *(sample(str(i)) for i in range(count)))
    assert feedback.settled == PUBLISH_SAMPLES, "the learner may be anywhere before its first snapshot"
    read(feedback, TOPICS.updates, learnt("another", 9_999), learnt(ONLINE, 100 + 2_000 - 1))
    assert feedback.settled == WINDOW_SAMPLES, "the evaluator may be anywhere before its first window"
    read(feedback, TOPICS.performance, window(0))
    assert feedback.settled == count
    read(feedback, TOPICS.performance, window(0, mature=True))
    read(feedback, TOPICS.samples, *(sample(str(i)) for i in range(count, 3 * WINDOW_SAMPLES)))
    assert feedback.settled == 2_000 + PUBLISH_SAMPLES
