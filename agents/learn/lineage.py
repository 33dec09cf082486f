"""What is known of one lineage: its versions, and where they are or were routed.

The registry's view shows what is committed, a moment late. What the learner itself wrote since is added to it, so that
a version has its parent, and nothing is pruned twice, however many snapshots go into one commit.
"""

from collections.abc import Collection, Iterable
from typing import Final

from agents.registry import merged
from agents.routes import routes_of
from schemas.events import Deployment, ModelVersion
from stream.views import LogView

REMEMBERED_PRUNED = 32  # whose files are looked for again when a learner opens
_SENDER: Final = "learner "


def model_id_of(lineage: str, samples_offset: int) -> str:
    """Return the id of the snapshot that has learnt all samples before `samples_offset`."""
    return f"{lineage}@{samples_offset}"


def sender_of(lineage: str) -> str:
    """Return what a learner calls itself where it registers a version, or asks control for something."""
    return f"{_SENDER}{lineage}"


def is_learner(sender: str) -> bool:
    """Whether `sender` is one that `sender_of` gives for some lineage."""
    return sender.startswith(_SENDER)


def is_snapshot(lineage: str, model_id: str) -> bool:
    """Whether `model_id` is one that `model_id_of` gives for the lineage."""
    name, _, offset = model_id.rpartition("@")
    return name == lineage and offset.isdigit()


class Lineage:
    """The versions called `<name>@<offset>`, and `start_from`, if they came from it. `founders` are never to be pruned.

    Reads only what is new in the views: about 1 µs per record.
    """

    def __init__(
        self,
        name: str,
        start_from: str | None,
        founders: Collection[str],
        models: LogView[ModelVersion],
        deployments: LogView[Deployment],
    ) -> None:
        self._name = name
        self._start_from = start_from
        self._founders = frozenset(founders)
        self._models = models
        self._deployments = deployments
        self.reset()

    def reset(self) -> None:
        """Forget what was written and perhaps not committed."""
        self._models_read = 0
        self._deployments_read = 0
        self._versions: dict[str, ModelVersion] = {}
        self._alive: dict[str, ModelVersion] = {}
        self._pruned: set[str] = set()  # by us, and not seen in the view yet
        self._served: set[str] = set()
        self._removable: dict[str, ModelVersion] = {}
        self._was_routed = False

    def note(self, version: ModelVersion) -> None:
        """Take into account what the learner writes."""
        self._catch_up()
        version = self._merge(version)
        if version.pruned:
            self._pruned.add(version.model_id)
            self._alive.pop(version.model_id, None)
        else:
            self._alive[version.model_id] = version

    @property
    def versions(self) -> Iterable[ModelVersion]:
        """Every version of the stream, of whatever lineage."""
        self._catch_up()
        return self._versions.values()

    def find(self, model_id: str) -> ModelVersion | None:
        """Return a version of the stream, or None when nobody registered it."""
        self._catch_up()
        return self._versions.get(model_id)

    @property
    def revision(self) -> int:
        """The newest deployment's revision; 0 before the first."""
        return self._deployments.events[-1].revision if self._deployments.events else 0

    @property
    def newest(self) -> str | None:
        """The id of the newest version, or of what the lineage starts from."""
        self._catch_up()
        own = self._own()
        return own[-1].model_id if own else self._start_from

    @property
    def is_routed(self) -> bool:
        """Whether a version, or the one that the lineage starts from, is champion, shadow or variant by now."""
        return any(map(self._is_ours, self._routed()))

    @property
    def was_routed(self) -> bool:
        """Whether one was at any time."""
        self._catch_up()
        return self._was_routed

    def to_prune(self, keep: int) -> list[ModelVersion]:
        """Return the versions that never served and will not be asked for, but the newest `keep` of them.

        One that serves, or did, as champion or variant, is needed to explain its predictions; one in staging was set
        aside by a person. While the lineage is routed, versions newer than the one in use may be waiting for control's
        decision. It lets none of them follow a champion that was brought back by a roll-back.
        """
        self._catch_up()
        needed, awaited = self._needed() | self._served | self._founders, self._routed() - self._held()
        in_use = max((v.samples_offset or 0 for v in self._own() if v.model_id in awaited), default=None)
        spare = [
            version
            for version in self._own()
            if version.model_id not in needed
            and version.status != "staging"
            and (in_use is None or version.status == "archived" or (version.samples_offset or 0) < in_use)
        ]
        return spare[:-keep]

    def to_remove(self) -> list[ModelVersion]:
        """Return, once each, the versions whose files can go: the log says that they are pruned.

        Before that is committed a crash would leave a version without its file, and an owner that was fenced while it
        slept must decide nothing. One that is routed all the same keeps its file.
        """
        self._catch_up()
        needed, removable = self._needed(), list(self._removable.values())
        self._removable = {}
        return [v for v in removable if v.model_id not in needed and not self._shared(v)]

    def _shared(self, version: ModelVersion) -> bool:
        """Whether another version that is not pruned has the same bytes."""
        return any(v.sha256 == version.sha256 and v.model_id != version.model_id for v in self._alive.values())

    def _own(self) -> list[ModelVersion]:
        own = [version for version in self._alive.values() if version.lineage == self._name]
        return sorted(own, key=lambda version: version.samples_offset or 0)

    def _routed(self) -> set[str]:
        return set(routes_of(self._deployments.events[-1:]).routed)

    def _needed(self) -> set[str]:
        """Return what is routed to, or would be after a roll-back."""
        return self._routed() | {routes_of(self._deployments.events[-1:]).previous}

    def _held(self) -> set[str]:
        """Return the champion that no other version may follow by itself, if it is held."""
        newest = self._deployments.events[-1:]
        return {deployment.champion for deployment in newest if deployment.held}

    def _is_ours(self, model_id: str) -> bool:
        return model_id == self._start_from or is_snapshot(self._name, model_id)

    def _catch_up(self) -> None:
        models, self._models_read = self._models.events[self._models_read :], len(self._models.events)
        for record in models:
            version = self._merge(record)
            if record.pruned:
                self._pruned.discard(version.model_id)
                if version.lineage == self._name:
                    self._removable[version.model_id] = version
            if version.pruned:
                self._alive.pop(version.model_id, None)
            elif version.model_id not in self._pruned:
                self._alive[version.model_id] = version
        for model_id in list(self._removable)[:-REMEMBERED_PRUNED]:
            del self._removable[model_id]
        new, self._deployments_read = self._deployments.events[self._deployments_read :], len(self._deployments.events)
        for deployment in new:
            routes = routes_of([deployment])
            self._served.update((deployment.champion, *routes.challengers))
            self._was_routed = self._was_routed or any(map(self._is_ours, routes.routed))

    def _merge(self, record: ModelVersion) -> ModelVersion:
        """Fold a record of the registry; return what is known of its version now."""
        known = self._versions.get(record.model_id)
        version = self._versions[record.model_id] = record if known is None else merged(known, record)
        return version
