"""The baselines that windows are measured against, kept at hand."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from agents.baselines import require_columns
from ml.drift.baseline import Baseline
from schemas.errors import FatalError, PenstockError, RetryableError
from schemas.streams import StreamSpec

MAX_KEPT: Final = 8

OpenBaseline = Callable[[str], Awaitable[tuple[Baseline, frozenset[str]]]]
"""Opens the baseline with this SHA-256, and tells the ids of the models whose own it is.

A PenstockError that cannot pass means that there is none to be had.
"""

log = logging.getLogger("penstock.judge")


@dataclass(frozen=True, slots=True)
class Reference:
    """A baseline by its SHA-256, or the `problem` that keeps it from being used.

    `owners` are the ids of the models that it was made for: of others only the features can be held against it.
    """

    sha256: str
    baseline: Baseline | None
    problem: str = ""
    owners: frozenset[str] = frozenset()


class References:
    """Opens each baseline once, and keeps the MAX_KEPT that were asked for last."""

    def __init__(self, spec: StreamSpec, open_baseline: OpenBaseline) -> None:
        self._spec = spec
        self._open = open_baseline
        self._kept: dict[str, Reference] = {}

    async def get(self, sha256: str) -> Reference:
        """Return the reference. Raises what the store raises when it does not answer: RetryableError, FatalError."""
        reference = self._kept.pop(sha256, None) or await self._opened(sha256)
        self._kept[sha256] = reference
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return reference

    def forget(self, sha256: str) -> None:
        """Open it anew when it is asked for again."""
        self._kept.pop(sha256, None)

    async def _opened(self, sha256: str) -> Reference:
        try:
            baseline, owners = await self._open(sha256)
            require_columns(self._spec, baseline)
        except (RetryableError, FatalError):
            raise
        except PenstockError as error:
            log.warning("stream %s: the baseline %s cannot be used: %s", self._spec.name, sha256[:12], error)
            return Reference(sha256, None, str(error))
        return Reference(sha256, baseline, owners=owners)
