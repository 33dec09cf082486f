"""From records of `<s>.samples` to the rows of the archive: flat columns, for people as well."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa

from agents.samplelog import TRIGGER_KEY, decode_records, keep
from ml.models.protocol import is_weight
from schemas.event import Event, TimeMs
from schemas.events import ShadowScore
from schemas.streams import StreamSpec
from schemas.wire import decoder
from stream.batches import Record

Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]

TIME: Final = pa.timestamp("ms", tz="UTC")
SHADOW: Final = pa.struct([("variant", pa.string()), ("model_id", pa.string()), ("score", pa.float64())])


class ArchivableSample(Event, frozen=True, kw_only=True, gc=False):
    """What the archive reads of a Sample."""

    event_id: str
    entity_id: str
    revision: Whole
    event_time_ms: TimeMs
    label_time_ms: TimeMs
    scored_time_ms: TimeMs
    label: Whole | str
    replaces: Whole | str | None = None
    weight: float
    score: float
    scores: list[float] | None = None
    predicted: Whole | str
    model_id: str
    variant: str
    deployment_revision: Whole
    latency_ms: Whole = 0
    assumed: bool = False
    shadows: tuple[ShadowScore, ...] = ()
    features: tuple[float | None, ...]


def schema_of(spec: StreamSpec) -> pa.Schema:
    """Return the columns of the stream's archive, in their order."""
    label = pa.string() if spec.classes else pa.int64()
    text, whole, number = pa.string(), pa.int64(), pa.float64()
    return pa.schema(
        [
            ("offset", whole),
            ("recorded_time", TIME),
            ("event_id", text),
            ("entity_id", text),
            ("revision", whole),
            ("event_time", TIME),
            ("label_time", TIME),
            ("scored_time", TIME),
            ("label", label),
            ("replaces", label),
            ("weight", number),
            ("score", number),
            *([("scores", pa.list_(number))] if spec.classes else []),
            ("predicted", label),
            ("model_id", text),
            ("variant", text),
            ("deployment_revision", whole),
            ("latency_ms", whole),
            ("assumed", pa.bool_()),
            ("shadows", pa.list_(SHADOW)),
            *((f"f_{name}", number) for name in spec.features),
        ]
    )


def table_of(spec: StreamSpec, records: Sequence[Record]) -> pa.Table:
    """Return the samples among `records` as a table of `schema_of`; about 6 µs each with ten features.

    Triggers for learners are passed over. What else is no sample that can be used is logged and left out, as every
    fold of the log does alike: no JSON, other features or classes than the stream has, a weight nothing can have.
    """
    records = [record for record in records if record.key != TRIGGER_KEY]
    records, samples = decode_records(decoder(ArchivableSample).decode, records, spec.name)
    records, samples = _usable(spec, records, samples)
    schema = schema_of(spec)
    columns = _columns_of(spec, samples)
    columns["offset"] = [record.offset for record in records]
    columns["recorded_time"] = [record.timestamp for record in records]
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of `schema` of a table that may lack some, which are null then.

    Raises pyarrow.ArrowException when a column holds what its type in `schema` cannot.
    """
    missing = [field for field in schema if field.name not in table.column_names]
    for field in missing:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def _usable(
    spec: StreamSpec, records: Sequence[Record], samples: Sequence[ArchivableSample]
) -> tuple[Sequence[Record], Sequence[ArchivableSample]]:
    labels: frozenset[int | str] = frozenset(spec.classes or (0, 1))
    width, classes = len(spec.features), len(spec.classes)

    def is_ours(sample: ArchivableSample) -> bool:
        return (
            sample.label in labels
            and len(sample.features) == width
            and (not classes or (sample.scores is not None and len(sample.scores) == classes))
            and is_weight(sample.weight)
        )

    kept, samples = keep(range(len(samples)), samples, is_ours, spec.name)
    return [records[position] for position in kept], samples


def _columns_of(spec: StreamSpec, samples: Sequence[ArchivableSample]) -> dict[str, Sequence[Any]]:
    """Return the values of each column that comes out of the samples."""
    names = ArchivableSample.__struct_fields__
    given = zip(*map(msgspec.structs.astuple, samples), strict=True) if samples else ((),) * len(names)
    columns: dict[str, Sequence[Any]] = dict(zip(names, given, strict=True))
    for name in ("event_time", "label_time", "scored_time"):
        columns[name] = columns.pop(f"{name}_ms")
    kind = str if spec.classes else int
    for name in ("predicted", "replaces"):  # of another task than the stream has now
        columns[name] = [value if isinstance(value, kind) else None for value in columns[name]]
    features = zip(*columns.pop("features"), strict=True) if samples else ((),) * len(spec.features)
    return columns | {f"f_{name}": values for name, values in zip(spec.features, features, strict=True)}


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    return _shadows(values) if kind == pa.list_(SHADOW) else pa.array(values, type=kind)


def _shadows(rows: Iterable[Sequence[ShadowScore]]) -> pa.Array:
    """Return each row's shadows; from dicts, as Arrow would take them, it costs five times as much."""
    rows = list(rows)
    shadows = [shadow for row in rows for shadow in row]
    ends = list(accumulate(map(len, rows), initial=0))
    parts = [
        pa.array([shadow.variant for shadow in shadows], type=pa.string()),
        pa.array([shadow.model_id for shadow in shadows], type=pa.string()),
        pa.array([shadow.score for shadow in shadows], type=pa.float64()),
    ]
    structs = pa.StructArray.from_arrays(parts, fields=list(SHADOW))
    return pa.ListArray.from_arrays(pa.array(ends, type=pa.int32()), structs)
