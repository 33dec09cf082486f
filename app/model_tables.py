"""Registered models for people and as JSON: in a list, one with its history, and two side by side."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from app.models import RegistryView
from app.text import minute, printable, table
from schemas.events import ModelVersion

_MARKS: Final = (("champion", "*"), ("variant", "~"), ("shadow", "+"), ("previous", "<"))
_HEADER: Final = ("", "model", "version", "status", "algorithm", "lineage", "registered", "bytes")
_BYTES_COLUMN: Final = 7


def routing_of(version: ModelVersion, registry: RegistryView) -> dict[str, Any]:
    """Return what the routing has this version for; `variant` is the name of the one that it serves, if any."""
    return {
        "champion": version.model_id == registry.champion,
        "shadow": version.model_id in registry.shadows,
        "variant": registry.variants.get(version.model_id, ""),
        "previous": version.model_id == registry.previous,
    }


def list_lines(versions: Sequence[ModelVersion], registry: RegistryView) -> list[str]:
    """Return a line for each version below a header; nothing when there is none."""
    if not versions:
        return []
    rows = (
        (
            _mark(version, registry),
            version.model_id,
            version.version or "-",
            version.status,
            version.algorithm,
            version.lineage or "-",
            minute(version.created_time_ms),
            f"{version.size_bytes:,}",
        )
        for version in versions
    )
    return table([_HEADER, *rows], right=(_BYTES_COLUMN,))


def _mark(version: ModelVersion, registry: RegistryView) -> str:
    routing = routing_of(version, registry)
    return next((mark for name, mark in _MARKS if routing[name]), "")


def description(version: ModelVersion, registry: RegistryView) -> dict[str, Any]:
    """Return everything that is recorded of a version, its place in the routing first, and the `history` of its status.

    The first entry of that is the registration.
    """
    found = registry.history_of(version.model_id)
    history = [
        {
            "status": record.status,
            "by": record.changed_by or record.registered_by,
            "time_ms": record.changed_time_ms or record.created_time_ms,
            "time": minute(record.changed_time_ms or record.created_time_ms),
            "reason": record.reason or ("" if record.changes else "registered"),
        }
        for record in found
    ]
    recorded: dict[str, Any] = msgspec.to_builtins(version)
    return routing_of(version, registry) | recorded | {"history": history}


def description_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `description` returned as text: a line for each thing, then one for each change of the status."""
    things = {name: value for name, value in found.items() if name != "history"}
    shown = {name: _moment(value) if name.endswith("_time_ms") else _cell(value) for name, value in things.items()}
    yield from table((name.removesuffix("_time_ms"), text) for name, text in shown.items())
    yield ""
    for change in found["history"]:
        why = f": {change['reason']}" if change["reason"] else ""
        yield printable(f"{change['time']}  {change['status']:<10} by {change['by']}{why}")


_COMPARED: Final[Mapping[str, Callable[[ModelVersion], Any]]] = {
    "version": lambda v: v.version,
    "status": lambda v: v.status,
    "algorithm": lambda v: v.algorithm,
    "task": lambda v: v.task,
    "classes": lambda v: list(v.classes),
    "lineage": lambda v: v.lineage,
    "parent": lambda v: v.parent,
    "registered_by": lambda v: v.registered_by,
    "created_time_ms": lambda v: v.created_time_ms,
    "training_from_time_ms": lambda v: v.training_from_time_ms,
    "training_to_time_ms": lambda v: v.training_to_time_ms,
    "training_from_offset": lambda v: v.training_from_offset,
    "training_to_offset": lambda v: v.training_to_offset,
    "size_bytes": lambda v: v.size_bytes,
    "memory_bytes": lambda v: v.memory_bytes,
    "sha256": lambda v: v.sha256,
    "baseline": lambda v: v.baseline,
}


def comparison(first: ModelVersion, second: ModelVersion) -> dict[str, Any]:
    """Return two versions side by side, each thing as a pair (first, second).

    `metrics` have the difference (second less first; null where one has none), `parameters` and `properties` are only
    those that differ. `features_added` are those that the second has and the first has not.
    """
    return {
        "models": [first.model_id, second.model_id],
        "metrics": {
            name: {"values": pair, "difference": None if None in pair else pair[1] - pair[0]}
            for name, pair in _pairs(first.metrics, second.metrics)
        },
        "parameters": {n: pair for n, pair in _pairs(first.parameters, second.parameters) if _differ(pair)},
        "features_added": [name for name in second.features if name not in first.features],
        "features_removed": [name for name in first.features if name not in second.features],
        "same_bytes": first.sha256 == second.sha256,
        "properties": {name: [get(first), get(second)] for name, get in _COMPARED.items() if get(first) != get(second)},
    }


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterable[tuple[str, list[Any]]]:
    return ((name, [first.get(name), second.get(name)]) for name in dict.fromkeys((*first, *second)))


def _differ(pair: list[Any]) -> bool:
    """Whether two values differ; true and 1 do."""
    return pair[0] != pair[1] or type(pair[0]) is not type(pair[1])


def comparison_lines(first: ModelVersion, second: ModelVersion) -> Iterator[str]:
    """Yield `comparison` as text."""
    found = comparison(first, second)
    rows = [["", *found["models"], "difference"]]
    for name, metric in found["metrics"].items():
        difference = "" if metric["difference"] is None else f"{metric['difference']:+.6g}"
        rows.append([name, *map(_cell, metric["values"]), difference])
    rows += [[f"parameter {name}", *map(_cell, pair), ""] for name, pair in found["parameters"].items()]
    for name, pair in found["properties"].items():
        shown = [_moment(value) for value in pair] if name.endswith("_time_ms") else [_cell(value) for value in pair]
        difference = f"{pair[1] - pair[0]:+,}" if name.endswith("_bytes") else ""
        rows.append([name.removesuffix("_time_ms"), *shown, difference])
    yield from table(rows)
    for word in ("added", "removed"):
        if names := found[f"features_{word}"]:
            yield f"features {word}: {printable(', '.join(names))}"
    if first.features != second.features and set(first.features) == set(second.features):
        yield "the features are the same, in another order"
    if found["same_bytes"]:
        yield "both are the same bytes"


def _cell(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={_cell(inner)}" for name, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _moment(value: int | None) -> str:
    return "-" if value is None else minute(value)
