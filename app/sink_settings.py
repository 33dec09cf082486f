"""Sinks out of the settings: a table `[sinks.<name>]` each, and its secret out of the environment or a file.

The secret of a sink is `ML_SINK_<NAME>_SECRET`, or stands in the file that `ML_SINK_<NAME>_SECRET_FILE` or the table's
`secret_file` names. The environment wins.
"""

from collections.abc import Collection
from typing import Any, Final

from app.secret_files import read_secrets
from app.sources import Source
from schemas.sinks import SINK_KINDS, Sink, SinkSpec

_BESIDE: Final = ("kind", "secret_file")  # keys of the table that are no fields of the spec


def sink_secrets(document: Source) -> dict[str, type[str]]:
    """Return the variables of the environment, by their names as settings, that hold secrets of declared sinks."""
    tables = document.table.get("sinks", {})
    names = tables if isinstance(tables, dict) else ()
    return {f"sink_{name}_{what}": str for name in names for what in ("secret", "secret_file")}


def read_sinks(document: Source, environment: Source, streams: Collection[str]) -> tuple[tuple[Sink, ...], list[str]]:
    """Return the sinks of a settings file, and one sentence for each thing that is wrong with their tables.

    What is wrong with a secret, `Sink.problems` says. No secret is in any sentence.
    """
    tables = document.table.get("sinks", {})
    if not (isinstance(tables, dict) and all(isinstance(table, dict) for table in tables.values())):
        return (), [f"sinks {document.where} must be tables, each [sinks.<name>]"]
    sinks, problems = [], []
    for name, table in tables.items():
        source = document.within("sinks", {}).within(name, table)
        spec, malformed = _spec(name, source)
        if spec is not None:
            secret, unread = _secret(name, source, environment)
            sinks.append(Sink(spec, secret, tuple(unread)))
            malformed = [f"{problem} ({document.where})" for problem in spec.problems()]
            if unknown := sorted(set(spec.streams) - set(streams)):
                malformed.append(f"streams {source.where} names no declared stream: {', '.join(unknown)}")
        problems += malformed
    return tuple(sinks), problems


def _spec(name: str, source: Source) -> tuple[SinkSpec | None, list[str]]:
    kind = source.table.get("kind")
    if not isinstance(kind, str) or kind not in SINK_KINDS:
        said = "is missing" if kind is None else "is unknown"
        return None, [f"kind {source.where} {said}: it must be one of {', '.join(SINK_KINDS)}"]
    if "secret" in source.table:
        variable = f"ML_SINK_{name.upper()}_SECRET"
        return None, [f"secret {source.where} must not stand there: set {variable}, or name its file in secret_file"]
    of_spec = {key: value for key, value in source.table.items() if key not in _BESIDE}
    spec, problems = Source(origin=source.origin, table=of_spec, section=source.section).struct(
        SINK_KINDS[kind], name=name
    )
    return spec, problems


def _secret(name: str, table: Source, environment: Source) -> tuple[str, list[str]]:
    variable = f"sink_{name}_secret"
    values: dict[str, Any] = {
        key: environment.table[key] for key in (variable, f"{variable}_file") if environment.table.get(key)
    }
    if values:
        problems = read_secrets(values, environment, [variable])
        return str(values.get(variable, "")), problems
    named, malformed = table.typed({"secret_file": str}, ["secret_file"])
    problems = malformed + read_secrets(named, table, ["secret"])
    return str(named.get("secret", "")), problems
