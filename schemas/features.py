"""The feature event of a stream: a struct type made from the stream's declared features.

Decoding into a type that knows the features by name validates, orders and unboxes them in one pass of C
code. Records are decoded one by one: that is as fast as one array of all of them, and a bad record can
then never change the meaning of its neighbours.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.errors import InvalidEvent
from schemas.event import Event, Id, TimeMs
from schemas.streams import StreamSpec
from schemas.wire import decode_each


class FeatureEvent(Event, frozen=True, kw_only=True, gc=False):
    """What every stream's feature event has in common; `features` is the stream's own struct."""

    event_id: Id
    entity_id: Id
    event_time_ms: TimeMs
    features: Any


def feature_event_type(spec: StreamSpec) -> type[FeatureEvent]:
    """Return the struct type of `<s>.features`: every declared feature is a required number or null."""
    # Feature names may be any text; the attributes are positional, the wire names are the declared ones.
    fields = [f"f{i}" for i in range(len(spec.features))]
    features = msgspec.defstruct(
        "Features",
        [(field, float | None) for field in fields],
        frozen=True,
        gc=False,
        rename=dict(zip(fields, spec.features, strict=True)),
    )
    return msgspec.defstruct(  # type: ignore[return-value]  # made from FeatureEvent
        "FeatureEvent",
        [("features", features)],
        bases=(FeatureEvent,),
        frozen=True,
        gc=False,
        kw_only=True,
    )


class FeatureReader:
    """Reads the raw values of feature events into structs and a matrix. Holds no state between calls."""

    def __init__(self, spec: StreamSpec) -> None:
        self._width = len(spec.features)
        self._names = spec.features
        self._decode = msgspec.json.Decoder(feature_event_type(spec)).decode

    def read(self, values: Sequence[bytes | None]) -> tuple[list[FeatureEvent], dict[int, InvalidEvent]]:
        """Decode `values`, as `decode_each` does; about 0.9 µs per event of ten features."""
        return decode_each(self._decode, values)

    def rows(self, events: Iterable[FeatureEvent]) -> list[tuple[float | None, ...]]:
        """Return each event's features as a tuple in declared order."""
        astuple = msgspec.structs.astuple
        return [astuple(event.features) for event in events]

    def matrix(self, rows: Sequence[tuple[float | None, ...]]) -> NDArray[np.float32]:
        """Return `rows` as a C-contiguous float32 matrix (len(rows), features); null is NaN.

        A finite double beyond the range of float32 becomes infinite; `overflows` finds it.
        """
        with np.errstate(over="ignore"):
            return np.array(rows, dtype=np.float32).reshape(len(rows), self._width)

    def overflows(self, matrix: NDArray[np.float32]) -> dict[int, InvalidEvent]:
        """Return, by row, an error for each row with a value that float32 cannot hold."""
        if not np.isinf(matrix).any():
            return {}
        rows, columns = np.nonzero(np.isinf(matrix))
        return {
            int(row): InvalidEvent(
                "out_of_range", f"feature {self._names[column]!r} is beyond the range of a 32-bit float"
            )
            for row, column in zip(rows[::-1], columns[::-1], strict=True)
        }
