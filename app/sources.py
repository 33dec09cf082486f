"""Untyped tables (the environment, a TOML file) into typed fields, and one sentence for each thing that is wrong."""

import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place where settings come from.

    `table` holds the values by setting name. In the environment a name is written with a `prefix`, in capitals,
    and every value is `text`, which is parsed here; in TOML values have their types already, and a table may be a
    `section` of the document.
    """

    origin: str
    table: Mapping[str, Any]
    prefix: str = ""
    text: bool = False
    section: str = ""

    @property
    def where(self) -> str:
        """Where the settings are, in words."""
        return f"of [{self.section}] {self.origin}" if self.section else self.origin

    def within(self, name: str, table: Mapping[str, Any]) -> "Source":
        """Return the source of the `table` called `name` in this one."""
        return Source(origin=self.origin, table=table, section=f"{self.section}.{name}" if self.section else name)

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
            if (inner := nested(kind)) is not None:
                values[name], malformed = self._tables(name, *inner)
                problems += malformed
                continue
            try:
                values[name] = msgspec.convert(self.table[name], kind, strict=not self.text)
            except msgspec.ValidationError:
                shown = "malformed" if name in secrets else _shown(self.table[name])
                problems.append(f"{self.spelled(name)} {self.where} is {shown}, but must be {allowed(kind)}")
        return values, problems

    def _tables(self, name: str, kind: type[msgspec.Struct], many: bool) -> tuple[Any, list[str]]:
        """Read the table `name` as a struct, or, where there are `many`, each table in it."""
        table = self.table[name]
        if not isinstance(table, dict) or (many and not all(isinstance(inner, dict) for inner in table.values())):
            header = f"[{self.section}.{name}{'.<name>' if many else ''}]"
            return None, [f"{self.spelled(name)} {self.where} must be {'tables, each' if many else 'a table'} {header}"]
        here = self.within(name, table)
        if not many:
            return here.struct(kind)
        read = {key: here.within(key, inner).struct(kind) for key, inner in table.items()}
        return {key: value for key, (value, _) in read.items()}, [p for _, problems in read.values() for p in problems]

    def struct(self, kind: type[msgspec.Struct], **given: Any) -> tuple[Any, list[str]]:
        """Return this source as a `kind`, with the fields `given`; None, and why, when it is none."""
        types = {n: t for n, t in get_type_hints(kind, include_extras=True).items() if n not in given}
        values, problems = self.typed(types)
        required = [f.name for f in msgspec.structs.fields(kind) if f.required and f.name in types]
        problems += [f"{name} {self.where} is missing" for name in required if name not in self.table]
        problems += self.unknown(types)
        return (None if problems else kind(**given, **values)), problems

    def _nearest(self, name: str, known: Collection[str]) -> str:
        near = difflib.get_close_matches(name, known, n=1)
        return f"; did you mean {self.spelled(near[0])}?" if near else ""


def allowed(kind: Any) -> str:
    """Return in words what a field of type `kind` may be."""
    return _words(inspect.type_info(kind))


def _words(info: inspect.Type) -> str:
    match info:
        case inspect.UnionType(types=(one, inspect.NoneType())):  # TOML has no null: one leaves the setting out
            return _words(one)
        case inspect.Metadata(extra_json_schema={"description": words}):
            return str(words)
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.IntType(ge=low, le=high):
            return "a whole number" + _bounds(low, high)
        case inspect.FloatType(gt=above, lt=below, le=most) if above is not None:
            until = f" and below {below}" if below is not None else f", at most {most}" if most is not None else ""
            return f"a number above {above}{until}"
        case inspect.FloatType(ge=low, le=high):
            return "a number" + _bounds(low, high)
        case inspect.StrType(min_length=length):
            return "text that is not empty" if length else "text"
        case inspect.VarTupleType(item_type=inspect.StrType()):
            return "a list of texts"
        case inspect.VarTupleType(item_type=item):
            return f"a list, each {_words(item)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.DictType():
            return "a table of texts, numbers, true and false"
        case other:
            raise TypeError(f"no words for a setting of type {other}")


def nested(kind: Any) -> tuple[type[msgspec.Struct], bool] | None:
    """Return the struct that a field of type `kind` is, or is a dict of, and which; None for other types.

    A struct or None is that struct: where there is no table, there is none.
    """
    if len(given := get_args(kind)) == 2 and given[1] is type(None):
        kind = given[0]
    many = get_origin(kind) is dict
    inner = get_args(kind)[1] if many else kind
    return (inner, many) if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return "" if low is None else f", at least {low}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
