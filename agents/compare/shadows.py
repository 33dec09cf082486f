"""What is known of shadows: how often they would have answered otherwise than what was served."""

from collections.abc import Mapping, Sequence

import msgspec

from schemas.experiments import ShadowFigures, VariantCounts

Marks = Mapping[tuple[str, int], int]


class ShadowTotal(msgspec.Struct):
    """The totals of one shadow since revision `since`."""

    variant: str
    model_id: str
    since: int
    n: int = 0
    disagreements: int = 0
    distance: float = 0.0
    to_time_ms: int = 0


class ShadowTotals:
    """The totals of the shadows of the newest deployment, each since it has stood beside the champion of now.

    So another champion begins all of them anew, and another version of a shadow begins that one anew: what is counted
    is of two models, not of two names. Which records count follows from the deployments and from the records alone,
    never from when the one was heard of.
    """

    def __init__(self) -> None:
        self.totals: dict[str, ShadowTotal] = {}
        self._since: Mapping[str, int] = {}

    def follow(self, since: Mapping[str, int]) -> None:
        """Take over since which revision each routed shadow, by its model id, counts."""
        self._since = since
        self.totals = {name: total for name, total in self.totals.items() if since.get(name) == total.since}

    def load(self, totals: Sequence[ShadowTotal]) -> None:
        """Take over totals that stand in a checkpoint, as far as they still count."""
        self.totals = {total.model_id: total for total in totals}
        self.follow(self._since)

    def count(self, counts: Sequence[VariantCounts]) -> None:
        """Add records of `<s>.variants`, in the order of their log; 0.5 µs per shadow of each."""
        for one in counts:
            for shadow in one.shadows:
                since = self._since.get(shadow.model_id)
                if since is None or one.deployment_revision < since:
                    continue
                total = self.totals.get(shadow.model_id)
                if total is None:
                    total = self.totals[shadow.model_id] = ShadowTotal(shadow.variant, shadow.model_id, since)
                total.n += shadow.n
                total.disagreements += shadow.disagreements
                total.distance += shadow.distance
                total.to_time_ms = max(total.to_time_ms, one.to_time_ms)

    @property
    def to_time_ms(self) -> int:
        """The newest event time among what was counted."""
        return max((total.to_time_ms for total in self.totals.values()), default=0)

    def marks(self, every: int) -> Marks:
        """Return how many times `every` events were counted of each shadow; of which it is known by its key."""
        return {(total.model_id, total.since): total.n // every for total in self.totals.values()}

    def figures(self) -> tuple[ShadowFigures, ...]:
        """Return what a report says of them, in the order of their names."""
        return tuple(
            ShadowFigures(
                variant=total.variant,
                model_id=total.model_id,
                n=total.n,
                disagreement=total.disagreements / total.n,
                mean_distance=total.distance / total.n,
            )
            for total in sorted(self.totals.values(), key=lambda total: (total.variant, total.model_id))
            if total.n
        )
