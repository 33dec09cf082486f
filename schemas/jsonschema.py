"""JSON Schema of every event, for people and for clients in other languages.

`python -m schemas.jsonschema` writes docs/schemas/<Event>.json, which a test compares with the types. The records
in docs/schemas/examples are not generated: they are what already lies in somebody's Kafka, and must stay readable.
"""

import inspect
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.event import Event
from schemas.events import EVENT_TYPES
from schemas.features import feature_event_type
from schemas.streams import StreamSpec

FOLDER: Final = Path(__file__).parents[1] / "docs" / "schemas"
EXAMPLE_STREAM: Final = StreamSpec(name="flights", features=("distance_miles", "scheduled_hour"))
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def event_types() -> dict[str, type[Event]]:
    """Return every event type by name. The feature event is the one of `EXAMPLE_STREAM`: each stream has its own."""
    return {kind.__name__: kind for kind in (feature_event_type(EXAMPLE_STREAM), *EVENT_TYPES)}


def schema_of(event_type: type[Event]) -> dict[str, Any]:
    """Return the JSON Schema of what is written and read as `event_type`."""
    name = event_type.__name__
    _, parts = msgspec.json.schema_components([event_type], ref_template="#/$defs/{name}")
    head = {"$schema": _DIALECT, "title": name, "description": inspect.getdoc(event_type)}
    body = {key: value for key, value in parts.pop(name).items() if key not in head}
    return head | body | ({"$defs": parts} if parts else {})


def text_of(schema: dict[str, Any]) -> str:
    """Return `schema` as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the schema of every event to its file."""
    for name, kind in event_types().items():
        (FOLDER / f"{name}.json").write_text(text_of(schema_of(kind)), encoding="utf-8")


if __name__ == "__main__":
    main()
