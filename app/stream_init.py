"""Proposes a stream from a CSV file: which column is the id, the entity, the time, the label, which are features."""

import json

import msgspec

from schemas.streams import StreamSpec


def stream_toml(spec: StreamSpec) -> str:
    """Return `spec` as a table of penstock.toml, without what is at its default. Values are as JSON has them."""
    lines = [f"[streams.{spec.name}]"]
    for field in msgspec.structs.fields(spec):
        value = getattr(spec, field.name)
        if field.name != "name" and value != field.default:
            lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[\n" + "".join(f"  {_toml(item)},\n" for item in value) + "]"
    # JSON's numbers and strings are TOML's, but for the one control character that JSON does not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
