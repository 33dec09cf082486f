"""What a run learns from: of the samples that count, each event once, in the order of event time.

A sample counts when its event is old enough, by the newest label time, that its labels have come; those of later
events are only the early ones, and would tell another story than the whole.
"""

import math
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from agents.archive.history import SampleHistory
from ml.models.protocol import Labels, Matrix
from ml.training.protocol import TrainingImpossible
from ml.training.table import Table
from schemas.streams import StreamSpec
from schemas.text import duration
from stream.timestamps import bounded

DAY_MS: Final = 24 * 60 * 60_000
DEFAULT_DAYS: Final = 90
NEVER_BY_CHANCE: Final = math.log(1e-9)
GATHERED: Final = 100_000

Column = Any
"""A column of Arrow, whose types mypy does not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Event times in [from_ms, to_ms). When `newest` is set, only so many of the newest events count."""

    from_ms: int
    to_ms: int
    newest: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """What was read: event times in [from_ms, to_ms). `first_offset` is the first of `<s>.samples`, None of a query."""

    table: Table
    from_ms: int
    to_ms: int
    first_offset: int | None
    notes: tuple[str, ...] = ()


async def read_history(spec: StreamSpec, history: SampleHistory, stop_offset: int) -> Data:
    """Return what the samples before `stop_offset` say. Raises TrainingImpossible when none of them counts.

    Reads the times of all samples, file by file, and then those of the span whole: only these are in memory.
    """
    times_ms = await ripe_times(spec, history, stop_offset)
    if not len(times_ms):
        raise TrainingImpossible(
            f"stream {spec.name} has no sample yet whose event is {duration(spec.ripens_ms)} older than the newest "
            "label, so that all labels of its time have come"
        )
    span = span_before(spec, int(times_ms[-1]) + 1)
    if span.newest is not None:
        span = replace(span, from_ms=int(times_ms[-min(span.newest, len(times_ms))]))
    columns = ["offset", "event_id", "entity_id", "revision", "event_time", "label", "weight"]
    columns += ["scores" if spec.classes else "score", *(f"f_{name}" for name in spec.features)]
    rows = await history.read(from_ms=span.from_ms, to_ms=span.to_ms, stop_offset=stop_offset, columns=columns)
    older, lacking = older_rows(spec, rows)
    if older == rows.num_rows:
        raise TrainingImpossible(
            f"stream {spec.name} has no sample of the feature list that it declares: in none of {older} is a value of "
            f"{', '.join(lacking)}"
        )
    notes = []
    if older:
        notes.append(f"{older} samples of an older feature list, without {', '.join(lacking)}, are left out")
    if missing := await history.missing(stop_offset=stop_offset, from_ms=span.from_ms):
        notes.append(f"up to {missing} samples are missing: Kafka forgot them before they were archived")
    return replace(data_of(spec, rows.slice(older), span), notes=tuple(notes))


async def ripe_times(spec: StreamSpec, history: SampleHistory, stop_offset: int) -> NDArray[np.int64]:
    """Return the newest times of events that count, ascending, each event once: `samples` of them, or one.

    0.1 µs for an archived sample, 10 µs for one of the log; in memory are those and the ones that are not ripe.
    """
    assert spec.training is not None  # else nothing runs
    ripening = _Ripening(spec.ripens_ms, spec.training.samples or 1)
    columns = ["offset", "recorded_time", "event_time", "label_time", "revision"]
    async with aclosing(history.pieces(stop_offset=stop_offset, columns=columns)) as pieces:
        async for piece in pieces:
            ripening.add(piece)
    return ripening.times_ms()


class _Ripening:
    """Gathers the newest `count` times of ripe events from the samples, in whatever pieces they come.

    A label is not believed to be much newer than its record: one wrong clock would make all events ripe.
    """

    def __init__(self, ripens_ms: int, count: int) -> None:
        self._ripens_ms = ripens_ms
        self._count = count
        self._newest_label_ms = -(2**62)
        self._offsets = self._events_ms = np.zeros(0, dtype=np.int64)
        self._added: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._room = GATHERED

    def add(self, rows: Column) -> None:
        """Take the samples of a table."""
        if not rows.num_rows:
            return
        labels_ms = bounded(milliseconds(rows["label_time"]), milliseconds(rows["recorded_time"]))
        self._newest_label_ms = max(self._newest_label_ms, int(labels_ms.max()))
        first = rows["revision"].to_numpy() == 0  # each event has one of these
        self._added.append((rows["offset"].to_numpy()[first], milliseconds(rows["event_time"])[first]))
        self._room -= rows.num_rows
        if self._room <= 0:
            self._sort_out()
            self._room = GATHERED + len(self._offsets)

    def times_ms(self) -> NDArray[np.int64]:
        """Return the times, ascending."""
        self._sort_out()
        return np.sort(self._events_ms[self._ripe()])

    def _ripe(self) -> NDArray[np.bool_]:
        return self._events_ms <= self._newest_label_ms - self._ripens_ms

    def _sort_out(self) -> None:
        """Keep of the ripe events the newest, and all that are not ripe yet; each offset once."""
        offsets, events_ms = zip((self._offsets, self._events_ms), *self._added, strict=True)
        self._offsets, places = np.unique(np.concatenate(offsets), return_index=True)
        self._events_ms = np.concatenate(events_ms)[places]
        self._added.clear()
        ripe = np.flatnonzero(self._ripe())
        if len(ripe) > self._count:
            keep = np.ones(len(self._offsets), dtype=np.bool_)
            keep[ripe[np.argpartition(self._events_ms[ripe], -self._count)[: -self._count]]] = False
            self._offsets, self._events_ms = self._offsets[keep], self._events_ms[keep]


def span_before(spec: StreamSpec, to_ms: int) -> Span:
    """Return the span that the stream is to be trained on, when the events before `to_ms` count."""
    assert spec.training is not None  # else nothing runs
    if spec.training.samples is not None:
        return Span(from_ms=0, to_ms=to_ms, newest=spec.training.samples)
    return Span(from_ms=to_ms - (spec.training.days or DEFAULT_DAYS) * DAY_MS, to_ms=to_ms)


def data_of(spec: StreamSpec, rows: Column, span: Span) -> Data:
    """Return the events of `rows`, an Arrow table with the columns of the archive, by their newest revision.

    Rows outside of the span, or of a label that is none of the stream's, are left out. 0.8 µs a row with ten features.
    """
    order = [(name, "ascending") for name in ("event_time", "event_id", "revision", "offset")]
    rows = rows.sort_by(order)
    times_ms, labels = milliseconds(rows["event_time"]), _labels(spec, rows["label"])
    keep = _newest_revisions(rows["event_id"], times_ms)
    keep &= (times_ms >= span.from_ms) & (times_ms < span.to_ms) & (labels >= 0)
    kept = np.flatnonzero(keep)
    kept = kept[-span.newest :] if span.newest is not None else kept
    if not len(kept):
        raise TrainingImpossible(
            f"stream {spec.name} has no sample between {_date(span.from_ms)} and {_date(span.to_ms)}"
        )
    table = Table(
        matrix=_matrix(spec, rows)[kept],
        labels=labels[kept],
        weights=rows["weight"].to_numpy()[kept].astype(np.float64),
        event_time_ms=times_ms[kept],
        entities=_numbers(rows["entity_id"])[kept],
        served=_served(spec, rows)[kept],
    )
    return Data(
        table=table,
        from_ms=int(table.event_time_ms[0]),
        to_ms=int(table.event_time_ms[-1]) + 1,
        first_offset=int(rows["offset"].to_numpy()[kept].min()),
    )


def older_rows(spec: StreamSpec, rows: Column) -> tuple[int, list[str]]:
    """Return how many of the first rows, in the order of the log, lack features that came later, and which.

    A feature that is missing now and then has missed the first rows by chance: only what cannot be chance counts. One
    that never came counts, too.
    """
    older, lacking = 0, []
    for name in spec.features:
        missing = rows[f"f_{name}"].is_null().to_numpy()
        known = np.flatnonzero(~missing)
        before = int(known[0]) if len(known) else len(missing)
        share = float(missing[before:].mean()) if before < len(missing) else 0.0
        if before and (share == 0 or before * math.log(share) < NEVER_BY_CHANCE):
            older = max(older, before)
            lacking.append(name)
    return older, lacking


def milliseconds(column: Column) -> NDArray[np.int64]:
    """Return an Arrow column of timestamps as milliseconds since the epoch."""
    found: NDArray[np.int64] = column.to_numpy().astype("datetime64[ms]").astype(np.int64)
    return found


def _newest_revisions(event_ids: Column, times_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of rows in the order of time, event and revision which are the last of their event."""
    last = np.ones(len(times_ms), dtype=np.bool_)
    if len(times_ms) > 1:
        other = pc.not_equal(event_ids[1:], event_ids[:-1]).to_numpy().astype(np.bool_)
        last[:-1] = other | (times_ms[1:] != times_ms[:-1])
    return last


def _labels(spec: StreamSpec, column: Column) -> Labels:
    """Return class indices, −1 where a label is none of the stream's."""
    known = pa.array(spec.classes or (0, 1), type=column.type)
    places = pc.index_in(column, value_set=known)
    labels: Labels = pc.fill_null(places, -1).to_numpy().astype(np.int64)
    return labels


def _matrix(spec: StreamSpec, rows: Column) -> Matrix:
    matrix: Matrix = np.empty((rows.num_rows, len(spec.features)), dtype=np.float32)
    for place, name in enumerate(spec.features):
        matrix[:, place] = rows[f"f_{name}"].to_numpy()
    return matrix


def _served(spec: StreamSpec, rows: Column) -> NDArray[np.float64]:
    """Return the scores that were served; NaN where there are none, or not one for each class of now."""
    if not spec.classes:
        scores: NDArray[np.float64] = rows["score"].to_numpy().astype(np.float64)
        return scores
    width = len(spec.classes)
    given = rows["scores"].to_pylist()
    known = [each if each is not None and len(each) == width else [np.nan] * width for each in given]
    return np.array(known, dtype=np.float64).reshape(len(known), width)


def _numbers(column: Column) -> NDArray[np.int64]:
    """Return a number for each text, the same for the same."""
    encoded = pa.concat_arrays(column.chunks or [pa.array([], column.type)]).dictionary_encode()
    numbers: NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
    return numbers


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")
