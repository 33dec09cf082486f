"""The rules of routing: what a command makes of a stream's routing, or why it may not. Pure functions."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from agents.routes import (
    Find,
    Routes,
    founder_of,
    how_to_stop,
    registered,
    relative_of,
    require_expected,
    require_not_archived,
    routes_of,
)
from agents.routing_experiments import reshared, started, stopped
from schemas.errors import PenstockError
from schemas.events import Command, Deployment, ModelVersion
from schemas.experiments import Experiment

MAX_SHADOWS: Final = 8  # each one takes as long as the champion to score a batch


def rerouted(command: Command, history: Sequence[Deployment], find: Find, now_ms: int) -> Routes:
    """Return the routes after `command`, which is any but a move.

    Raises PenstockError with the reason when it may not be carried out.
    """
    routes = routes_of(history)
    revision = history[-1].revision if history else 0
    if command.expected_revision is not None or not _wished_by_learner(command, routes, find):
        require_expected(command, routes, revision, find)
    match command.action:
        case "promote":
            return _promoted(registered(command, command.model_id, find), routes, find)
        case "rollback":
            return _rolled_back(command, history, routes, find)
        case "succeed":
            return _succeeded(registered(command, command.model_id, find), routes, find)
        case "shadow":
            return _with_shadow(registered(command, command.model_id, find), routes, find)
        case "unshadow":
            return _without_shadow(command.model_id, routes)
        case "start":
            return started(command, history, routes, find, now_ms)
        case "reshare":
            return reshared(command, routes)
        case "stop":
            return stopped(command, routes)
        case "move":
            raise AssertionError("a move changes no routing")


def effect_of(command: Command, history: Sequence[Deployment]) -> Deployment | None:
    """Return the deployment by which this very command was carried out: it does what the command asks for.

    None when it was not, and for a move, which has none.
    """
    for before, after in pairwise([None, *history]):
        if after is not None and after.correlation_id == command.correlation_id and _does(command, before, after):
            return after
    return None


def _does(command: Command, before: Deployment | None, after: Deployment) -> bool:
    model_id, routes, old = command.model_id, routes_of([after]), routes_of([before] if before else [])
    match command.action:
        case "promote":
            return after.champion == model_id
        case "rollback":
            return after.held and after.champion == old.previous and model_id in ("", after.champion)
        case "succeed":
            return model_id in routes.routed
        case "shadow":
            return model_id in after.shadows
        case "unshadow":
            return model_id in old.shadows and model_id not in after.shadows
        case "start":
            return _epoch(after.experiment, command) == 0
        case "reshare":
            return _epoch(after.experiment, command) > _epoch(old.experiment, command) >= 0
        case "stop":
            return _epoch(old.experiment, command) >= 0 and after.experiment is None
        case "move":
            return False


def _epoch(experiment: Experiment | None, command: Command) -> int:
    """Return the epoch of the experiment that the command names; -1 where another runs, or none."""
    return experiment.epoch if experiment and experiment.experiment_id == command.experiment_id else -1


def _wished_by_learner(command: Command, routes: Routes, find: Find) -> bool:
    """Whether the command may come without a revision: a learner asks as samples come, and looks at no routing."""
    if command.action != "shadow":
        return command.action == "succeed"
    version = find(command.model_id)
    return version is not None and bool(version.lineage) and relative_of(version, routes.routed, find) is None


def _promoted(version: ModelVersion, routes: Routes, find: Find) -> Routes:
    model_id = version.model_id
    if model_id == routes.champion:
        if not routes.held:
            raise PenstockError(f"model {model_id} is the champion already")
        return routes._replace(held=False)
    require_not_archived(version)
    if routes.experiment is not None and model_id not in routes.challengers:
        running = routes.experiment
        raise PenstockError(
            f"{running.kind} {running.experiment_id!r} runs, and model {model_id} is no variant of it; stop it first: "
            f"{how_to_stop(running)}"
        )
    relative = relative_of(version, routes.shadows, find)
    shadows = tuple(shadow for shadow in routes.shadows if shadow not in (model_id, relative))
    return Routes(model_id, shadows, previous=routes.champion or "")


def _rolled_back(command: Command, history: Sequence[Deployment], routes: Routes, find: Find) -> Routes:
    """Bring the previous champion back; what was before it when it last became champion is the one to go back to."""
    if not routes.previous:
        raise PenstockError(f"there is no previous champion to go back to; {_instead_of_going_back(routes.experiment)}")
    if command.model_id not in ("", routes.previous):
        raise PenstockError(
            f"the previous champion is {routes.previous}, not {command.model_id}: to serve that one, promote it"
        )
    version = registered(command, routes.previous, find)
    earlier = next((d.previous for d in reversed(history) if d.champion == routes.previous), "")
    relative = relative_of(version, routes.shadows, find)
    shadows = tuple(shadow for shadow in routes.shadows if shadow not in (routes.previous, relative))
    return Routes(routes.previous, shadows, previous=earlier, held=True)


def _instead_of_going_back(running: Experiment | None) -> str:
    if running is None:
        return "promote the model that should serve: penstock models promote MODEL_ID"
    return f"to end {running.kind} {running.experiment_id!r}, so that the champion serves all: {how_to_stop(running)}"


def _without_shadow(model_id: str, routes: Routes) -> Routes:
    if model_id not in routes.shadows:
        raise PenstockError(f"model {model_id!r} is no shadow; the shadows are: {', '.join(routes.shadows) or 'none'}")
    return routes._replace(shadows=tuple(shadow for shadow in routes.shadows if shadow != model_id))


def _with_shadow(version: ModelVersion, routes: Routes, find: Find) -> Routes:
    model_id = version.model_id
    if routes.champion is None:
        raise PenstockError("the stream has no champion yet, which a shadow could score beside: promote a model first")
    if model_id == routes.champion:
        raise PenstockError(f"model {model_id} is the champion, and scores every event already")
    if model_id in routes.shadows:
        raise PenstockError(f"model {model_id} is a shadow already")
    running = routes.experiment
    if running is not None and model_id in routes.challengers:
        raise PenstockError(f"model {model_id} is a variant of the {running.kind} that runs, and no shadow beside it")
    require_not_archived(version)
    relative = relative_of(version, routes.routed, find)
    if relative is not None and relative == routes.champion:
        raise PenstockError(f"the champion {relative} is of the same lineage as {model_id}: promote that in its place")
    if running is not None and relative is not None and relative in routes.challengers:
        raise PenstockError(
            f"the variant {relative} is of the same lineage as {model_id}; stop the {running.kind} first: "
            f"{how_to_stop(running)}"
        )
    if relative is not None:
        return _replaced(relative, model_id, routes)
    if len(routes.shadows) >= MAX_SHADOWS:
        raise PenstockError(
            f"the stream has {MAX_SHADOWS} shadows, and may not have more; end one first: penstock models unshadow ID"
        )
    return routes._replace(shadows=(*routes.shadows, model_id))


def _succeeded(version: ModelVersion, routes: Routes, find: Find) -> Routes:
    if not version.lineage:
        raise PenstockError(f"model {version.model_id} belongs to no lineage, so it can succeed no model: promote it")
    relative = relative_of(version, routes.routed, find)
    if relative is not None and _samples_offset(version.model_id, find) <= _samples_offset(relative, find):
        raise PenstockError(f"model {version.model_id} has learnt no further than {relative}, which is routed")
    if relative is None:  # it has learnt all that its founder had, and more
        relative = founder_of(version, routes.routed, find)
    if relative is None:
        raise PenstockError(f"no version of lineage {version.lineage!r} is champion, shadow or variant")
    require_not_archived(version)
    if routes.held and relative == routes.champion:
        raise PenstockError(
            f"the champion {relative} was brought back by a roll-back, and stays until a model is promoted: to let its "
            f"lineage go on, promote {version.model_id}, or {relative} itself"
        )
    return _replaced(relative, version.model_id, routes)


def _samples_offset(model_id: str, find: Find) -> int:
    version = find(model_id)
    return -1 if version is None or version.samples_offset is None else version.samples_offset


def _replaced(old: str, new: str, routes: Routes) -> Routes:
    """Return the routes with one model in the place of another; a champion becomes the previous one."""
    experiment = routes.experiment
    if experiment is not None:
        variants = tuple(
            msgspec.structs.replace(variant, model_id=new) if variant.model_id == old else variant
            for variant in experiment.variants
        )
        experiment = msgspec.structs.replace(experiment, variants=variants)
    shadows = tuple(new if shadow == old else shadow for shadow in routes.shadows)
    if routes.champion != old:
        return routes._replace(shadows=shadows, experiment=experiment)
    return Routes(new, shadows, previous=old, held=False, experiment=experiment)
