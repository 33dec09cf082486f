"""What a command makes of a stream's routing, and why it may not."""

from typing import Any

import msgspec
import pytest

from agents.routing import MAX_SHADOWS, Routes, rerouted, routes_of, was_done
from schemas.errors import PenstockError
from schemas.events import Command, Deployment, ModelVersion
from schemas.streams import StreamSpec
from tests.support import deployment_of, version_of

SPEC = StreamSpec(name="flights", features=("a", "b"))


def _version(model_id: str, lineage: str = "", offset: int | None = None, parent: str | None = None) -> ModelVersion:
    version = version_of(SPEC, model_id)
    return msgspec.structs.replace(version, lineage=lineage, samples_offset=offset, parent=parent)


REGISTRY = {
    version.model_id: version
    for version in (
        *(_version(f"m{number}") for number in range(10)),
        _version("a0", "a"),
        _version("a1", "a", 100),
        _version("a2", "a", 200),
        _version("a2b", "a", 200),
        _version("b1", "b", 100),
        _version("b2", "b", 200),
        _version("c1", "c", 100, parent="m1"),
        _version("c2", "c", 200, parent="c1"),
        _version("f1", "f", 100, parent="a2"),
        _version("f2", "f", 300, parent="f1"),
        _version("e1", "e", 100, parent="e2"),
        _version("e2", "e", 200, parent="e1"),
    )
}


def _at(champion: str, *shadows: str, revision: int = 3) -> list[Deployment]:
    return [msgspec.structs.replace(deployment_of(SPEC, champion, revision), shadows=shadows)]


def _command(action: Any, model_id: str, expected_revision: int | None = 3, correlation_id: str = "c") -> Command:
    return Command(
        stream="flights",
        action=action,
        model_id=model_id,
        expected_revision=expected_revision,
        issued_by="ada",
        issued_time_ms=1,
        correlation_id=correlation_id,
    )


@pytest.mark.parametrize(
    ("history", "command", "routes"),
    [
        ([], _command("promote", "m1", 0), ("m1",)),
        (_at("m1", "m2", "a1"), _command("promote", "m3"), ("m3", "m2", "a1")),
        (_at("m1", "m2", "a1"), _command("promote", "m2"), ("m2", "a1")),
        (_at("m1", "m2", "a2"), _command("promote", "a1"), ("a1", "m2")),
        (_at("m1", "m2"), _command("shadow", "m3"), ("m1", "m2", "m3")),
        (_at("m1", "m2", "a2", "b1"), _command("shadow", "a1"), ("m1", "m2", "a1", "b1")),
        (_at("m1", "b1"), _command("shadow", "a1", None), ("m1", "b1", "a1")),
        (_at("m1", "m2", "m3"), _command("unshadow", "m2"), ("m1", "m3")),
        (_at("m1", "lost"), _command("unshadow", "lost"), ("m1",)),
        (_at("a1", "b1", "m2"), _command("succeed", "a2", None), ("a2", "b1", "m2")),
        (_at("m1", "b1", "a1", "m2"), _command("succeed", "a2", None), ("m1", "b1", "a2", "m2")),
        (_at("m1", "a0"), _command("succeed", "a1"), ("m1", "a1")),
        (_at("m1", "m2"), _command("succeed", "c2", None), ("c2", "m2")),
        (_at("m2", "m1"), _command("succeed", "c1", None), ("m2", "c1")),
        (_at("m1", "c1"), _command("succeed", "c2", None), ("m1", "c2")),
        (_at("a2"), _command("succeed", "f1", None), ("f1",)),
        (_at("m1", "a2"), _command("succeed", "f2", None), ("m1", "f2")),
        (_at("a2", "f1"), _command("succeed", "f2", None), ("a2", "f2")),
        (_at("m1"), _command("shadow", "c1", None), ("m1", "c1")),
    ],
)
def test_a_command_changes_what_it_names_and_nothing_else(
    history: list[Deployment], command: Command, routes: tuple[str, ...]
) -> None:
    champion, *shadows = routes
    assert rerouted(command, history, REGISTRY.get) == Routes(champion, tuple(shadows))


@pytest.mark.parametrize(
    ("history", "command", "sentence"),
    [
        (_at("m1"), _command("promote", "m2", 2), "is at revision 3, not at 2"),
        (_at("m1"), _command("promote", "m2", None), "a command to promote must name the revision"),
        (_at("m1", "m2"), _command("unshadow", "m2", None), "a command to unshadow must name the revision"),
        (_at("m1", "m2"), _command("unshadow", "m2", 4), "is at revision 3, not at 4"),
        (_at("m1"), _command("shadow", "m2", None), "a command to shadow must name the revision"),
        (_at("m1", "a1"), _command("shadow", "a2", None), "a command to shadow must name the revision"),
        (_at("a1"), _command("succeed", "a2", 2), "is at revision 3, not at 2"),
        (_at("m1"), _command("promote", "m99"), "no model 'm99' is registered in stream 'flights'"),
        ([], _command("shadow", "m1", 0), "no champion yet"),
        (_at("m1"), _command("shadow", "m1"), "is the champion"),
        (_at("m1", "m2"), _command("shadow", "m2"), "is a shadow already"),
        (_at("a1"), _command("shadow", "a2"), "the champion a1 is of the same lineage"),
        (_at("m9", *(f"m{n}" for n in range(MAX_SHADOWS))), _command("shadow", "a1"), "has 8 shadows"),
        (_at("m1", "m2"), _command("unshadow", "m1"), "'m1' is no shadow; the shadows are: m2"),
        (_at("m1"), _command("unshadow", "m2"), "the shadows are: none"),
        (_at("m1"), _command("succeed", "m2", None), "belongs to no lineage"),
        (_at("m1", "b1"), _command("succeed", "a1", None), "no version of lineage 'a' is champion or shadow"),
        (_at("a1"), _command("succeed", "f1", None), "no version of lineage 'f' is champion or shadow"),
        (_at("f1"), _command("succeed", "a2b", None), "no version of lineage 'a' is champion or shadow"),
        (_at("m2"), _command("succeed", "c2", None), "no version of lineage 'c' is champion or shadow"),
        (_at("m1"), _command("succeed", "e2", None), "no version of lineage 'e' is champion or shadow"),
        (_at("a2"), _command("succeed", "a1", None), "has learnt no further than a2"),
        (_at("m1", "a2"), _command("succeed", "a2b", None), "has learnt no further than a2"),
        (_at("m1", "a2"), _command("succeed", "a2", None), "has learnt no further than a2"),
    ],
)
def test_what_may_not_be_is_refused_in_one_sentence(history: list[Deployment], command: Command, sentence: str) -> None:
    with pytest.raises(PenstockError, match=sentence):
        rerouted(command, history, REGISTRY.get)


def test_a_full_stream_may_still_replace_a_shadow_by_one_of_its_lineage() -> None:
    history = _at("m9", "a1", *(f"m{n}" for n in range(MAX_SHADOWS - 1)))
    routes = rerouted(_command("shadow", "a2"), history, REGISTRY.get)
    assert routes.shadows[0] == "a2"
    assert len(routes.shadows) == MAX_SHADOWS


@pytest.mark.parametrize(
    ("action", "model_id", "before", "after"),
    [
        ("promote", "m2", ["m1"], ["m2"]),
        ("shadow", "m2", ["m1"], ["m1", "m2"]),
        ("unshadow", "m2", ["m1", "m2"], ["m1"]),
        ("succeed", "a2", ["a1"], ["a2"]),
        ("succeed", "a2", ["m1", "a1"], ["m1", "a2"]),
    ],
)
def test_a_command_was_done_when_its_deployment_is_there_and_does_what_it_says(
    action: str, model_id: str, before: list[str], after: list[str]
) -> None:
    history = [*_at(*before, revision=1), *_at(*after, revision=2), *_at("m5", revision=3)]
    assert was_done(_command(action, model_id, correlation_id="command-2"), history)
    assert not was_done(_command(action, model_id, correlation_id="command-9"), history)
    assert not was_done(_command(action, "m7", correlation_id="command-2"), history)
    assert not was_done(_command(action, model_id, correlation_id="command-2"), history[:1])


def test_before_the_first_deployment_there_are_no_routes() -> None:
    assert routes_of([]) == Routes(None, ())
