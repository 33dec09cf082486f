"""The parts of a replay: windows over given scores, the archive's rows, triggers, settings that are changed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from agents.archive.rows import table_of
from agents.replay.ahead import ahead
from agents.replay.archived import WHOLE, Border, Rows, forgotten_of, prediction_records, sample_records, samples_of
from agents.replay.decisions import NO_PLACE
from agents.replay.merging import Held
from agents.replay.triggers import triggers_of
from agents.replay.windows import alerts_on
from app.what_if import changed
from ml.training.table import Table
from schemas.errors import SettingsError
from schemas.events import Prediction, RetrainRequest, Sample
from schemas.streams import StreamSpec
from schemas.training import TrainingSpec
from schemas.wire import decode, encode
from stream.partitioner import partitions_of
from tests.replaying import DAWN_MS, DAY_MS, SAMPLES, SPEC, Linear, labelled, rows_of, served
from tests.support import Entry


def table(n: int, labels: np.ndarray) -> Table:
    times = DAWN_MS + 1000 * np.arange(n, dtype=np.int64)
    return Table(np.zeros((n, 2), np.float32), labels, np.ones(n), times, np.zeros(n, dtype=np.int64), np.zeros(n))


def test_a_model_that_fails_after_a_while_raises_alerts_and_a_steady_one_none() -> None:
    labels = np.tile([0, 1], 1000).astype(np.int64)
    good = labels.astype(np.float64)
    bad = np.concatenate([good[:1000], 1 - good[1000:]])
    failed, steady = alerts_on(SPEC, table(2000, labels), bad, good)
    assert steady == 0
    assert failed >= 10, "each of the last ten windows, and the error's rise"


def test_a_candidate_that_falls_and_stays_better_than_the_champion_ever_was_raises_no_alert() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 4000)
    better = np.where(random.random(4000) < np.where(np.arange(4000) < 2000, 0.98, 0.88), labels, 1 - labels)
    champion = np.where(random.random(4000) < 0.65, labels, 1 - labels)
    spec = msgspec.structs.replace(
        SPEC, evaluation=msgspec.structs.replace(SPEC.evaluation, accuracy_drop=0.05, reference_windows=5)
    )
    its, others = alerts_on(spec, table(4000, labels), better.astype(np.float64), champion.astype(np.float64))
    assert its == 0
    assert others > 0, "some windows of a champion that is right by chance are worse than its first ones"


def test_several_classes_are_judged_by_the_class_with_the_highest_score() -> None:
    spec = msgspec.structs.replace(SPEC, task="multiclass", classes=("x", "y", "z"))
    labels = np.tile([0, 1, 2], 500).astype(np.int64)
    scores = np.eye(3)[labels]
    worse = np.concatenate([scores[:700], np.roll(scores[700:], 1, axis=1)])
    failed, steady = alerts_on(spec, table(1500, labels), worse, scores)
    assert steady == 0 < failed


@pytest.mark.parametrize("classes", [(), ("x", "y")])
def test_what_the_archive_gives_back_is_what_the_log_had(classes: tuple[str, ...]) -> None:
    spec = msgspec.structs.replace(SPEC, task="multiclass" if classes else "binary", classes=classes)
    of_classes = {"predicted": "x", "scores": [0.75, 0.25]} if classes else {}
    predictions = [served(i, row, Linear()) for i, row in enumerate(rows_of(20))]
    label = classes[1] if classes else 1
    samples = [labelled(p, label, latency_ms=i, **of_classes) for i, p in enumerate(predictions)]
    samples[3] = msgspec.structs.replace(samples[3], features=(None, 0.5), assumed=True)
    samples.append(msgspec.structs.replace(samples[0], revision=1, replaces=samples[0].label))
    records = [Entry(7 + i, encode(sample), b"shop", 100 + i) for i, sample in enumerate(samples)]
    found = samples_of(spec, table_of(spec, records))
    again = sample_records(spec, found)
    assert [decode(Sample, record.value) for record in again] == samples
    assert [(r.offset, r.timestamp, r.key) for r in again] == [(r.offset, r.timestamp, r.key) for r in records]


def test_predictions_come_from_the_archive_only_as_far_as_their_log_does_not_go_back() -> None:
    predictions = [served(i, row, Linear()) for i, row in enumerate(rows_of(40))]
    predictions[26] = msgspec.structs.replace(predictions[26], entity_id=predictions[25].entity_id)
    predictions[26] = msgspec.structs.replace(predictions[26], scored_time_ms=predictions[25].scored_time_ms)
    samples = [labelled(p, 1) for p in predictions]
    samples.append(msgspec.structs.replace(samples[0], revision=1, replaces=1))
    archived = table_of(SPEC, [Entry(i, encode(sample), b"shop", 0) for i, sample in enumerate(samples)])
    homes = partitions_of([p.entity_id.encode() for p in predictions], SPEC.partitions).tolist()
    border = Border(predictions[25].scored_time_ms, frozenset(["e26"]))
    tables = forgotten_of(SPEC, archived, {homes[25]: border})
    found = {home: prediction_records(samples_of(SPEC, rows), home) for home, rows in tables.items()}
    assert forgotten_of(SPEC, archived, dict.fromkeys((0, 1), WHOLE)) == {}
    for home in (0, 1):
        wanted = [
            p.event_id
            for p, its in zip(predictions, homes, strict=True)
            if its == home and (home != homes[25] or int(p.event_id[1:]) <= 25)
        ]
        assert [decode(Prediction, record.value).event_id for record in found[home]] == wanted
        assert {record.offset for record in found[home]} == {NO_PLACE}


def request(day: float, reason: str = "accuracy") -> RetrainRequest:
    return RetrainRequest(
        id=f"{reason}-{day}", stream="shop", reason=reason, evidence={}, requested_time_ms=int(DAWN_MS + day * DAY_MS)
    )


def test_requests_within_the_cool_down_of_a_run_or_of_other_reasons_become_no_run() -> None:
    training = TrainingSpec(cooldown_minutes=2 * 24 * 60, reasons=("accuracy",))
    spec = msgspec.structs.replace(SPEC, training=training)
    asked = [request(0), request(1), request(1, "drift"), request(5), request(5)]
    assert [bool(t.why_not) for t in triggers_of(spec, asked)] == [False, True, True, False]
    assert "cooldown" in triggers_of(spec, asked)[1].why_not
    assert all(trigger.why_not for trigger in triggers_of(SPEC, asked))


def test_settings_are_changed_by_their_keys_and_everything_else_stays() -> None:
    found = changed(
        SPEC,
        [
            "drift.min_psi=0.2",
            "evaluation.accuracy_drop = 0.1",
            'training.reasons=["drift"]',
            "training.cooldown_minutes=5",
        ],
        0.7,
    )
    assert (found.drift.min_psi, found.evaluation.accuracy_drop, found.threshold) == (0.2, 0.1, 0.7)
    assert found.training == TrainingSpec(reasons=("drift",), cooldown_minutes=5)
    assert changed(SPEC, []) == SPEC


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("drift.min_psy=1", "did you mean min_psi"),
        ("drift.min_psi=much", "min_psi of [streams.shop.drift] as changed for the replay is"),
        ("nothing", "is not key=value"),
        ("features=[]", "history was made with"),
        ("join.window_minutes=5", "what can be set is threshold, evaluation, drift, learners"),
        ("archive.enabled=false", "would change nothing"),
        ("experiments.alpha=0.1", "would change nothing"),
        ("training.gates.min_auc=0.9", "of training reasons, schedule, time_zone, cooldown_minutes"),
        ("threshold.x=1", "threshold is a setting and not a table"),
        ("evaluation.min_samples=1000", "no window would ever raise an alert"),
    ],
)
def test_a_setting_that_is_wrong_is_told_as_the_settings_file_would(setting: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as told:
        changed(SPEC, [setting])
    assert sentence in str(told.value)


def test_a_changed_stream_with_everything_set_is_read_back_as_it_was() -> None:
    training = TrainingSpec(days=30, schedule="0 3 * * *", parameters={"max_depth": 4})
    spec: StreamSpec = msgspec.structs.replace(SPEC, training=training)
    assert changed(spec, []) == spec


async def numbers(count: int, fail: bool = False) -> AsyncGenerator[int, None]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number
    if fail:
        raise ValueError("the log broke off")


async def test_reading_ahead_loses_nothing_and_passes_errors_on() -> None:
    assert [number async for number in ahead(numbers(50))] == list(range(50))
    reading = ahead(numbers(9, fail=True))
    assert [await anext(reading) for _ in range(9)] == list(range(9))
    with pytest.raises(ValueError, match="broke off"):
        await anext(reading)


async def test_reading_ahead_ends_when_nobody_wants_more() -> None:
    before = asyncio.all_tasks()
    async with aclosing(ahead(numbers(1000))) as reading:
        async for number in reading:
            if number == 3:
                break
    assert asyncio.all_tasks() == before


async def test_rows_of_the_archive_and_records_in_memory_are_given_a_part_at_a_time() -> None:
    predictions = [served(i, row, Linear()) for i, row in enumerate(rows_of(100))]
    entries = [Entry(i, encode(labelled(p, 1)), b"shop", i) for i, p in enumerate(predictions)]
    archived = pa.concat_tables([table_of(SPEC, entries)] * 200)
    rows = Rows(SAMPLES, archived, lambda piece: sample_records(SPEC, samples_of(SPEC, piece)))
    held = Held(SAMPLES, entries * 200)
    for source in (rows, held):
        pieces = [await source.more() for _ in range(3)]
        assert [len(piece) for piece in pieces] == [16_384, 20_000 - 16_384, 0]
        assert [record.offset for record in pieces[1]] == [i % 100 for i in range(16_384, 20_000)]
