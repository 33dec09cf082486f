"""What drift of a model is measured against: which version's baseline counts for it, and that baseline made ready."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.registry import Registry
from agents.shadows import finite_rows
from ml.drift.baseline import Baseline, make_baseline
from ml.drift.counting import Counter
from ml.errors import BaselineInvalid, ModelError
from ml.models.protocol import Matrix, Model, Scores
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from stores.artifacts import ArtifactStore
from stream.views import LogView

OpenBaseline = Callable[[str, int], Awaitable[Baseline]]
"""Opens the baseline with this SHA-256 and size in bytes. Raises PenstockError with a sentence."""

LEAST_ROWS: Final = 100  # ten for each of ten bins: with fewer, every window would seem to have drifted
_SCORED_ROWS: Final = 8192


class BaselineUnusable(PenstockError):
    """A baseline cannot be made or used for its stream; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """A baseline by its SHA-256, and what counts against it."""

    sha256: str
    baseline: Baseline
    counter: Counter


class Ancestry:
    """Whose baseline counts, by the registry as it is now. Reads only what is new in the view."""

    def __init__(self, models: LogView[ModelVersion]) -> None:
        self._registry = Registry(models)

    def baseline_of(self, model_id: str) -> ModelVersion | None:
        """Return the version whose baseline counts for a model, as the function `baseline_of` does."""
        return baseline_of(self._registry.versions, model_id)


def baseline_of(newest: Mapping[str, ModelVersion], model_id: str) -> ModelVersion | None:
    """Return the version whose baseline counts for a model: itself, or its nearest ancestor that has one.

    `newest` has every registered version by its id. A pruned ancestor counts, too: only its model file is gone.
    None when there is none, or nobody registered the model. Costs about 0.2 µs per generation.
    """
    seen: set[str] = set()
    version = newest.get(model_id)
    while version is not None and not version.baseline:
        seen.add(version.model_id)
        parent = version.parent
        version = None if parent is None or parent in seen else newest.get(parent)  # a record may be wrong: no circles
    return version


def baseline_of_rows(spec: StreamSpec, model: Model, matrix: Matrix) -> bytes:
    """Return the baseline of `matrix`, shape (n, features) in declared order, and of what `model` predicts of it.

    Rows without a finite score are left out, as the worker refuses such events. Raises BaselineUnusable.
    """
    scores = scores_of(model, matrix)
    finite = finite_rows(scores)
    if finite.sum() < LEAST_ROWS:
        raise BaselineUnusable(
            f"a baseline needs at least {LEAST_ROWS} rows that the model can score, and there are {finite.sum()}"
        )
    values = prediction_values(scores[finite])
    try:
        baseline = make_baseline(
            matrix[finite],
            spec.features,
            dict(zip(prediction_columns(spec), values, strict=True)),
            bins=spec.drift.bins,
        )
    except ModelError as error:
        raise BaselineUnusable(f"no baseline can be made: {error}") from error
    return baseline.encode()


def scores_of(model: Model, matrix: Matrix) -> Scores:
    """Return what `model` predicts of `matrix`, shape (n, features), in pieces that need little memory each."""
    pieces = [model.predict(matrix[start : start + _SCORED_ROWS]) for start in range(0, len(matrix), _SCORED_ROWS)]
    return np.concatenate(pieces) if pieces else np.zeros(0 if model.classes == 1 else (0, model.classes))


def prediction_columns(spec: StreamSpec) -> tuple[str, ...]:
    """Return the names of what is counted of a prediction: its score, and the index of its best class."""
    return ("score", "class") if spec.task == "multiclass" else ("score",)


def prediction_values(scores: Scores) -> list[NDArray[np.float32]]:
    """Return what is counted of predictions with these scores: the (best) score, and for (n, classes) the class.

    Each has shape (n,). All are float32, as the features: so a value that was read from JSON is the same again.
    """
    if scores.ndim == 1:
        return [scores.astype(np.float32, copy=False)]
    return [scores.max(axis=1).astype(np.float32, copy=False), scores.argmax(axis=1).astype(np.float32)]


def require_columns(spec: StreamSpec, baseline: Baseline) -> None:
    """Raise BaselineUnusable unless `baseline` was made for the features and the task that the stream declares now."""
    try:
        baseline.expect(spec.features, prediction_columns(spec))
    except BaselineInvalid as error:
        raise BaselineUnusable(str(error)) from error


def baseline_opener(store: ArtifactStore) -> OpenBaseline:
    """Return what reads baselines from `store`, in a thread; hash and size are verified."""

    def read(sha256: str, size_bytes: int) -> Baseline:
        payload = store.get(sha256, size_bytes)
        try:
            return Baseline.decode(payload)
        except BaselineInvalid as error:
            raise BaselineUnusable(str(error)) from error

    async def open_baseline(sha256: str, size_bytes: int) -> Baseline:
        return await asyncio.to_thread(read, sha256, size_bytes)

    return open_baseline


def baseline_finder(
    models: LogView[ModelVersion], caught_up: Callable[[], Awaitable[None]], open_baseline: OpenBaseline
) -> Callable[[str], Awaitable[tuple[Baseline, frozenset[str]]]]:
    """Return what opens a baseline by its SHA-256 alone: its size stands in the record of the version that names it.

    With it come the ids of all versions whose own it is, or was: it knows what they predicted. `caught_up` waits
    until `models` holds all that is in its log. Raises what `open_baseline` does, and BaselineUnusable when no record
    names it.
    """

    def naming(sha256: str) -> list[ModelVersion]:
        return [version for version in models.events if version.baseline == sha256]

    async def find(sha256: str) -> tuple[Baseline, frozenset[str]]:
        if not (versions := naming(sha256)):
            await caught_up()
            versions = naming(sha256)
        if not versions:
            raise BaselineUnusable(f"no record in {models.topic} names the baseline {sha256}")
        baseline = await open_baseline(sha256, versions[-1].baseline_bytes)
        return baseline, frozenset(version.model_id for version in versions)

    return find
