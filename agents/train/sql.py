"""Training data out of a database, by the query that the stream declares: the columns of the archive again.

The query gives a row for each event: `event_id`, `event_time` (a timestamp, in UTC unless it says otherwise, or
milliseconds since the epoch), `label`, a column for each feature, and perhaps `entity_id` and `weight`. It may name the
span that is wanted: `:from_time` and `:to_time` (timestamps), or `:from_time_ms` and `:to_time_ms` (numbers). What it
gives beyond that is left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from agents.train.data import Data, Span, data_of
from ml.training.protocol import TrainingImpossible
from schemas.errors import RetryableError, SettingsError
from schemas.streams import StreamSpec

_NEEDED: Final = ("event_id", "event_time", "label")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PIECE: Final = 10_000
_NO_ENTITIES: Final = (
    "training.sql gives no entity_id, so nobody knows which events are of one entity, and a gain over the champion "
    "cannot be told from luck"
)
_LARGEST: Final = float(np.finfo(np.float32).max)


class QueryRefused(TrainingImpossible):
    """The database does not take the query, or it does not give what is needed."""


def read_sql(spec: StreamSpec, query: str, url: str, span: Span) -> Data:
    """Return the events that the query gives. Blocks for as long as the database takes.

    Raises RetryableError while the database is away, QueryRefused for a wrong query or wrong values, SettingsError for
    an URL that cannot be used. No message has the URL, which may hold a password.
    """
    names, rows = _queried(query, url, span)
    if missing := [name for name in (*_NEEDED, *spec.features) if name not in names]:
        raise QueryRefused(
            f"training.sql of stream {spec.name} gives no column {', '.join(missing)}; it gives {', '.join(names)}"
        )
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    data = replace(data_of(spec, _table(spec, columns, len(rows)), span), first_offset=None)
    if "entity_id" in columns:
        return data
    return replace(data, table=replace(data.table, entities_known=False), notes=(*data.notes, _NO_ENTITIES))


def _queried(query: str, url: str, span: Span) -> tuple[list[str], list[Sequence[Any]]]:
    """Return the names of the columns, and the rows."""
    try:
        import sqlalchemy
    except ImportError as error:
        raise SettingsError("training.sql needs SQLAlchemy: pip install 'penstock[train]'") from error
    if not url:
        raise SettingsError("training.sql needs training_sql_url, the database's SQLAlchemy URL")
    clause = _bound(sqlalchemy, query, span)
    with _asking(sqlalchemy):
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.connect() as connection:
                found = connection.execution_options(yield_per=_PIECE).execute(clause)
                return list(found.keys()), [row for piece in found.partitions() for row in piece]
        finally:
            engine.dispose()


def _bound(sqlalchemy: Any, query: str, span: Span) -> Any:
    """Return the query with the span filled in where it names it."""
    clause = sqlalchemy.text(query)
    moment = sqlalchemy.DateTime(timezone=True)
    bounds = {
        "from_time": sqlalchemy.bindparam("from_time", _time(span.from_ms), moment),
        "to_time": sqlalchemy.bindparam("to_time", _time(span.to_ms), moment),
        "from_time_ms": sqlalchemy.bindparam("from_time_ms", span.from_ms),
        "to_time_ms": sqlalchemy.bindparam("to_time_ms", span.to_ms),
    }
    named = list(clause.compile().params)
    if unknown := [name for name in named if name not in bounds]:
        raise QueryRefused(f"training.sql names :{unknown[0]}, which nothing fills in; known are {', '.join(bounds)}")
    return clause.bindparams(*[bounds[name] for name in named])


@contextmanager
def _asking(sqlalchemy: Any) -> Iterator[None]:
    """Say which errors may go away by themselves."""
    errors = sqlalchemy.exc
    try:
        yield
    except (errors.OperationalError, errors.InterfaceError, errors.TimeoutError) as error:
        raise RetryableError(f"the database of training.sql failed: {getattr(error, 'orig', None) or error}") from error
    except (errors.ArgumentError, errors.NoSuchModuleError, ImportError) as error:
        raise SettingsError(f"training_sql_url cannot be used ({type(error).__name__})") from error
    except errors.SQLAlchemyError as error:
        raise QueryRefused(f"the database refused training.sql: {getattr(error, 'orig', None) or error}") from error


def _table(spec: StreamSpec, columns: Mapping[str, Sequence[Any]], count: int) -> Any:
    ids = [str(_known(value, "event_id")) for value in columns["event_id"]]
    labels: tuple[int | str, ...] = spec.classes or (0, 1)
    made: dict[str, Any] = {
        "offset": pa.array(range(count), pa.int64()),
        "event_id": pa.array(ids, pa.string()),
        "entity_id": pa.array(_entities(columns) or ids, pa.string()),
        "revision": pa.array([0] * count, pa.int64()),
        "event_time": pa.array(_each(columns, "event_time", _milliseconds), pa.timestamp("ms", "UTC")),
        "label": pa.array(_each(columns, "label", lambda value: _label(value, labels))),
        "weight": pa.array(_each(columns, "weight", _weight) if "weight" in columns else [1.0] * count, pa.float64()),
        "score": pa.nulls(count, pa.float64()),
        "scores": pa.nulls(count, pa.list_(pa.float64())),
    }
    made |= {f"f_{name}": pa.array(_each(columns, name, _number), pa.float64()) for name in spec.features}
    return pa.table(made)


def _entities(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    return [str(_known(value, "entity_id")) for value in columns.get("entity_id", ())]


def _each(columns: Mapping[str, Sequence[Any]], name: str, read: Callable[[Any], Any]) -> list[Any]:
    """Return the values of a column as `read` understands them; a sentence names the column and the row."""
    found = []
    for row, value in enumerate(columns[name], 1):
        try:
            found.append(read(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise QueryRefused(f"training.sql, row {row}, column {name!r}: {value!r} {error}") from error
    return found


def _known(value: Any, name: str) -> Any:
    if value is None:
        raise QueryRefused(f"training.sql gives a row without {name}")
    return value


def _milliseconds(value: Any) -> int:
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(milliseconds=1)
    return _whole(value, "is no time")


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is no time") from None


def _whole(value: Any, complaint: str) -> int:
    number = _number(value)
    if number is None or number != int(number):
        raise ValueError(complaint)
    return int(number)


def _label(value: Any, labels: tuple[int | str, ...]) -> int | str:
    found = value if isinstance(labels[0], str) else _whole(value, "is none of the labels 0 and 1")
    if found not in labels:
        raise ValueError(f"is none of the labels {', '.join(map(str, labels))}")
    return found


def _number(value: Any) -> float | None:
    """Return a number, also one of Python's `Decimal`; None of None."""
    if value is None:
        return None
    if isinstance(value, str | bytes):
        raise ValueError("is no number")
    number = float(value)
    if abs(number) > _LARGEST:
        raise ValueError("is infinite, or beyond the range of a 32-bit float")
    return number


def _weight(value: Any) -> float:
    number = _number(value)
    if number is None or not 0 <= number <= 1e6:
        raise ValueError("is no weight from 0 to 1,000,000")
    return number


def _time(time_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=time_ms)
