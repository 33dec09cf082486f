"""A CSV file as the events of a stream: which column is what, and its rows in the order of their times.

A column is taken by its name alone, never by what is in it: so every file of a stream is read alike, long or short.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.csv_columns import Piece, read_pieces
from schemas.errors import SettingsError
from schemas.streams import CsvSpec, StreamSpec

NO_LABEL: Final = -1
_EVENT_TIME_MS: Final = "event_time_ms"
_FIELDS: Final[Mapping[str, str]] = {
    "event_id": "event_id",
    "entity": "entity_id",
    "time": _EVENT_TIME_MS,
    "label": "label",
}
_ID_CHARACTERS: Final = 256
_MOST_NAMED: Final = 5
_NO, _YES = frozenset({"0", "0.0", "false", "no"}), frozenset({"1", "1.0", "true", "yes"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CsvEvents:
    """The n rows of a file, by their times if it has any, else in its order.

    `features` are float64 of shape (n, features), NaN where a value is missing, `labels` class indices, int64 (n,),
    NO_LABEL where there is none. `times_ms` are None without a column for them.
    """

    columns: CsvSpec
    event_ids: Sequence[str]
    entity_ids: Sequence[str]
    times_ms: NDArray[np.int64] | None
    features: NDArray[np.float64]
    labels: NDArray[np.int64]


def read_events(path: Path, spec: StreamSpec, given: CsvSpec, positive: str = "") -> CsvEvents:
    """Return the rows of a CSV file (see `csv_columns.read_columns`) as events of `spec`.

    Columns are those that are `given`, else those of the stream's table `csv`, else those called as the fields of an
    event. `positive` is the value of the label that counts as 1, all others as 0; without it, labels are 0 and 1, false
    and true, no and yes, or the names of the classes. A row without an id gets one from what is in it and its number;
    one without an entity is its own.

    Raises SettingsError for what `read_columns` does, a feature or a column that is named and not there (but for the
    label of the stream's table), a label that is a feature, and a value that cannot be used. About 12 µs a row of ten
    columns, and 250 bytes.
    """
    if positive and spec.classes:
        raise SettingsError(f"stream {spec.name} has the classes {', '.join(spec.classes)}: none of them counts as 1")
    pieces: list[CsvEvents] = []
    columns: CsvSpec | None = None
    for piece in read_pieces(path):
        columns = columns or _columns(piece, spec, given)
        pieces.append(_events(piece, spec, columns, positive))
    return _joined(pieces)


def truth(text: str) -> bool | None:
    """Return whether a label is 1 (or true, or yes) or 0 (false, no) in any case of letters; None for other texts."""
    word = text.lower()
    return word in _YES if word in _NO | _YES else None


def _columns(piece: Piece, spec: StreamSpec, given: CsvSpec) -> CsvSpec:
    """Return which columns of a file are what; an empty name where none is."""
    found = {role: getattr(given, role) or _declared(piece, spec, role) for role in _FIELDS}
    if found["label"] in spec.features:
        raise SettingsError(f"{found['label']!r} is a feature of stream {spec.name}: it cannot be the label, too")
    return msgspec.convert(found, CsvSpec)


def _declared(piece: Piece, spec: StreamSpec, role: str) -> str:
    """Return the column that the stream's table names for a role, else one that is called as the event's field."""
    if name := getattr(spec.csv, role):
        if name in piece.header:
            return str(name)
        if role == "label":
            return ""
        raise SettingsError(
            f"{piece.path} has no column {name!r}, which [streams.{spec.name}.csv] names as {role}; its header has "
            f"{', '.join(piece.header)}"
        )
    field = _FIELDS[role]
    return field if field in piece.header and field not in spec.features else ""


def _events(piece: Piece, spec: StreamSpec, columns: CsvSpec, positive: str) -> CsvEvents:
    event_ids = _event_ids(piece, columns.event_id)
    return CsvEvents(
        columns=columns,
        event_ids=event_ids,
        entity_ids=_entity_ids(piece, columns.entity, event_ids),
        times_ms=_times_ms(piece, columns.time) if columns.time else None,
        features=np.stack([piece.numbers(name) for name in spec.features], axis=1),
        labels=_labels(piece, spec, columns.label, positive),
    )


def _event_ids(piece: Piece, name: str) -> Sequence[str]:
    if not name:
        return _made_ids(piece)
    ids = _ids(piece, name)
    if "" in ids:
        raise SettingsError(f"{piece.where(ids.index(''), name)} has no id of the event")
    return ids


def _entity_ids(piece: Piece, name: str, event_ids: Sequence[str]) -> Sequence[str]:
    if not name:
        return event_ids
    return [entity_id or event_id for entity_id, event_id in zip(_ids(piece, name), event_ids, strict=True)]


def _ids(piece: Piece, name: str) -> list[str]:
    ids = piece.texts(name)
    for i, text in enumerate(ids):
        if len(text) > _ID_CHARACTERS:
            raise SettingsError(f"{piece.where(i, name)} is longer than an id may be, {_ID_CHARACTERS} characters")
    return ids


def _made_ids(piece: Piece) -> list[str]:
    """Return an id for each row, the same whenever the same file is read."""
    rows = enumerate(piece.rows, piece.first)
    return [hashlib.sha256("\0".join((str(number), *row)).encode()).hexdigest()[:24] for number, row in rows]


def _times_ms(piece: Piece, name: str) -> NDArray[np.int64]:
    """Return the times of the rows; a column that is called as the field of an event has its unit, too."""
    if name != _EVENT_TIME_MS:
        return piece.times_ms(name)
    numbers = piece.numbers(name)
    if (wrong := np.flatnonzero(~(numbers >= 0))).size:
        raise SettingsError(f"{piece.where(int(wrong[0]), name)} is no number of milliseconds since 1970")
    return numbers.astype(np.int64)


def _labels(piece: Piece, spec: StreamSpec, name: str, positive: str) -> NDArray[np.int64]:
    if not name:
        return np.full(len(piece.rows), NO_LABEL, dtype=np.int64)
    texts = piece.texts(name)
    known = _meanings(spec, texts, positive)
    for i, text in enumerate(texts):
        if text and text not in known:
            raise SettingsError(f"{piece.where(i, name)}: {_no_label(spec, text)}")
    return np.array([known[text] if text else NO_LABEL for text in texts], dtype=np.int64)


def _meanings(spec: StreamSpec, texts: Collection[str], positive: str) -> dict[str, int]:
    """Return what the labels among `texts` mean; without those that mean nothing."""
    if spec.classes:
        return {name: index for index, name in enumerate(spec.classes)}
    if positive:
        return {text: int(text == positive) for text in set(texts)}
    return {text: int(known) for text in set(texts) if (known := truth(text)) is not None}


def _no_label(spec: StreamSpec, text: str) -> str:
    if not spec.classes:
        return f"{text!r} is neither 0 nor 1; say with --positive which value counts as 1"
    more = ", …" if len(spec.classes) > _MOST_NAMED else ""
    return f"{text!r} is no class of stream {spec.name}, which has {', '.join(spec.classes[:_MOST_NAMED])}{more}"


def _joined(pieces: Sequence[CsvEvents]) -> CsvEvents:
    """Return all rows together; those of one time stay in their order."""
    columns = pieces[0].columns
    times_ms = None
    order = np.arange(sum(len(piece.event_ids) for piece in pieces))
    if columns.time:
        times_ms = np.concatenate([piece.times_ms for piece in pieces if piece.times_ms is not None])
        order = np.argsort(times_ms, kind="stable")
        times_ms = times_ms[order]
    event_ids = [event_id for piece in pieces for event_id in piece.event_ids]
    entity_ids = [entity_id for piece in pieces for entity_id in piece.entity_ids]
    return CsvEvents(
        columns=columns,
        event_ids=[event_ids[i] for i in order.tolist()],
        entity_ids=[entity_ids[i] for i in order.tolist()],
        times_ms=times_ms,
        features=np.concatenate([piece.features for piece in pieces])[order],
        labels=np.concatenate([piece.labels for piece in pieces])[order],
    )
