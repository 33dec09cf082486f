"""Events stay readable both ways: old records by today's types, today's records by whoever has the stored schemas."""

import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from schemas.event import Event, TimeMs
from schemas.events import Command, Label
from schemas.jsonschema import FOLDER, event_types, schema_of, text_of
from schemas.wire import encode

Json = dict[str, Any]
TYPES = event_types()


def snapshot_of(name: str) -> Json:
    path = FOLDER / f"{name}.json"
    loaded: Json = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def examples_of(name: str) -> list[Json]:
    path = FOLDER / "examples" / f"{name}.json"
    loaded: list[Json] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def read(kind: type[Event], document: Json) -> Event:
    return msgspec.json.decode(json.dumps(document), type=kind)


def breaks(kind: type[Event], snapshot: Json, examples: list[Json]) -> list[str]:
    """What goes wrong between today's `kind`, and the readers and the records that are out there."""
    validator = Draft202012Validator(snapshot)
    found = []
    for example in examples:
        found += [f"the example is not of its schema: {error.message}" for error in validator.iter_errors(example)]
        try:
            event = read(kind, example)
        except msgspec.ValidationError as error:
            found.append(f"an old record cannot be read: {error}")
            continue
        written = json.loads(encode(event))
        found += [f"{lost} of an old record is lost" for lost in lost_values(example, written)]
        found += [f"an old reader cannot read: {error.message}" for error in validator.iter_errors(written)]
    seen = set().union(*examples)
    found += [f"no example has {name}" for name in kind.__struct_encode_fields__ if name not in seen]
    return found


def lost_values(old: Json, new: Json) -> list[str]:
    """The fields of `old` that `new` lacks or says otherwise."""
    lost = []
    for name, value in old.items():
        if isinstance(value, dict) and isinstance(new.get(name), dict):
            lost += [f"{name}.{inner}" for inner in lost_values(value, new[name])]
        elif name not in new or new[name] != value:
            lost.append(name)
    return lost


def test_every_event_has_a_snapshot_and_no_snapshot_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == TYPES.keys()
    assert {path.stem for path in (FOLDER / "examples").glob("*.json")} == TYPES.keys()


@pytest.mark.parametrize("name", TYPES)
def test_the_snapshot_is_what_the_type_generates(name: str) -> None:
    stored = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert stored == text_of(schema_of(TYPES[name])), "if that was meant, run `python -m schemas.jsonschema`"


@pytest.mark.parametrize("name", TYPES)
def test_the_snapshot_is_a_valid_schema(name: str) -> None:
    Draft202012Validator.check_schema(snapshot_of(name))


@pytest.mark.parametrize("name", TYPES)
def test_old_records_and_old_readers_get_along_with_today(name: str) -> None:
    assert breaks(TYPES[name], snapshot_of(name), examples_of(name)) == []


@pytest.mark.parametrize("name", TYPES)
def test_an_unknown_field_is_ignored_by_types_and_schemas(name: str) -> None:
    newer = [example | {"added_in_the_future": {"x": 1}} for example in examples_of(name)]
    Draft202012Validator(snapshot_of(name)).validate(newer[0])
    assert isinstance(read(TYPES[name], newer[0]), TYPES[name])


@pytest.mark.parametrize("name", TYPES)
def test_every_required_field_is_required_by_types_and_schemas(name: str) -> None:
    snapshot = snapshot_of(name)
    for field in snapshot["required"]:
        short = {key: value for key, value in examples_of(name)[0].items() if key != field}
        assert not Draft202012Validator(snapshot).is_valid(short)
        with pytest.raises(msgspec.ValidationError):
            read(TYPES[name], short)


def label_with(**changes: tuple[Any, ...] | None) -> type[Event]:
    """A Label with fields replaced, added (a type and perhaps a default) or removed (None)."""
    fields: dict[str, tuple[Any, ...]] = {
        field.name: (field.type,) if field.required else (field.type, field.default)
        for field in msgspec.structs.fields(Label)
    }
    kept = {name: spec for name, spec in (fields | changes).items() if spec is not None}
    made = msgspec.defstruct(
        "Label", [(name, *spec) for name, spec in kept.items()], bases=(Event,), kw_only=True, frozen=True
    )
    assert issubclass(made, Event)
    return made


def test_a_new_field_with_a_default_needs_an_example_and_breaks_nothing_else() -> None:
    changed = label_with(source=(str, ""))
    assert breaks(changed, snapshot_of("Label"), examples_of("Label")) == ["no example has source"]
    complete = [*examples_of("Label"), examples_of("Label")[0] | {"source": "radar"}]
    assert breaks(changed, schema_of(changed), complete) == []


@pytest.mark.parametrize("regenerated", [False, True])
@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (label_with(source=(str,)), "missing required field `source`"),
        (label_with(weight=None), "weight of an old record is lost"),
        (label_with(weight=None, importance=(float, 1.0)), "weight of an old record is lost"),
        (label_with(label=None), "label of an old record is lost"),
        (label_with(label_time_ms=None, label_time_s=(TimeMs,)), "missing required field `label_time_s`"),
        (label_with(label=(int,)), "Expected `int`, got `str`"),
    ],
    ids=["required added", "optional removed", "optional renamed", "required removed", "required renamed", "narrowed"],
)
def test_a_breaking_change_is_found_even_after_the_snapshots_were_made_anew(
    changed: type[Event], found: str, regenerated: bool
) -> None:
    snapshot = schema_of(changed) if regenerated else snapshot_of("Label")
    assert any(found in sentence for sentence in breaks(changed, snapshot, examples_of("Label")))


def test_a_value_that_old_readers_refuse_is_found() -> None:
    stored = snapshot_of("Command")
    stored["properties"]["action"] = {"enum": ["demote"]}
    assert any("an old reader cannot read" in s for s in breaks(Command, stored, examples_of("Command")))
