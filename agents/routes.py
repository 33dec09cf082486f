"""Where a stream's events go: the routing that a deployment carries, and what is asked of it. Pure functions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from schemas.errors import PenstockError
from schemas.events import Command, Deployment, ModelVersion
from schemas.experiments import Experiment

Find = Callable[[str], ModelVersion | None]
"""Finds a registered version by its id."""


class Routes(NamedTuple):
    """The champion (None before the first), the shadows, oldest first, and the experiment. See Deployment.

    At most one version of a lineage is routed to, so that a figure for a lineage is always of one model.
    """

    champion: str | None
    shadows: tuple[str, ...] = ()
    previous: str = ""
    held: bool = False
    experiment: Experiment | None = None

    @property
    def challengers(self) -> tuple[str, ...]:
        """The models of the experiment's variants, without the champion's."""
        return tuple(variant.model_id for variant in self.experiment.variants[1:]) if self.experiment else ()

    @property
    def routed(self) -> tuple[str, ...]:
        """Every model that an event may go to, the champion first, each once."""
        return (*((self.champion,) if self.champion else ()), *self.shadows, *self.challengers)


def routes_of(history: Sequence[Deployment]) -> Routes:
    """Return the routes of the newest deployment."""
    if not history:
        return Routes(None)
    newest = history[-1]
    return Routes(newest.champion, newest.shadows, newest.previous, newest.held, newest.experiment)


def require_expected(command: Command, routes: Routes, revision: int, find: Find) -> None:
    """Raise PenstockError unless the command names the revision, epoch or champion that it expects, and that is so."""
    of_experiment = bool(command.experiment_id) and command.expected_epoch is not None
    if command.expected_revision is None and command.expected_champion is None and not of_experiment:
        raise PenstockError(f"a command to {command.action} must name the revision that it expects: it is {revision}")
    if command.expected_revision not in (None, revision):
        raise PenstockError(
            f"the routing is at revision {revision}, not at {command.expected_revision} as the command "
            "expects: look at it again and send a new command"
        )
    if command.expected_champion is not None:
        _require_champion(command, command.expected_champion, routes, find)
    if command.expected_epoch is not None:
        running = require_running(command, routes)
        if running.epoch != command.expected_epoch:
            raise PenstockError(
                f"{running.kind} {running.experiment_id!r} is at epoch {running.epoch}, not at "
                f"{command.expected_epoch} as the command expects: look at it again and send a new command"
            )


def _require_champion(command: Command, expected: str, routes: Routes, find: Find) -> None:
    """Raise PenstockError unless this model, or a newer version of its lineage, serves, and may be replaced."""
    if routes.held and command.action != "shadow":
        raise PenstockError(
            f"champion {routes.champion} was brought back by a roll-back, and stays until a person promotes another"
        )
    same = (
        routes.champion is not None
        and bool(_lineage(expected, find))
        and (_lineage(expected, find) == _lineage(routes.champion, find))
    )
    if (routes.champion or "") != expected and not same:
        raise PenstockError(
            f"{routes.champion or 'no model'} serves, and not {expected or 'none'} as the command expects: look at it "
            "again and send a new command"
        )


def require_running(command: Command, routes: Routes) -> Experiment:
    """Return the experiment that the command names. Raises PenstockError unless that is the one that runs."""
    if not command.experiment_id:
        raise PenstockError(f"a command to {command.action} must name the experiment")
    running = routes.experiment
    if running is None:
        raise PenstockError(f"experiment {command.experiment_id!r} does not run; no experiment or rollout does")
    if running.experiment_id != command.experiment_id:
        raise PenstockError(
            f"experiment {command.experiment_id!r} does not run; what does is {running.kind} {running.experiment_id!r}"
        )
    return running


def how_to_stop(running: Experiment) -> str:
    """Return the command that ends an experiment or rollout."""
    if running.kind == "rollout":
        return "penstock rollouts stop"
    return f"penstock experiments stop {running.experiment_id}"


def registered(command: Command, model_id: str, find: Find) -> ModelVersion:
    """Return the version with this id. Raises PenstockError when there is none."""
    if not model_id:
        raise PenstockError(f"a command to {command.action} must name a model")
    version = find(model_id)
    if version is None:
        raise PenstockError(f"no model {model_id!r} is registered in stream {command.stream!r}")
    return version


def require_not_archived(version: ModelVersion) -> None:
    """Raise PenstockError when the version was put away; a pruned one cannot even be restored."""
    if version.pruned:
        raise PenstockError(f"model {version.model_id} was pruned: its file was deleted; choose another version")
    if version.status == "archived":
        raise PenstockError(
            f"model {version.model_id} is archived; restore it first: penstock models move {version.model_id} staging"
        )


def relative_of(version: ModelVersion, routed: Sequence[str], find: Find) -> str | None:
    """Return the first of the models `routed` that is of the version's lineage, if any; it may be the version."""
    return next((other for other in routed if version.lineage and _lineage(other, find) == version.lineage), None)


def founder_of(version: ModelVersion, routed: Sequence[str], find: Find) -> str | None:
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
    return oldest.model_id if oldest is not None and oldest.model_id in routed else None


def _lineage(model_id: str, find: Find) -> str:
    version = find(model_id)
    return version.lineage if version is not None else ""
