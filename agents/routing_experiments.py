"""The rules of experiments and rollouts: how one starts, gets other shares and ends, or why it may not."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from agents.routes import Find, Routes, how_to_stop, registered, relative_of, require_not_archived, require_running
from ml.experiments import assignment
from ml.experiments.monitor import MAX_EPOCHS
from schemas.errors import PenstockError
from schemas.events import Command, Deployment, ModelVersion
from schemas.experiments import CHAMPION, Experiment, ExperimentPlan, Variant

_LONGEST_NAME: Final = 256
_LONGEST_ID: Final = 200  # what a rollout asks for has it in a correlation id, with the epoch and the step
_NEAR: Final = 1e-9  # shares that are as near as this are the same


def started(command: Command, history: Sequence[Deployment], routes: Routes, find: Find, now_ms: int) -> Routes:
    """Return the routes with the experiment that the command asks for. Its variants' models are no shadows any more.

    Raises PenstockError with the reason when it may not start.
    """
    plan = command.plan
    if plan is None:
        raise PenstockError("a command to start must have a plan")
    if routes.champion is None:
        raise PenstockError("the stream has no champion yet to compare with: promote a model first")
    _require_new(command, history, routes)
    for name in command.variants:
        _require_name(name)
    shares = _shares_of(command, list(command.variants))
    versions = {name: registered(command, model_id, find) for name, model_id in command.variants.items()}
    for name, version in versions.items():
        _require_challenger(name, version, routes, find)
    _require_strangers(versions.values())
    _require_plan(plan, next(iter(versions.values())).task, [shares[name] for name in versions])
    counts = _counts(shares)
    _require_traffic(counts, counts)  # without the champion beside it, nothing could be found out about a challenger
    challengers = [Variant(name=name, model_id=versions[name].model_id, buckets=counts[name]) for name in versions]
    experiment = Experiment(
        experiment_id=command.experiment_id,
        kind="rollout" if plan.steps else "experiment",
        plan=plan,
        salt=f"{command.stream}/{command.experiment_id}",
        variants=(Variant(name=CHAMPION, model_id=routes.champion, buckets=counts[CHAMPION]), *challengers),
        table=assignment.initial_table(list(counts.values())),
        started_time_ms=now_ms,
        started_by=command.issued_by,
    )
    gone = {version.model_id for version in versions.values()}
    gone |= {relative_of(version, routes.shadows, find) or "" for version in versions.values()}
    shadows = tuple(shadow for shadow in routes.shadows if shadow not in gone)
    return routes._replace(shadows=shadows, experiment=experiment)


def reshared(command: Command, routes: Routes) -> Routes:
    """Return the routes with other shares: only the buckets move that must. Raises PenstockError with the reason."""
    running = require_running(command, routes)
    names = [variant.name for variant in running.variants[1:]]
    shares = _shares_of(command, names)
    if running.kind == "rollout" and not any(_same(shares[names[0]], step) for step in running.plan.steps):
        steps = ", ".join(map(_per_cent, running.plan.steps))
        raise PenstockError(
            f"the share {_per_cent(shares[names[0]])} is no step of this rollout; its steps are {steps}"
        )
    counts = _counts(shares)
    _require_traffic(counts, [name for name in names if shares[name] > 0])
    if list(counts.values()) == [variant.buckets for variant in running.variants]:
        raise PenstockError(f"{running.kind} {running.experiment_id!r} has these shares already")
    if running.epoch + 1 >= MAX_EPOCHS:
        raise PenstockError(
            f"the shares of {running.kind} {running.experiment_id!r} were changed {running.epoch} times, and cannot be "
            "changed again: stop it, and start another"
        )
    experiment = msgspec.structs.replace(
        running,
        epoch=running.epoch + 1,
        table=assignment.reshared(running.table, list(counts.values())),
        variants=tuple(msgspec.structs.replace(v, buckets=counts[v.name]) for v in running.variants),
    )
    return routes._replace(experiment=experiment)


def stopped(command: Command, routes: Routes) -> Routes:
    """Return the routes without the experiment: the champion serves all. Raises PenstockError with the reason."""
    require_running(command, routes)
    return routes._replace(experiment=None)


def _require_new(command: Command, history: Sequence[Deployment], routes: Routes) -> None:
    if not command.experiment_id:
        raise PenstockError("a command to start must name the experiment")
    if len(command.experiment_id) > _LONGEST_ID:
        raise PenstockError(
            f"the name of an experiment has {_LONGEST_ID} characters at most, not {len(command.experiment_id)}"
        )
    if routes.experiment is not None:
        running = routes.experiment
        raise PenstockError(
            f"{running.kind} {running.experiment_id!r} runs, and a stream has one at a time; stop it first: "
            f"{how_to_stop(running)}"
        )
    if any(d.experiment is not None and d.experiment.experiment_id == command.experiment_id for d in history):
        raise PenstockError(f"there was an experiment or rollout {command.experiment_id!r} before: choose another name")


def _shares_of(command: Command, names: Sequence[str]) -> dict[str, float]:
    """Return the shares of these variants, which are all but the champion, in their order."""
    if not names:
        raise PenstockError("an experiment needs a variant besides the champion")
    if CHAMPION in command.shares:
        raise PenstockError(f"the share of {CHAMPION!r} is not asked for: it has what the others leave")
    if missing := [name for name in names if name not in command.shares]:
        raise PenstockError(f"the share of {', '.join(map(repr, missing))} is missing")
    if unknown := sorted(command.shares.keys() - set(names)):
        raise PenstockError(f"there is no variant {', '.join(map(repr, unknown))}; the variants are {', '.join(names)}")
    shares = {name: command.shares[name] for name in names}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise PenstockError(f"the share of {name!r} is {_per_cent(share)}; it must be from 0 to 100 %")
    if (total := sum(shares.values())) > 1 + _NEAR:
        raise PenstockError(f"the shares of {', '.join(names)} add up to {_per_cent(total)}, which is more than 100 %")
    return shares


def _counts(shares: Mapping[str, float]) -> dict[str, int]:
    """Return the numbers of buckets, the champion's first."""
    rest = max(0.0, 1.0 - sum(shares.values()))
    return dict(zip((CHAMPION, *shares), assignment.bucket_counts([rest, *shares.values()]), strict=True))


def _require_traffic(counts: Mapping[str, int], names: Iterable[str]) -> None:
    for name in names:
        if counts[name] == 0:
            raise PenstockError(
                f"the share of {name!r} is less than one of {assignment.BUCKETS:,} buckets: it would get no traffic"
            )


def _require_name(name: str) -> None:
    if name == CHAMPION or not 0 < len(name) <= _LONGEST_NAME:
        raise PenstockError(f"a variant cannot be called {name[:_LONGEST_NAME]!r}: choose another name")


def _require_challenger(name: str, version: ModelVersion, routes: Routes, find: Find) -> None:
    require_not_archived(version)
    if version.model_id == routes.champion:
        raise PenstockError(f"model {version.model_id} is the champion: variant {name!r} needs another one")
    if routes.champion and relative_of(version, [routes.champion], find):
        raise PenstockError(
            f"model {version.model_id} of variant {name!r} is of the same lineage as the champion {routes.champion}, "
            "which a new version of it would replace: promote it"
        )


def _require_strangers(versions: Iterable[ModelVersion]) -> None:
    """Raise PenstockError when two variants have the same model, or models of one lineage."""
    seen: dict[str, str] = {}
    for version in versions:
        for key in {f"model {version.model_id}", f"lineage {version.lineage}"} - {"lineage "}:
            if key in seen:
                raise PenstockError(f"two variants have {key}: each needs its own")
            seen[key] = version.model_id


def _require_plan(plan: ExperimentPlan, task: str, shares: Sequence[float]) -> None:
    wanted = (plan.metric, *plan.guard_metrics)
    if task == "anomaly" and (bad := [metric for metric in wanted if metric in ("brier", "log_loss")]):
        raise PenstockError(f"{bad[0]} needs probabilities, which a stream of anomaly scores does not have")
    if task == "multiclass" and "cost" in wanted:
        raise PenstockError("cost is of false positives and negatives, which a stream of several classes does not have")
    if not plan.steps:
        return
    if len(shares) != 1:
        raise PenstockError(f"a rollout has one variant besides the champion, not {len(shares)}")
    if len(plan.steps) > MAX_EPOCHS:
        raise PenstockError(f"a rollout has {MAX_EPOCHS} steps at most, not {len(plan.steps)}")
    if any(later <= earlier for earlier, later in pairwise(plan.steps)):
        raise PenstockError("the steps of a rollout must rise")
    if not _same(shares[0], plan.steps[0]):
        raise PenstockError(
            f"a rollout starts at its first step, {_per_cent(plan.steps[0])}, not at {_per_cent(shares[0])}"
        )


def _per_cent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _same(share: float, other: float) -> bool:
    return abs(share - other) <= _NEAR
