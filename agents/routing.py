"""The rules of routing: what a command makes of a stream's routing, or why it may not. Pure functions."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from schemas.errors import PenstockError
from schemas.events import Command, Deployment, ModelVersion

MAX_SHADOWS: Final = 8  # each one takes as long as the champion to score a batch

Find = Callable[[str], ModelVersion | None]
"""Finds a registered version by its id."""


class Routes(NamedTuple):
    """Where a stream's events go: the champion (None before the first) and the shadows, oldest first.

    At most one version of a lineage is among them, so that a figure for a lineage is always of one model.
    """

    champion: str | None
    shadows: tuple[str, ...]


def routes_of(history: Sequence[Deployment]) -> Routes:
    """Return the routes of the newest deployment."""
    return Routes(history[-1].champion, history[-1].shadows) if history else Routes(None, ())


def rerouted(command: Command, history: Sequence[Deployment], find: Find) -> Routes:
    """Return the routes after `command`. Raises PenstockError with the reason when it may not be carried out."""
    routes = routes_of(history)
    revision = history[-1].revision if history else 0
    if command.action == "unshadow":
        _check_revision(command, revision)
        return _without_shadow(command.model_id, routes)
    version = find(command.model_id)
    if version is None:
        raise PenstockError(f"no model {command.model_id!r} is registered in stream {command.stream!r}")
    relative = _relative(version, routes, find)
    wished_by_learner = command.action == "succeed" or (command.action == "shadow" and version.lineage and not relative)
    if command.expected_revision is not None or not wished_by_learner:
        _check_revision(command, revision)
    if command.action == "promote":
        return Routes(version.model_id, tuple(s for s in routes.shadows if s not in (version.model_id, relative)))
    if command.action == "shadow":
        return _with_shadow(version.model_id, relative, routes)
    return _succeeded(version, relative, routes, find)


def was_done(command: Command, history: Sequence[Deployment]) -> bool:
    """Return whether this very command was carried out: its deployment is there, and did what it asks for."""
    model_id = command.model_id
    for before, after in pairwise([None, *history]):
        if after is None or after.correlation_id != command.correlation_id:
            continue
        done = {
            "promote": after.champion == model_id,
            "shadow": model_id in after.shadows,
            "unshadow": before is not None and model_id in before.shadows and model_id not in after.shadows,
            "succeed": model_id in (after.champion, *after.shadows),
        }
        if done[command.action]:
            return True
    return False


def _check_revision(command: Command, revision: int) -> None:
    if command.expected_revision is None:
        raise PenstockError(f"a command to {command.action} must name the revision that it expects: it is {revision}")
    if command.expected_revision != revision:
        raise PenstockError(
            f"the routing is at revision {revision}, not at {command.expected_revision} as the command "
            "expects: look at it again and send a new command"
        )


def _relative(version: ModelVersion, routes: Routes, find: Find) -> str | None:
    """Return the version of the same lineage that is routed, if any; it may be `version` itself."""
    routed = [model_id for model_id in (routes.champion, *routes.shadows) if model_id]
    return next((other for other in routed if version.lineage and _lineage(other, find) == version.lineage), None)


def _founder(version: ModelVersion, routes: Routes, find: Find) -> str | None:
    """Return the model that a learner started the lineage of `version` from, if that very model is routed.

    It may be of a lineage of its own: then a newer version of that lineage is no founder of this one.
    """
    seen = {version.model_id}
    oldest: ModelVersion | None = version
    while oldest is not None and oldest.lineage == version.lineage:
        if oldest.parent is None or oldest.parent in seen:
            return None
        seen.add(oldest.parent)
        oldest = find(oldest.parent)
    if oldest is None or oldest.model_id not in (routes.champion, *routes.shadows):
        return None
    return oldest.model_id


def _lineage(model_id: str, find: Find) -> str:
    version = find(model_id)
    return version.lineage if version is not None else ""


def _without_shadow(model_id: str, routes: Routes) -> Routes:
    if model_id not in routes.shadows:
        raise PenstockError(f"model {model_id!r} is no shadow; the shadows are: {', '.join(routes.shadows) or 'none'}")
    return Routes(routes.champion, tuple(shadow for shadow in routes.shadows if shadow != model_id))


def _with_shadow(model_id: str, relative: str | None, routes: Routes) -> Routes:
    if routes.champion is None:
        raise PenstockError("the stream has no champion yet, which a shadow could score beside: promote a model first")
    if model_id == routes.champion:
        raise PenstockError(f"model {model_id} is the champion, and scores every event already")
    if model_id in routes.shadows:
        raise PenstockError(f"model {model_id} is a shadow already")
    if relative is not None and relative == routes.champion:
        raise PenstockError(f"the champion {relative} is of the same lineage as {model_id}: promote that in its place")
    if relative is not None:
        return _replaced(relative, model_id, routes)
    if len(routes.shadows) >= MAX_SHADOWS:
        raise PenstockError(f"the stream has {MAX_SHADOWS} shadows, and may not have more: unshadow one first")
    return Routes(routes.champion, (*routes.shadows, model_id))


def _succeeded(version: ModelVersion, relative: str | None, routes: Routes, find: Find) -> Routes:
    if not version.lineage:
        raise PenstockError(f"model {version.model_id} belongs to no lineage, so it can succeed no model: promote it")
    if relative is None:
        founder = _founder(version, routes, find)
        if founder is None:
            raise PenstockError(f"no version of lineage {version.lineage!r} is champion or shadow")
        return _replaced(founder, version.model_id, routes)  # it has learnt all that its founder had, and more
    if _samples_offset(version.model_id, find) <= _samples_offset(relative, find):
        raise PenstockError(f"model {version.model_id} has learnt no further than {relative}, which is routed")
    return _replaced(relative, version.model_id, routes)


def _samples_offset(model_id: str, find: Find) -> int:
    version = find(model_id)
    return -1 if version is None or version.samples_offset is None else version.samples_offset


def _replaced(old: str, new: str, routes: Routes) -> Routes:
    shadows = tuple(new if shadow == old else shadow for shadow in routes.shadows)
    return Routes(new if routes.champion == old else routes.champion, shadows)
