"""Proposes a stream from a CSV file: which column is the id, the entity, the time, the label, which are features.

The proposal is for a person to correct, so what was guessed, and why, stands beside it in comments.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from app.csv_columns import Column, read_columns
from app.csv_events import truth
from schemas.errors import SettingsError
from schemas.streams import CsvSpec, StreamSpec

ROWS: Final = 10_000
_MOST_CLASSES: Final = 20
_MOST_VALUES_SHOWN: Final = 5
_LABEL_WORDS: Final = frozenset(["label", "target", "class", "outcome", "fraud", "churn", "churned", "default"])
_EVENT_WORDS: Final = frozenset(["event", "transaction", "order", "request", "uuid", "row"])
_ENTITY_WORDS: Final = frozenset(["entity", "user", "customer", "account", "card", "device", "machine", "tailnum"])
_TIME_WORDS: Final = frozenset(["time", "timestamp", "ts", "date", "datetime", "at"])
_ID_WORDS: Final = frozenset(["id", "uuid", "guid"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which column has which role, if any; the rest are `features`, or `others` with the reason why not."""

    label: Column | None
    event_time: Column | None
    event_id: Column | None
    entity: Column | None
    features: list[Column]
    others: list[tuple[Column, str]]

    @property
    def columns(self) -> CsvSpec:
        """The names of those that are no features."""
        return CsvSpec(
            event_id=self.event_id.name if self.event_id else "",
            entity=self.entity.name if self.entity else "",
            time=self.event_time.name if self.event_time else "",
            label=self.label.name if self.label else "",
        )


def propose_stream(csv_path: Path, name: str = "") -> str:
    """Return a table for penstock.toml, with comments, from the first 10,000 rows of `csv_path`.

    The stream is called `name`, or after the file. Raises SettingsError when the file is not a CSV file or has no
    column of numbers that could be a feature.
    """
    columns = read_columns(csv_path, ROWS)
    roles = assign_roles(columns)
    if not roles.features:
        reasons = "; ".join(f"{_toml(column.name)} {reason}" for column, reason in roles.others)
        raise SettingsError(f"{csv_path} has no column that can be a feature{': ' if reasons else ''}{reasons}")
    classes = _classes(roles.label)
    spec = StreamSpec(
        name=name or _stream_name(csv_path),
        features=tuple(column.name for column in roles.features),
        task="multiclass" if classes else "binary",
        classes=classes,
        csv=roles.columns,
    )
    if problems := spec.problems():
        raise SettingsError("\n".join(problems))
    comments = "".join(f"# {line}".rstrip() + "\n" for line in _explain(roles, columns[0].rows, csv_path.name))
    missing = {c.name: f"{c.missing_share:.1%} missing" for c in roles.features if c.missing_share}
    return f"{comments}\n{stream_toml(spec, missing)}"


def stream_toml(spec: StreamSpec, notes: Mapping[str, str] | None = None) -> str:
    """Return `spec` as tables of penstock.toml, without defaults but the task; `notes` are comments on features."""
    return "\n".join(_tables(f"streams.{spec.name}", _chosen(spec), notes or {}))


def _chosen(struct: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that are not at their default, and the task; a name stands in the table's header instead."""
    chosen = {}
    for field in msgspec.structs.fields(struct):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        value = getattr(struct, field.name)
        if field.name == "task" or (field.name != "name" and value != default):
            chosen[field.name] = value
    return chosen


def _tables(path: str, values: Mapping[str, Any], notes: Mapping[str, str]) -> Iterator[str]:
    """Yield the table at `path`, then the tables in it, each ending with a line break."""
    nested: dict[str, Mapping[str, Any]] = {}
    lines = [f"[{path}]"]
    for name, value in values.items():
        if isinstance(value, msgspec.Struct):
            nested[name] = _chosen(value)
        elif isinstance(value, Mapping):
            nested[name] = value
        elif isinstance(value, tuple):
            items = [f"  {_toml(item)}," + (f"  # {notes[item]}" if item in notes else "") for item in value]
            lines += [f"{_key(name)} = [", *items, "]"]
        else:
            lines.append(f"{_key(name)} = {_toml(value)}")
    if len(lines) > 1 or not nested:
        yield "\n".join(lines) + "\n"
    for name, inner in nested.items():
        yield from _tables(f"{path}.{_key(name)}", inner, {})


def assign_roles(columns: list[Column]) -> Roles:
    """Give each role to the column that fits it best, by name and values, and call the other numbers features."""
    left = list(columns)

    def take(*tests: Callable[[Column], object]) -> Column | None:
        """Take the first column that passes the first test that any passes; the surest test comes first."""
        for test in tests:
            for column in left:
                if column.name and test(column):
                    left.remove(column)
                    return column
        return None

    label = take(
        lambda c: c.words & _LABEL_WORDS and 2 <= len(c.counts) <= _MOST_CLASSES,
        lambda c: c is columns[-1] and len(c.counts) == 2,
    )
    event_time = take(lambda c: c.name == "event_time_ms", _is_time)
    event_id = take(
        lambda c: c.words & _ID_WORDS and c.words & _EVENT_WORDS and c.is_unique,
        lambda c: c.words & _ID_WORDS and c.is_unique and not c.words & _ENTITY_WORDS,
    )
    entity = take(
        lambda c: c.words & _ENTITY_WORDS and not c.is_unique and len(c.counts) > 1,
        lambda c: c.words & _ID_WORDS and not c.is_unique and len(c.counts) > 1,
        lambda c: c.words & _ID_WORDS and c.words & _ENTITY_WORDS,
    )
    judged = [(column, _reason_against(column)) for column in left]
    return Roles(
        label=label,
        event_time=event_time,
        event_id=event_id,
        entity=entity,
        features=[column for column, reason in judged if not reason],
        others=[(column, reason) for column, reason in judged if reason],
    )


def _reason_against(column: Column) -> str:
    """Return why `column` cannot be a feature, or an empty string."""
    if not column.name:
        return "has no name"
    if not column.counts:
        return "has no value in these rows"
    if len(column.counts) == 1:
        return f"is always {_toml(next(iter(column.counts)))} in these rows"
    if _is_time(column):
        return "is another time: send what matters of it as a number, such as the hour"
    if column.is_other_time:
        return "looks like a time, but not one of ISO 8601: write it as 2025-01-31T09:30:00Z"
    if column.words & _ID_WORDS:
        return "is another id"
    if column.numbers is None:
        return f"is text with {len(column.counts):,} different values: send it as a number, such as a code or a rate"
    return ""


def _is_time(column: Column) -> bool:
    """Numbers are times only if they are called so: other numbers, too, are as large as times."""
    return column.is_time and (column.numbers is None or bool(column.words & _TIME_WORDS))


def _classes(label: Column | None) -> tuple[str, ...]:
    """Return the classes of a multiclass label in order; none for a binary one."""
    if label is None or len(label.counts) == 2:
        return ()
    return tuple(sorted(label.counts, key=float if label.numbers else str))


def _explain(roles: Roles, rows: int, file: str) -> Iterator[str]:
    yield f"Proposed from the first {rows:,} rows of {_toml(file)}. Correct what was guessed wrong:"
    yield f"event_id       {_named(roles.event_id, 'no column is an id: one is made of each row')}"
    yield f"entity_id      {_named(roles.entity, 'no column repeats like an entity: each event is its own')}"
    yield f"event_time_ms  {_time(roles.event_time) if roles.event_time else 'no column is a time'}"
    yield f"label          {_label_values(roles.label) if roles.label else 'no column is a label'}"
    if roles.label and not _classes(roles.label) and set(roles.label.counts) != {"0", "1"}:
        yield f"               {_counts_as_1(roles.label)}"
    yield "Keep as features only what is known when the event happens: what is known later gives the label away."
    if roles.others:
        yield "Not features:"
    for column, reason in roles.others:
        yield f"  {_toml(column.name)} {reason}"


def _named(column: Column | None, otherwise: str) -> str:
    return _toml(column.name) if column else otherwise


def _time(column: Column) -> str:
    return _toml(column.name) + (", taken as UTC where it names no zone" if column.is_local_time else "")


def _counts_as_1(label: Column) -> str:
    """Return which of the two values of a label is 1, or how to say it."""
    values = sorted(label.counts, key=str.lower)
    if {truth(value) for value in values} == {False, True}:
        return f"{_toml(next(filter(truth, values)))} counts as 1"
    return f"say which counts as 1: --positive {_toml(values[0])}, or {_toml(values[1])}"


def _label_values(label: Column) -> str:
    total = label.counts.total()
    shares = [f"{_toml(text)} {count / total:.1%}" for text, count in label.counts.most_common(_MOST_VALUES_SHOWN)]
    more = ", …" if len(label.counts) > _MOST_VALUES_SHOWN else ""
    return f"{_toml(label.name)}: {', '.join(shares)}{more}"


def _stream_name(path: Path) -> str:
    """Return the file's name as a stream name: `My Flights.2013.csv.gz` becomes `my-flights`."""
    words = re.sub(r"[^a-z0-9_]+", "-", path.name.split(".")[0].lower()).strip("-_")
    return (words if words[:1].isalpha() else f"stream-{words}".rstrip("-"))[:100]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: object) -> str:
    """Return a text, number or truth value for TOML: JSON's form, but for one control character that it leaves be."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
