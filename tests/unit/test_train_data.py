"""What a training run learns from."""

import asyncio
import random
from datetime import UTC, datetime

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.train.data import Data, Span, _Ripening, data_of, older_rows, read_history, ripe_times
from ml.training.protocol import TrainingImpossible
from schemas.events import Sample
from schemas.streams import StreamSpec
from schemas.training import TrainingSpec
from stream.timestamps import SLACK_MS
from tests.making import DAY_MS, MINUTE_MS, History, rows_of, samples_of, stream_of

SPEC = stream_of()
BIRDS = stream_of("birds", task="multiclass", classes=("tit", "owl", "crow"))
EVER = Span(from_ms=0, to_ms=2**50)


async def read(spec: StreamSpec, samples: list[Sample], stop_offset: int = 2**50) -> Data:
    return await read_history(spec, History(rows_of(spec, samples)), stop_offset)  # type: ignore[arg-type]


async def test_only_events_whose_labels_have_come_count() -> None:
    data = await read(SPEC, samples_of(500))
    newest_label_ms = DAY_MS + 529 * MINUTE_MS
    assert data.to_ms - 1 == newest_label_ms - SPEC.ripens_ms
    assert len(data.table) == (data.to_ms - 1 - DAY_MS) / MINUTE_MS + 1 == 440
    assert (data.from_ms, data.first_offset) == (DAY_MS, 0)


async def test_a_label_of_the_future_makes_no_event_ripe_that_is_not() -> None:
    samples = samples_of(3_000)
    rows = rows_of(SPEC, samples)
    labels = rows["label_time"].to_pylist()
    labels[1_000] = datetime(2999, 1, 1, tzinfo=UTC)
    field = rows.schema.field("label_time")
    wrong = rows.set_column(rows.column_names.index("label_time"), field, pa.array(labels, field.type))
    assert samples[-1].label_time_ms > samples[1_000].label_time_ms + SLACK_MS
    times_ms = [await ripe_times(SPEC, History(each), 3_000) for each in (wrong, rows)]  # type: ignore[arg-type]
    assert times_ms[0].tolist() == times_ms[1].tolist() == [samples[-1].label_time_ms - SPEC.ripens_ms]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), wanted=st.integers(2, 20), piece=st.integers(1, 30))
def test_the_times_that_count_are_the_same_however_the_history_is_cut(
    seed: int, count: int, wanted: int, piece: int
) -> None:
    chance = random.Random(seed)
    samples = [
        msgspec.structs.replace(s, event_time_ms=s.event_time_ms - chance.randrange(200) * MINUTE_MS, revision=n % 3)
        for n, s in enumerate(samples_of(count, seed))
    ]
    rows = rows_of(SPEC, samples)
    newest_ms = max((s.label_time_ms for s in samples), default=0)
    ripe = [s.event_time_ms for s in samples if not s.revision and s.event_time_ms <= newest_ms - SPEC.ripens_ms]
    history = History(pa.concat_tables([rows, rows.slice(0, 9)]), piece)  # somebody copied a file
    for spec, most in ((SPEC, 1), (stream_of(training=TrainingSpec(samples=wanted, min_samples=2)), wanted)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agents.train.data.GATHERED", 1 + seed % 20)
            times_ms = asyncio.run(ripe_times(spec, history, 2**50))  # type: ignore[arg-type]
        assert times_ms.tolist()[-most:] == sorted(ripe)[-most:]
        assert len(times_ms) <= most


async def test_only_the_span_of_a_run_is_ever_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.train.data.GATHERED", 100)
    history = History(rows_of(SPEC, samples_of(20_000)), piece=50)
    held: list[int] = []
    sort_out = _Ripening._sort_out

    def watched(ripening: _Ripening) -> None:
        held.append(sum(len(times_ms) for times_ms, _ in ripening._added) + len(ripening._offsets))
        sort_out(ripening)

    monkeypatch.setattr(_Ripening, "_sort_out", watched)
    await ripe_times(SPEC, history, 2**50)  # type: ignore[arg-type]
    assert len(held) > 50
    assert max(held) < 1_000


async def test_samples_that_are_lost_are_said() -> None:
    data = await read_history(SPEC, History(rows_of(SPEC, samples_of(500)), missing=12), 2**50)  # type: ignore[arg-type]
    assert data.notes == ("up to 12 samples are missing: Kafka forgot them before they were archived",)


async def test_samples_after_the_frozen_offset_change_nothing() -> None:
    samples = samples_of(500)
    before = await read(SPEC, samples[:400])
    after = await read(SPEC, samples, stop_offset=400)
    np.testing.assert_array_equal(before.table.matrix, after.table.matrix)
    assert before.to_ms == after.to_ms


async def test_the_newest_days_count_and_the_newest_samples_where_the_stream_says_so() -> None:
    samples = [
        msgspec.structs.replace(sample, event_time_ms=DAY_MS * (n + 1), label_time_ms=DAY_MS * (n + 1) + 1)
        for n, sample in enumerate(samples_of(30))
    ]
    days = await read(stream_of(training=TrainingSpec(days=10)), samples)
    assert days.table.event_time_ms.tolist() == [DAY_MS * n for n in range(20, 30)]
    newest = await read(stream_of(training=TrainingSpec(samples=4, min_samples=2)), samples)
    assert newest.table.event_time_ms.tolist() == [DAY_MS * n for n in range(26, 30)]


async def test_of_the_newest_samples_a_revision_is_no_second_one() -> None:
    samples = samples_of(300)
    corrected = [msgspec.structs.replace(s, revision=1, label=1 - int(s.label)) for s in samples[200:230]]
    data = await read(stream_of(training=TrainingSpec(samples=50, min_samples=2)), [*samples, *corrected])
    assert len(data.table) == 50


def test_of_an_event_the_newest_revision_counts() -> None:
    first = samples_of(3)
    again = msgspec.structs.replace(first[1], revision=2, label=1 - int(first[1].label), weight=3.0)
    between = msgspec.structs.replace(first[1], revision=1, weight=7.0)
    table = data_of(SPEC, rows_of(SPEC, [*first, again, between]), EVER).table
    assert table.labels.tolist() == [first[0].label, again.label, first[2].label]
    assert table.weights.tolist() == [1.0, 3.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30))
def test_events_are_in_the_order_of_time_and_id_whatever_the_order_of_the_log(seed: int, count: int) -> None:
    chance = random.Random(seed)
    samples = [
        msgspec.structs.replace(sample, event_time_ms=chance.randrange(5) * MINUTE_MS, revision=revision)
        for sample in samples_of(count, seed)
        for revision in range(chance.randrange(1, 3))
    ]
    newest = {(s.event_time_ms, s.event_id): s for s in sorted(samples, key=lambda s: s.revision)}
    chance.shuffle(samples)
    table = data_of(SPEC, rows_of(SPEC, samples), EVER).table
    expected = [newest[key] for key in sorted(newest)]
    assert table.event_time_ms.tolist() == [s.event_time_ms for s in expected]
    np.testing.assert_array_equal(table.matrix, np.array([s.features for s in expected], np.float32))
    same_entity = [[a.entity_id == b.entity_id for b in expected] for a in expected]
    assert (table.entities[:, None] == table.entities).tolist() == same_entity


def test_missing_values_are_nan_and_scores_that_were_served_come_along() -> None:
    sample = msgspec.structs.replace(samples_of(1)[0], features=(None, 2.5, None), score=0.25)
    table = data_of(SPEC, rows_of(SPEC, [sample]), EVER).table
    np.testing.assert_array_equal(table.matrix, np.array([[np.nan, 2.5, np.nan]], np.float32))
    assert table.served.tolist() == [0.25]
    assert [array.dtype.name for array in (table.matrix, table.labels)] == ["float32", "int64"]


def test_classes_become_their_numbers_and_a_label_of_former_classes_is_left_out() -> None:
    samples = [
        msgspec.structs.replace(sample, label=label, predicted="owl", scores=[0.2, 0.3, 0.5])
        for sample, label in zip(samples_of(3), ("owl", "tit", "crow"), strict=True)
    ]
    rows = rows_of(BIRDS, samples)
    table = data_of(BIRDS, rows, EVER).table
    assert table.labels.tolist() == [1, 0, 2]
    assert table.served.tolist() == [[0.2, 0.3, 0.5]] * 3
    fewer = stream_of("birds", task="multiclass", classes=("owl", "crow"))
    table = data_of(fewer, rows, EVER).table
    assert table.labels.tolist() == [0, 1]
    assert np.isnan(table.served).all()


async def test_samples_of_an_older_feature_list_are_left_out_and_that_is_said() -> None:
    samples = [
        msgspec.structs.replace(sample, features=(*sample.features[:2], None)) if number < 150 else sample
        for number, sample in enumerate(samples_of(500))
    ]
    data = await read(SPEC, samples)
    assert len(data.table) == 440 - 150
    assert data.notes == ("150 samples of an older feature list, without c, are left out",)


async def test_when_no_sample_has_the_features_of_now_that_is_said() -> None:
    samples = [msgspec.structs.replace(s, features=(None, *s.features[1:])) for s in samples_of(300)]
    with pytest.raises(TrainingImpossible, match="none of 240 is a value of a"):
        await read(SPEC, samples)


def test_a_feature_that_is_often_missing_is_not_taken_for_a_new_one() -> None:
    samples = [
        msgspec.structs.replace(s, features=(s.features[0] if n % 4 == 3 else None, *s.features[1:]))
        for n, s in enumerate(samples_of(200))
    ]
    assert older_rows(SPEC, rows_of(SPEC, samples)) == (0, [])


@pytest.mark.parametrize("samples", [[], samples_of(20)], ids=["none", "none ripe"])
async def test_no_sample_that_counts_is_a_sentence(samples: list[Sample]) -> None:
    with pytest.raises(TrainingImpossible, match="stream flights has no sample yet"):
        await read(SPEC, samples)


def test_rows_in_pieces_are_the_same_as_in_one() -> None:
    rows = rows_of(SPEC, samples_of(100))
    pieces = pa.concat_tables([rows.slice(0, 30), rows.slice(30, 1), rows.slice(31)])
    one, other = data_of(SPEC, rows, EVER).table, data_of(SPEC, pieces, EVER).table
    np.testing.assert_array_equal(one.entities, other.entities)
    np.testing.assert_array_equal(one.matrix, other.matrix)
