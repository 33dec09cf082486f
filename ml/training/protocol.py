"""What a trainer is: labelled events in, the bytes of a model out. Found by name in the group `penstock.trainers`.

A trainer belongs to an algorithm of `ml.models.protocol`, which opens what it made. A plug-in passes the suite in
tests/contract/test_trainers.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from ml.errors import ModelError
from ml.training.table import Table


class TrainingImpossible(ModelError):
    """No model can be made of this data, or with these parameters; the message is a sentence that says why."""


class Stopped(ModelError):
    """Whoever watches has seen enough: training ends without a model."""


class Watch(Protocol):
    """Whoever watches a fit. Both methods are called from the thread that fits."""

    def progress(self, done: int, of: int, loss: float | None = None) -> None:
        """`done` of at most `of` rounds are done; `loss` is that on the validation data. May raise Stopped."""

    def keep(self, payload: bytes) -> None:
        """`payload` is all that `fit` needs as `resume` to go on from here. It is called now and then."""


class Unwatched:
    """Nobody watches."""

    def progress(self, done: int, of: int, loss: float | None = None) -> None:
        """Do nothing."""

    def keep(self, payload: bytes) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained model: the bytes that `algorithm` opens, and what it came to.

    `loss` is that on the validation data (log loss where scores are probabilities). `parameters` are all that count,
    defaults too, so that the same data gives the same model again. `rounds` were kept.
    """

    algorithm: str
    payload: bytes
    loss: float
    rounds: int
    parameters: Mapping[str, str | int | float | bool | None]
    notes: tuple[str, ...] = field(default=())


@runtime_checkable
class Trainer(Protocol):
    """Makes models of one kind. Made from the stream's shape and the trainer's own hyper-parameters, by keyword.

    A parameter that it does not know, or a value that it cannot use, raises TrainingImpossible. The same arguments and
    data give the same bytes, on any number of threads.
    """

    name: ClassVar[str]
    algorithm: ClassVar[str]

    def __init__(
        self, feature_names: tuple[str, ...], classes: int = 1, *, seed: int = 0, threads: int = 1, **parameters: Any
    ) -> None: ...

    def fit(self, train: Table, validation: Table, watch: Watch, resume: bytes = b"") -> Fitted:
        """Train on `train`, stop early by `validation`. With `resume` go on from what `watch.keep` was given.

        Resumed or not, the model is the same. Raises TrainingImpossible; lets Stopped through.
        """
