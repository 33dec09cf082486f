"""Who should have served whom: predictions held against the bucket tables of the deployments they name.

Of the product's code only the hash of an entity is used; the tables are read as they stand in the log.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from benchmarks.checker import Place
from ml.experiments.assignment import buckets_of
from schemas.events import Deployment
from schemas.experiments import BUCKETS, CHAMPION, Experiment

MAX_Z: Final = 4.0


class Seen(NamedTuple):
    """A prediction, as a reader of the predictions topic saw it; those of an entity are in the order of its log."""

    event_id: str
    entity_id: str
    place: Place
    revision: int
    variant: str
    model_id: str


class Arm(NamedTuple):
    """The variant of a prediction, and the model that made it."""

    variant: str
    model_id: str


class Hashes:
    """The bucket of each entity, for each salt."""

    def __init__(self, entities: Sequence[str]) -> None:
        self._entities = entities
        self._keys = [entity.encode() for entity in entities]
        self._known: dict[str, dict[str, int]] = {}

    def buckets(self, salt: str) -> dict[str, int]:
        """Return the bucket of every entity."""
        if salt not in self._known:
            found = buckets_of(self._keys, salt).tolist()
            self._known[salt] = dict(zip(self._entities, found, strict=True))
        return self._known[salt]


class Routing:
    """What each deployment gives each entity."""

    def __init__(self, deployments: Sequence[Deployment], entities: Sequence[str]) -> None:
        self.hashes = Hashes(entities)
        self.deployments = {deployment.revision: deployment for deployment in deployments}
        self._variants = {
            revision: variants_by_bucket(deployment.experiment)
            for revision, deployment in self.deployments.items()
            if deployment.experiment is not None and is_table(deployment.experiment)
        }

    def arm(self, revision: int, entity_id: str) -> Arm | None:
        """Return what an entity is given at a revision; None when there is no such revision, or it has no table."""
        deployment = self.deployments.get(revision)
        if deployment is None:
            return None
        experiment = deployment.experiment
        if experiment is None:
            return Arm(CHAMPION, deployment.champion)
        if revision not in self._variants:
            return None
        variant = experiment.variants[self._variants[revision][self.hashes.buckets(experiment.salt)[entity_id]]]
        return Arm(variant.name, variant.model_id)


@dataclass(frozen=True)
class Assigned:
    """How the predictions match the tables; all are numbers of predictions.

    `misassigned` have another variant than the table says, `other_model` the right variant and not its model,
    `unknown_revision` a deployment that does not exist, `older_routing` an older one than a prediction before on the
    same partition. `moved_wrongly` take an entity from the challenger while the challenger's share rises or stays.
    """

    misassigned: int = 0
    other_model: int = 0
    unknown_revision: int = 0
    older_routing: int = 0
    moved_wrongly: int = 0

    @property
    def right(self) -> bool:
        """Whether there is none of them."""
        return not any(asdict(self).values())

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


def assigned(routing: Routing, seen: Sequence[Seen]) -> Assigned:
    """Hold every prediction against the deployment that it names. About 1 µs per prediction."""
    flaws: Counter[str] = Counter()
    newest: dict[int, int] = {}
    cached: dict[tuple[int, str], Arm | None] = {}
    for one in seen:
        at = one.revision, one.entity_id
        if at not in cached:
            cached[at] = routing.arm(*at)
        arm = cached[at]
        if arm is None:
            flaws["unknown_revision"] += 1
        elif one.variant != arm.variant:
            flaws["misassigned"] += 1
        elif one.model_id != arm.model_id:
            flaws["other_model"] += 1
        flaws["older_routing"] += one.revision < newest.get(one.place.partition, 0)
        newest[one.place.partition] = max(one.revision, newest.get(one.place.partition, 0))
    return Assigned(**flaws, moved_wrongly=_moved_wrongly(routing, seen))


def _moved_wrongly(routing: Routing, seen: Sequence[Seen]) -> int:
    """Count predictions by the champion for entities that the same experiment's challenger has served before.

    It does not ask the tables who should have; a challenger whose share shrinks may lose entities.
    """
    counts = _shrinks(list(routing.deployments.values()))
    served: dict[str, tuple[str, int]] = {}  # by entity: the experiment, and how often a share had shrunk in it
    moved = 0
    for one in seen:
        deployment = routing.deployments.get(one.revision)
        if deployment is None or deployment.experiment is None:
            continue
        phase = deployment.experiment.experiment_id, counts[one.revision]
        if one.variant != CHAMPION:
            served[one.entity_id] = phase
        else:
            moved += served.get(one.entity_id) == phase
    return moved


def _shrinks(deployments: Sequence[Deployment]) -> dict[int, int]:
    """Return by revision how often a challenger's share has shrunk by then."""
    counts, shrunk = {}, 0
    for before, after in pairwise([None, *deployments]):
        assert after is not None
        old = _shares_of(before.experiment if before else None)
        new = _shares_of(after.experiment)
        shrunk += any(new.get(name, 0) < count for name, count in old.items() if name != CHAMPION)
        counts[after.revision] = shrunk
    return counts


def _shares_of(experiment: Experiment | None) -> dict[str, int]:
    return {variant.name: variant.buckets for variant in experiment.variants} if experiment else {}


def variants_by_bucket(experiment: Experiment) -> list[int]:
    """Return the position of each bucket's variant."""
    return [position for position, count in experiment.table for _ in range(count)]


def is_table(experiment: Experiment) -> bool:
    """Whether the table gives each bucket to a variant that there is."""
    positions = range(len(experiment.variants))
    taken = sum(count for _, count in experiment.table) == BUCKETS
    return taken and all(position in positions and count > 0 for position, count in experiment.table)


def table_flaws(deployments: Sequence[Deployment]) -> list[str]:
    """Return a sentence for each table that is not what the shares say, or that moves more buckets than it must."""
    found = []
    for before, after in pairwise([None, *deployments]):
        assert after is not None
        if after.experiment is None:
            continue
        where = f"revision {after.revision}"
        if not is_table(after.experiment):
            found.append(f"{where}: the table does not give each of {BUCKETS} buckets to a variant")
            continue
        counts = Counter(variants_by_bucket(after.experiment))
        if any(counts[i] != variant.buckets for i, variant in enumerate(after.experiment.variants)):
            found.append(f"{where}: the table does not give the variants the buckets that they have")
        old = before.experiment if before else None
        if old is not None and old.experiment_id == after.experiment.experiment_id and is_table(old):
            found += [f"{where}: {flaw}" for flaw in _change_flaws(old, after.experiment)]
    return found


def _change_flaws(old: Experiment, new: Experiment) -> list[str]:
    found = []
    if new.salt != old.salt or [v.name for v in new.variants] != [v.name for v in old.variants]:
        found.append("the salt or the variants' names have changed during the experiment")
    pairs = list(zip(variants_by_bucket(old), variants_by_bucket(new), strict=True))
    must = sum(max(0, after.buckets - before.buckets) for before, after in zip(old.variants, new.variants, strict=True))
    moved = sum(before != after for before, after in pairs)
    if moved != must:
        found.append(f"{moved} buckets have moved, and {must} had to")
    changed = [after.buckets - before.buckets for before, after in zip(old.variants, new.variants, strict=True)]
    if any(before != after and (changed[before] >= 0 or changed[after] <= 0) for before, after in pairs):
        found.append("a bucket has moved from a variant that does not shrink, or to one that does not grow")
    return found


class EpochShare(NamedTuple):
    """What part of an epoch's events the challenger served; `z` says how far it is from the share asked for.

    In standard deviations, as they would be if the challenger's buckets were drawn at random.
    """

    model_id: str
    epoch: int
    asked: float
    observed: float
    z: float
    events: int
    entities: int

    @property
    def right(self) -> bool:
        """Whether the share is within sampling error of the one asked for."""
        return abs(self.z) < MAX_Z


def shares(routing: Routing, seen: Sequence[Seen], asked: Mapping[int, float]) -> list[EpochShare]:
    """Return the challenger's share in each deployment with an experiment; `asked` gives what it should be.

    The bucket is what is drawn, and its events come along: k of B buckets without replacement hold k/B of the events,
    with a variance of k (1 - k/B) S², S² being that of the number of events in a bucket (Cochran 1977, section 2.5).
    """
    by_revision: dict[int, list[Seen]] = {}
    for one in seen:
        by_revision.setdefault(one.revision, []).append(one)
    found = []
    for revision, deployment in routing.deployments.items():
        if deployment.experiment is not None:
            events = by_revision.get(revision, [])
            buckets = routing.hashes.buckets(deployment.experiment.salt)
            found.append(_share(deployment.experiment, events, buckets, asked.get(revision, math.nan)))
    return found


def _share(experiment: Experiment, events: Sequence[Seen], buckets: Mapping[str, int], asked: float) -> EpochShare:
    of_bucket = Counter(buckets[one.entity_id] for one in events)
    taken = sum(one.variant != CHAMPION for one in events)
    mean = len(events) / BUCKETS
    squares = sum((n - mean) ** 2 for n in of_bucket.values()) + (BUCKETS - len(of_bucket)) * mean**2
    deviation = math.sqrt(asked * BUCKETS * (1 - asked) * squares / (BUCKETS - 1))
    off = taken - asked * len(events)
    if not events or math.isnan(deviation):
        z = math.nan
    else:
        z = off / deviation if deviation else (0.0 if off == 0 else math.inf)
    observed = taken / len(events) if events else math.nan
    entities = len({one.entity_id for one in events})
    (challenger,) = (variant for variant in experiment.variants if variant.name != CHAMPION)
    return EpochShare(challenger.model_id, experiment.epoch, asked, observed, z, len(events), entities)
