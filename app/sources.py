"""Untyped tables (the environment, a TOML file) into typed fields, and one sentence for each thing that is wrong."""

import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place where settings come from.

    `table` holds the values by setting name. In the environment a name is written with a `prefix`, in capitals,
    and every value is `text`, which is parsed here; in TOML values have their types already.
    """

    where: str
    table: Mapping[str, Any]
    prefix: str = ""
    text: bool = False

    def spelled(self, name: str) -> str:
        """Return the setting's name as it is written in this source."""
        return self.prefix + name.upper() if self.prefix else name

    def unknown(self, known: Collection[str]) -> list[str]:
        """Return one sentence for each name that is not `known`, with the nearest one that is."""
        return [
            f"{self.spelled(name)} {self.where} is not a setting{self._nearest(name, known)}"
            for name in self.table
            if name not in known
        ]

    def typed(self, types: Mapping[str, Any], secrets: Collection[str] = ()) -> tuple[dict[str, Any], list[str]]:
        """Return what this source has of `types`, converted, and one sentence for each value that is malformed.

        The values of `secrets` are in no sentence.
        """
        values, problems = {}, []
        for name, kind in types.items():
            if name not in self.table:
                continue
            try:
                values[name] = msgspec.convert(self.table[name], kind, strict=not self.text)
            except msgspec.ValidationError:
                shown = "malformed" if name in secrets else _shown(self.table[name])
                problems.append(f"{self.spelled(name)} {self.where} is {shown}, but must be {allowed(kind)}")
        return values, problems

    def _nearest(self, name: str, known: Collection[str]) -> str:
        near = difflib.get_close_matches(name, known, n=1)
        return f"; did you mean {self.spelled(near[0])}?" if near else ""


def allowed(kind: Any) -> str:
    """Return in words what a field of type `kind` may be."""
    match inspect.type_info(kind):
        case inspect.Metadata(extra_json_schema={"description": words}):
            return str(words)
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.IntType(ge=low, le=high):
            return "a whole number" + _bounds(low, high)
        case inspect.FloatType(ge=low, le=high):
            return "a number" + _bounds(low, high)
        case inspect.StrType(min_length=length):
            return "text that is not empty" if length else "text"
        case inspect.VarTupleType(item_type=inspect.StrType()):
            return "a list of texts"
        case other:
            raise TypeError(f"no words for a setting of type {other}")


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return "" if low is None else f", at least {low}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
