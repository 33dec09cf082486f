"""What the trainers of the house have in common: what they refuse, and when they have seen enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from ml.errors import ModelInputInvalid, ModelParametersInvalid
from ml.models.parameters import checked
from ml.models.protocol import check_learnable
from ml.training.protocol import TrainingImpossible
from ml.training.split import require_learnable
from ml.training.table import Table

Parameters = TypeVar("Parameters", bound=msgspec.Struct)


@dataclass(slots=True)
class Best:
    """The lowest loss so far, and after how many rounds it was reached; of equal ones, the first."""

    loss: float = float("inf")
    rounds: int = 0

    def saw(self, loss: float, rounds: int) -> bool:
        """Take note of the loss after so many rounds. Whether it is the lowest."""
        if loss >= self.loss:
            return False
        self.loss, self.rounds = loss, rounds
        return True

    def still_falling(self, limit: int) -> tuple[str, ...]:
        """Return a note when the best was reached with the last of the rounds that there could be, else none."""
        if self.rounds < limit:
            return ()
        return (f"the loss was still falling after {limit} rounds, the most allowed: more may give a better model",)


def chosen(trainer: str, given: Mapping[str, Any], kind: type[Parameters]) -> Parameters:
    """Return the parameters `given` as a `kind`. Raises TrainingImpossible with the first thing that is wrong."""
    try:
        return checked(f"trainer {trainer}", given, kind)
    except ModelParametersInvalid as error:
        raise TrainingImpossible(str(error)) from error


def check_parts(train: Table, validation: Table, n_features: int, classes: int) -> None:
    """Raise TrainingImpossible unless there are two classes to train on, something to stop by, and all of it fits."""
    require_learnable(train, classes, 2)
    if not (validation.weights > 0).any():
        raise TrainingImpossible("the validation data has no samples that count, and the trainer stops by them")
    for part, table in (("training", train), ("validation", validation)):
        try:
            check_learnable(table.matrix, table.labels, table.weights, n_features, classes)
        except ModelInputInvalid as error:
            raise TrainingImpossible(f"the {part} data does not fit: {error}") from error
