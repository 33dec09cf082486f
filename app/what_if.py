"""A stream as it would be declared with some settings changed: what `--set key=value` means."""

import tomllib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.sources import Source
from schemas.errors import SettingsError
from schemas.streams import StreamSpec
from schemas.training import TrainingSpec

MATTER: Final = ("threshold", "evaluation", "drift", "learners")
MATTER_OF_TRAINING: Final = ("reasons", "schedule", "time_zone", "cooldown_minutes")
"""The tables, and the keys of `training`, that a replay goes by. The others made history, or tell how to make more."""


def changed(spec: StreamSpec, settings: Sequence[str], threshold: float | None = None) -> StreamSpec:
    """Return the stream with each of `settings`, `key=value`, in the place of what its table says.

    A key is written as in the stream's table, with dots between tables; a value as in TOML, and words may do without
    quotes. Raises SettingsError with a sentence for each that is wrong, just as the settings file does.
    """
    table = _without_nulls(msgspec.to_builtins(spec))
    del table["name"]
    for setting in settings:
        key, equals, text = setting.partition("=")
        names = [name.strip() for name in key.split(".")]
        if not equals or "" in names:
            raise SettingsError(f"--set {setting!r} is not key=value, such as drift.min_psi=0.2")
        if names[0] in StreamSpec.__struct_fields__ and not _matters(names):
            raise SettingsError(
                f"--set {'.'.join(names)} would change nothing: history was made with what {spec.name!r} declares; "
                f"what can be set is {', '.join(MATTER)}, and of training {', '.join(MATTER_OF_TRAINING)}"
            )
        _put(table, names, _value_of(text.strip()))
    if threshold is not None:
        table["threshold"] = threshold
    origin = "as changed for the replay"
    source = Source(origin=origin, table={}).within("streams", {}).within(spec.name, table)
    stream, problems = source.struct(StreamSpec, name=spec.name)
    if stream is not None:
        problems = [f"{problem} ({origin})" for problem in stream.problems()]
    if problems:
        raise SettingsError("\n".join(problems))
    assert isinstance(stream, StreamSpec)
    return stream


def _matters(names: Sequence[str]) -> bool:
    if names[0] != "training" or len(names) < 2:
        return names[0] in MATTER
    return names[1] in MATTER_OF_TRAINING or names[1] not in TrainingSpec.__struct_fields__


def _put(table: dict[str, Any], names: Sequence[str], value: Any) -> None:
    *tables, last = names
    for name in tables:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"--set {'.'.join(names)} cannot be: {name} is a setting and not a table")
        table = inner
    table[last] = value


def _value_of(text: str) -> Any:
    """Return a TOML value; what is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _without_nulls(value: Any) -> Any:
    """Return tables without what is not set: TOML has no null."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
