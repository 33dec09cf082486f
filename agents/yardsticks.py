"""The yardsticks of one stream: what is counted against the baseline of its champion, opened once."""

import asyncio
from typing import Final

from agents.baselines import Ancestry, BaselineUnusable, OpenBaseline, Yardstick, require_columns
from agents.unusable import Complaints
from ml.drift.counting import Counter
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from stream.views import LogView

BASELINE_S: Final = 10.0  # nothing waits longer for a baseline


class Yardsticks:
    """Finds the baseline that counts for a champion, and opens it. One that is not for this stream is opened once.

    Two are kept: the champion's, and that of what a roll-back would bring back.
    """

    def __init__(
        self, spec: StreamSpec, models: LogView[ModelVersion], open_baseline: OpenBaseline, complaints: Complaints
    ) -> None:
        self._spec = spec
        self._open_baseline = open_baseline
        self._complaints = complaints
        self._ancestry = Ancestry(models)
        self._looked_up = ("", "")  # a champion, and the SHA-256 of the baseline that counts for it
        self._given_up = ("", "")  # the same, of a baseline that will never be of use
        self._in_use: Yardstick | None = None
        self._spare: Yardstick | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether a new record says that the champion has a baseline, or another one."""
        model_id, sha256 = self._looked_up
        source = self._ancestry.baseline_of(model_id)
        return source is not None and source.baseline != sha256

    def at_hand(self, champion: ModelVersion) -> Yardstick | None:
        """Return the champion's if it is open."""
        source = self._look_up(champion)
        return self._known(source.baseline) if source is not None else None

    def has_its_own(self, champion: ModelVersion, yardstick: Yardstick | None) -> bool:
        """Tell whether it has one, or nothing would come of trying again."""
        if yardstick is not None or self._looked_up == self._given_up:
            return True
        return self._ancestry.baseline_of(champion.model_id) is None

    async def get(self, champion: ModelVersion) -> Yardstick | None:
        """Return the champion's; None without a baseline that can be used, which is told."""
        source = self._look_up(champion)
        if source is None or self._looked_up == self._given_up:
            return None
        if (known := self._known(source.baseline)) is None:
            known = await self._opened_or_told(champion, source)
        self._in_use = known
        return known

    async def get_spare(self, model_id: str) -> None:
        """Open the baseline of what a roll-back would bring back. Raises whatever is wrong with it."""
        source = self._ancestry.baseline_of(model_id)
        if source is not None and self._known(source.baseline) is None:
            self._spare = await self._open(source)

    async def _opened_or_told(self, champion: ModelVersion, source: ModelVersion) -> Yardstick | None:
        try:
            return await self._open(source)
        except TimeoutError:
            error: Exception = PenstockError(f"the model store did not give it within {BASELINE_S:g} s")
        except Exception as raised:  # noqa: BLE001  # whatever is wrong with a baseline, scoring goes on
            error = raised if isinstance(raised, PenstockError) else PenstockError(f"{type(raised).__name__}: {raised}")
        told = await self._complaints.of_baseline(champion, source, error)
        if told and isinstance(error, BaselineUnusable):
            self._given_up = (champion.model_id, source.baseline)
        return None

    def _look_up(self, champion: ModelVersion) -> ModelVersion | None:
        """Return the version whose baseline counts for the champion by now, if there is one."""
        source = self._ancestry.baseline_of(champion.model_id)
        self._looked_up = (champion.model_id, source.baseline if source is not None else "")
        return source

    def _known(self, sha256: str) -> Yardstick | None:
        kept = (self._in_use, self._spare)
        return next((known for known in kept if known is not None and known.sha256 == sha256), None)

    async def _open(self, source: ModelVersion) -> Yardstick:
        async with asyncio.timeout(BASELINE_S):
            baseline = await self._open_baseline(source.baseline, source.baseline_bytes)
        require_columns(self._spec, baseline)
        return Yardstick(source.baseline, baseline, Counter(baseline))
