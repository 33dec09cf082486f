"""What a command makes of a stream's routing, and why it may not."""

from typing import Any

import msgspec
import pytest

from agents.routes import Routes, routes_of
from agents.routing import MAX_SHADOWS, effect_of, rerouted
from schemas.errors import PenstockError
from schemas.events import Command, Deployment, ModelVersion
from schemas.streams import StreamSpec
from tests.support import deployment_of, experiment_of, version_of

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
        msgspec.structs.replace(_version("old"), status="archived"),
        msgspec.structs.replace(_version("lost"), status="archived", pruned=True),
        msgspec.structs.replace(_version("a3", "a", 300), status="archived"),
    )
}


def _at(champion: str, *shadows: str, revision: int = 3, **changes: Any) -> list[Deployment]:
    return [msgspec.structs.replace(deployment_of(SPEC, champion, revision), shadows=shadows, **changes)]


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
    after = rerouted(command, history, REGISTRY.get, 0)
    assert (after.champion, after.shadows) == (champion, tuple(shadows))
    assert after.experiment is None


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
        (_at("m1", "b1"), _command("succeed", "a1", None), "no version of lineage 'a' is champion, shadow or variant"),
        (_at("a1"), _command("succeed", "f1", None), "no version of lineage 'f' is champion, shadow or variant"),
        (_at("f1"), _command("succeed", "a2b", None), "no version of lineage 'a' is champion, shadow or variant"),
        (_at("m2"), _command("succeed", "c2", None), "no version of lineage 'c' is champion, shadow or variant"),
        (_at("m1"), _command("succeed", "e2", None), "no version of lineage 'e' is champion, shadow or variant"),
        (_at("a2"), _command("succeed", "a1", None), "has learnt no further than a2"),
        (_at("m1", "a2"), _command("succeed", "a2b", None), "has learnt no further than a2"),
        (_at("m1", "a2"), _command("succeed", "a2", None), "has learnt no further than a2"),
    ],
)
def test_what_may_not_be_is_refused_in_one_sentence(history: list[Deployment], command: Command, sentence: str) -> None:
    with pytest.raises(PenstockError, match=sentence):
        rerouted(command, history, REGISTRY.get, 0)


def test_a_full_stream_may_still_replace_a_shadow_by_one_of_its_lineage() -> None:
    history = _at("m9", "a1", *(f"m{n}" for n in range(MAX_SHADOWS - 1)))
    routes = rerouted(_command("shadow", "a2"), history, REGISTRY.get, 0)
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
    assert effect_of(_command(action, model_id, correlation_id="command-2"), history)
    assert not effect_of(_command(action, model_id, correlation_id="command-9"), history)
    assert not effect_of(_command(action, "m7", correlation_id="command-2"), history)
    assert not effect_of(_command(action, model_id, correlation_id="command-2"), history[:1])


def test_before_the_first_deployment_there_are_no_routes() -> None:
    assert routes_of([]) == Routes(None, ())


PROMOTIONS = [_at("m1", revision=1)[0], _at("m2", revision=2, previous="m1")[0], _at("m3", previous="m2")[0]]


def _after(history: list[Deployment], routes: Routes) -> Deployment:
    [next_one] = _at(routes.champion or "", *routes.shadows, revision=history[-1].revision + 1)
    return msgspec.structs.replace(
        next_one, previous=routes.previous, held=routes.held, experiment=routes.experiment, correlation_id="c"
    )


def test_a_promotion_remembers_the_champion_before_it_and_ends_what_held_that() -> None:
    routes = rerouted(_command("promote", "m4"), _at("m3", held=True, previous="m2"), REGISTRY.get, 0)
    assert (routes.champion, routes.previous, routes.held) == ("m4", "m3", False)
    assert rerouted(_command("promote", "m1", 0), [], REGISTRY.get, 0) == Routes("m1")
    succeeded = rerouted(_command("succeed", "a2", None), _at("a1", previous="m1"), REGISTRY.get, 0)
    assert (succeeded.champion, succeeded.previous) == ("a2", "a1")


def test_a_roll_back_goes_back_one_champion_at_a_time_and_holds() -> None:
    history = list(PROMOTIONS)
    for revision, champion, previous in ((3, "m2", "m1"), (4, "m1", "")):
        routes = rerouted(_command("rollback", "", revision), history, REGISTRY.get, 0)
        assert (routes.champion, routes.previous, routes.held) == (champion, previous, True)
        history.append(_after(history, routes))
    with pytest.raises(PenstockError, match="no previous champion to go back to"):
        rerouted(_command("rollback", "", 5), history, REGISTRY.get, 0)


def test_a_roll_back_ends_the_experiment_and_leaves_no_shadow_of_the_lineage_that_serves_again() -> None:
    history = _at("m1", "m2", "a2", previous="a1", experiment=experiment_of("m1", "m3"))
    routes = rerouted(_command("rollback", "a1"), history, REGISTRY.get, 0)
    assert routes == Routes("a1", ("m2",), held=True)


def test_an_archived_champion_comes_back_by_a_roll_back_only() -> None:
    assert rerouted(_command("rollback", ""), _at("m1", previous="old"), REGISTRY.get, 0).champion == "old"
    for action in ("promote", "shadow"):
        with pytest.raises(PenstockError, match="restore it first: penstock models move old staging"):
            rerouted(_command(action, "old"), _at("m1"), REGISTRY.get, 0)
    with pytest.raises(PenstockError, match="model a3 is archived"):
        rerouted(_command("succeed", "a3", None), _at("m1", "a2"), REGISTRY.get, 0)


def test_to_promote_the_champion_itself_only_lets_its_lineage_go_on() -> None:
    held = _at("a1", "m2", held=True, previous="m1", experiment=experiment_of("a1", "m3"))
    with pytest.raises(PenstockError, match=r"stays until a model is promoted: .* promote a2, or a1 itself"):
        rerouted(_command("succeed", "a2", None), held, REGISTRY.get, 0)
    freed = rerouted(_command("promote", "a1"), held, REGISTRY.get, 0)
    assert freed == routes_of(held)._replace(held=False)
    with pytest.raises(PenstockError, match="model a1 is the champion already"):
        rerouted(_command("promote", "a1"), _at("a1"), REGISTRY.get, 0)


def test_a_held_champion_keeps_no_shadow_and_no_variant_from_being_succeeded() -> None:
    history = _at("m1", "a1", held=True, experiment=experiment_of("m1", "b1"))
    assert rerouted(_command("succeed", "a2", None), history, REGISTRY.get, 0).shadows == ("a2",)
    assert rerouted(_command("succeed", "b2", None), history, REGISTRY.get, 0).challengers == ("b2",)


def test_a_snapshot_takes_its_lineage_s_place_in_the_experiment_too() -> None:
    experiment = experiment_of("a1", "b1")
    after = rerouted(_command("succeed", "b2", None), _at("a1", experiment=experiment), REGISTRY.get, 0)
    assert after.experiment == experiment_of("a1", "b2")
    after = rerouted(_command("succeed", "a2", None), _at("a1", experiment=experiment), REGISTRY.get, 0)
    assert (after.champion, after.previous, after.experiment) == ("a2", "a1", experiment_of("a2", "b1"))


def test_the_promotion_of_a_variant_ends_the_experiment_and_of_another_model_is_refused() -> None:
    history = _at("m1", "m2", experiment=experiment_of("m1", "b1", "m3"))
    assert rerouted(_command("promote", "m3"), history, REGISTRY.get, 0) == Routes("m3", ("m2",), previous="m1")
    with pytest.raises(PenstockError, match=r"no variant of it; stop it first: penstock experiments stop x$"):
        rerouted(_command("promote", "m2"), history, REGISTRY.get, 0)


def test_without_a_champion_before_a_roll_back_is_told_which_command_would_help() -> None:
    rollout = msgspec.structs.replace(experiment_of("m1", "b1"), kind="rollout")
    for experiment, words in (
        (None, "promote the model that should serve: penstock models promote MODEL_ID"),
        (experiment_of("m1", "b1"), "to end experiment 'x', .*: penstock experiments stop x"),
        (rollout, "to end rollout 'x', .*: penstock rollouts stop"),
    ):
        with pytest.raises(PenstockError, match=f"no previous champion to go back to; {words}$"):
            rerouted(_command("rollback", ""), _at("m1", experiment=experiment), REGISTRY.get, 0)


def test_shadows_come_and_go_beside_an_experiment_but_not_its_variants_nor_their_lineages() -> None:
    history = _at("m1", "m2", experiment=experiment_of("m1", "b1", "m3"))
    assert rerouted(_command("shadow", "a1"), history, REGISTRY.get, 0).shadows == ("m2", "a1")
    after = rerouted(_command("unshadow", "m2"), history, REGISTRY.get, 0)
    assert (after.shadows, after.experiment) == ((), history[-1].experiment)
    for model_id, sentence in (("m3", "is a variant of the experiment that runs"), ("b2", "the variant b1 is of")):
        with pytest.raises(PenstockError, match=sentence):
            rerouted(_command("shadow", model_id), history, REGISTRY.get, 0)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (_command("rollback", "m1"), "the previous champion is m2, not m1"),
        (_command("rollback", "", 2), "is at revision 3, not at 2"),
        (_command("rollback", "", None), "a command to rollback must name the revision"),
        (_command("promote", ""), "a command to promote must name a model"),
        (_command("promote", "lost"), "model lost was pruned"),
    ],
)
def test_what_does_not_fit_the_champions_so_far_is_refused(command: Command, sentence: str) -> None:
    with pytest.raises(PenstockError, match=sentence):
        rerouted(command, PROMOTIONS, REGISTRY.get, 0)


def test_a_roll_back_was_done_when_the_champion_before_is_back() -> None:
    command = _command("rollback", "")
    history = [*PROMOTIONS, _after(PROMOTIONS, rerouted(command, PROMOTIONS, REGISTRY.get, 0))]
    assert effect_of(command, history) is history[-1]
    assert effect_of(msgspec.structs.replace(command, model_id="m1"), history) is None
    assert effect_of(command, PROMOTIONS) is None


def _by_trainer(action: Any, model_id: str, champion: str) -> Command:
    return msgspec.structs.replace(_command(action, model_id, None), expected_champion=champion)


@pytest.mark.parametrize(
    ("history", "command", "champion"),
    [
        (_at("m1", revision=3), _by_trainer("promote", "m2", "m1"), "m2"),
        (_at("m1", "a1", revision=99), _by_trainer("promote", "m2", "m1"), "m2"),
        (_at("a2"), _by_trainer("promote", "m2", "a1"), "m2"),
        ([], _by_trainer("promote", "m2", ""), "m2"),
        (_at("m1", held=True), _by_trainer("shadow", "m2", "m1"), "m1"),
    ],
)
def test_who_names_the_champion_need_not_know_the_revision(
    history: list[Deployment], command: Command, champion: str
) -> None:
    assert rerouted(command, history, REGISTRY.get, 0).champion == champion


@pytest.mark.parametrize(
    ("history", "command", "sentence"),
    [
        (_at("m3"), _by_trainer("promote", "m2", "m1"), "m3 serves, and not m1 as the command expects"),
        (_at("m3"), _by_trainer("promote", "m2", ""), "m3 serves, and not none as the command expects"),
        ([], _by_trainer("promote", "m2", "m1"), "no model serves, and not m1 as the command expects"),
        (_at("b1"), _by_trainer("promote", "m2", "a1"), "b1 serves, and not a1 as the command expects"),
        (_at("m1", held=True), _by_trainer("promote", "m2", "m1"), "m1 was brought back by a roll-back"),
    ],
)
def test_another_champion_than_the_named_one_is_not_replaced(
    history: list[Deployment], command: Command, sentence: str
) -> None:
    with pytest.raises(PenstockError, match=sentence):
        rerouted(command, history, REGISTRY.get, 0)
