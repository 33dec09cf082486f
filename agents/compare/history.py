"""What each deployment of a stream routed, by its revision: which experiment, which epoch, which shadows."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ml.experiments.assignment import expanded
from schemas.events import Deployment
from stream.views import LogView


class History:
    """The deployments up to the last `refresh`. So nothing changes while a batch is worked on."""

    def __init__(self, deployments: LogView[Deployment]) -> None:
        self._view = deployments
        self._history: list[Deployment] = []

    @property
    def newest(self) -> Deployment | None:
        """The deployment in force."""
        return self._history[-1] if self._history else None

    def refresh(self) -> bool:
        """Take over what is new in the view; return whether there is anything."""
        new = self._view.events[len(self._history) :]
        self._history += new
        return bool(new)

    def reach(self, revision: int) -> bool:
        """Whether a deployment of `revision` would be known: it is, or it is older than the newest and never was."""
        return bool(self._history) and revision <= self._history[-1].revision

    def newest_of(self, experiment_id: str) -> Deployment | None:
        """Return the last deployment of an experiment, None when there is none."""
        return next(iter(reversed(self._of(experiment_id))), None)

    def epochs(self, experiment_id: str) -> dict[int, int]:
        """Return the epoch of the experiment at each revision that has it."""
        return {found.revision: found.experiment.epoch for found in self._of(experiment_id) if found.experiment}

    def tables(self, experiment_id: str) -> list[NDArray[np.int16]]:
        """Return the expanded bucket table of each epoch up to the newest, each of shape (10_000,).

        A record that cannot be read is skipped by every view, so an epoch may be missing. Nobody was served by it then,
        and the newest table stands in its place.
        """
        found = {one.experiment.epoch: one.experiment.table for one in self._of(experiment_id) if one.experiment}
        newest = max(found)
        return [expanded(found.get(epoch, found[newest])) for epoch in range(newest + 1)]

    def shadows(self) -> Mapping[str, int]:
        """Return since which revision each of the newest deployment's shadows has stood beside the same champion."""
        if self.newest is None:
            return {}
        since = dict.fromkeys(self.newest.shadows, self.newest.revision)
        going_on = set(since)
        for earlier in reversed(self._history):
            going_on &= set(earlier.shadows)
            if earlier.champion != self.newest.champion or not going_on:
                break
            since.update(dict.fromkeys(going_on, earlier.revision))
        return since

    def _of(self, experiment_id: str) -> list[Deployment]:
        return [one for one in self._history if one.experiment and one.experiment.experiment_id == experiment_id]
