"""Events that cannot be used, of every kind that producers have been seen to send."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from benchmarks.synthetic import FEATURES

_HUGE_BYTES: Final = 2 * 1024 * 1024


class Bad(NamedTuple):
    """A spoilt record. `detour` is how many partitions beyond the right one it goes to."""

    key: bytes | None
    value: bytes | None
    detour: int = 0


Spoil = Callable[[dict[str, Any]], Bad]
"""Makes a bad record of a good event's document, which it may change."""


def _with(document: dict[str, Any], **changes: Any) -> Bad:
    return Bad(_key(document), json.dumps(document | changes).encode())


def _key(document: Mapping[str, Any]) -> bytes:
    return str(document["entity_id"]).encode()


def _value(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _feature(document: dict[str, Any], value: Any) -> Bad:
    return _with(document, features=document["features"] | {FEATURES[3]: value})


def _without_feature(document: dict[str, Any]) -> Bad:
    del document["features"][FEATURES[0]]
    return _with(document)


def _without_time(document: dict[str, Any]) -> Bad:
    del document["event_time_ms"]
    return _with(document)


KINDS: Final[Mapping[str, Spoil]] = {
    "broken_json": lambda document: Bad(_key(document), _value(document)[:-7]),
    "not_utf8": lambda document: Bad(_key(document), _value(document).replace(b"entity-", b"entit\xff-")),
    "wrong_type": lambda document: _feature(document, "high"),
    "missing_feature": _without_feature,
    "missing_time": _without_time,
    "nan": lambda document: _feature(document, float("nan")),
    "infinity": lambda document: _feature(document, float("-inf")),
    "beyond_float32": lambda document: _feature(document, 1e39),
    "empty_value": lambda document: Bad(_key(document), b""),
    "null_value": lambda document: Bad(_key(document), None),
    "null_key": lambda document: Bad(None, _value(document)),
    "key_of_another": lambda document: Bad(b"somebody-else", _value(document)),
    "wrong_partition": lambda document: Bad(_key(document), _value(document), detour=1),
    "huge": lambda document: _with(document, padding="x" * _HUGE_BYTES),
}
"""Every kind by name. Its record must become one dead letter."""
