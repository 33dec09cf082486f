"""What is known of a stream's models: the newest of each lineage, and those that are or were routed."""

from collections.abc import Collection
from typing import Final, NamedTuple

from schemas.events import ModelVersion

MOST_VERSIONS: Final = 500


class Description(NamedTuple):
    """What is shown of a model. `number` counts the models in the order in which they were registered."""

    version: str
    algorithm: str
    lineage: str
    number: int


class Versions:
    """The fold of `<s>.models`: the newest 500 of each lineage, and of those without one; 300 bytes each.

    A learner makes thousands a day.
    """

    def __init__(self) -> None:
        self._known: dict[str, Description] = {}
        self._lineages: dict[str, dict[str, None]] = {}  # the oldest first
        self._kept: frozenset[str] = frozenset()
        self._count = 0

    def __len__(self) -> int:
        return len(self._known)

    def take(self, version: ModelVersion) -> None:
        """Go on with a later record of a model."""
        before = self._known.get(version.model_id)
        self._count += before is None
        number = self._count if before is None else before.number
        self._known[version.model_id] = Description(version.version, version.algorithm, version.lineage, number)
        of_it = self._lineages.setdefault(version.lineage, {})
        of_it[version.model_id] = None
        if len(of_it) > MOST_VERSIONS:
            oldest = next((model_id for model_id in of_it if model_id not in self._kept), version.model_id)
            del of_it[oldest], self._known[oldest]

    def keep(self, model_ids: Collection[str]) -> None:
        """Forget none of these, but any other."""
        self._kept = frozenset(model_ids)

    def of(self, model_id: str) -> Description:
        """Return what is known of a model; empty words when nothing is."""
        return self._known.get(model_id) or Description("", "", "", 0)

    def is_same(self, judged: str, model_id: str) -> bool:
        """Whether `model_id` is the model `judged`, or came after it in its lineage: so its figures are."""
        if judged == model_id:
            return True
        first, then = self._known.get(judged), self._known.get(model_id)
        if first is None or then is None or not then.lineage:
            return False
        return first.lineage == then.lineage and first.number < then.number
