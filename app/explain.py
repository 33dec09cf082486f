"""Explaining predictions: the very model of each, found by its hash, scores the logged features again.

A prediction is reproduced when the model gives the score that was logged: to the bit where it gives 32-bit numbers
(XGBoost), which JSON brings through unchanged; within 1e-12 where it gives 64-bit ones (river), whose last digits
depend on the machine's mathematics library.
"""

import asyncio
import hashlib
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents.shelf import ModelUnusable
from app.models import RegistryView, read_registry
from app.prediction_log import Logged, PredictionLog, prediction_log
from app.registry import model_opener
from app.settings import Settings
from ml.errors import ModelError
from ml.explain import Contributions, contributions_of
from ml.models.protocol import Explains, Matrix, Model
from schemas.errors import PenstockError
from schemas.events import ModelVersion, Prediction, ShadowScore
from schemas.streams import StreamSpec
from stream.batches import TopicPartition
from stream.connection import KafkaConnection

BACKGROUND_ROWS: Final = 100
_TOLERANCE: Final = 1e-12

Open = Callable[[ModelVersion], Model]


@dataclass(frozen=True, slots=True)
class Rescored:
    """A score that was logged, of the served model or of a shadow, and what the same model makes of the features now.

    `score` and `scores` are as in Prediction; None with the `problem`, a sentence, when the model could not score.
    """

    variant: str
    model_id: str
    version: ModelVersion | None
    logged: float
    logged_scores: Sequence[float] | None
    score: float | None = None
    scores: Sequence[float] | None = None
    same: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """A prediction whose scores were executed again."""

    logged: Logged
    served: Rescored
    shadows: tuple[Rescored, ...]

    @property
    def wrong(self) -> list[Rescored]:
        """The scores, served or a shadow's, that came out other than they were logged."""
        return [said for said in (self.served, *self.shadows) if said.score is not None and not said.same]

    @property
    def not_executed(self) -> bool:
        """Whether the served score could not be executed again; a shadow's model need not be kept."""
        return self.served.score is None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A prediction executed again, and why its score is what it is.

    `label` is what the score comes to with the stream's present threshold. The contributions, None with the reason in
    `why_none`, are to `of_class`, the predicted one, where there are several; `background` rows were compared with.
    """

    examined: Examined
    label: int | str
    contributions: Contributions | None
    why_none: str
    of_class: str | None
    background: int


@dataclass(frozen=True, slots=True, eq=False)
class _Said:
    """One score of a prediction."""

    variant: str
    model_id: str
    score: float
    scores: Sequence[float] | None
    logged: Logged


class Explainer:
    """Executes predictions again with the models of one registry; `threshold` is the stream's.

    `open_model` verifies signature and hash and loads, as a worker does; it blocks, and runs in threads.
    """

    def __init__(self, registry: RegistryView, open_model: Open, threshold: float) -> None:
        self._registry = registry
        self._open_model = open_model
        self._threshold = threshold

    async def examine(self, logged: Sequence[Logged]) -> list[Examined]:
        """Execute all of these again. Each model is opened once, and one at a time; it scores its rows together."""
        said = [_said(one) for one in logged]
        by_model: dict[str, list[_Said]] = defaultdict(list)
        for one in chain.from_iterable(said):
            by_model[one.model_id].append(one)
        found: dict[_Said, Rescored] = {}
        for model_id, its in by_model.items():
            found |= await asyncio.to_thread(self._rescored, model_id, its)
        return [
            Examined(one, found[served], tuple(found[shadow] for shadow in shadows))
            for one, (served, *shadows) in zip(logged, said, strict=True)
        ]

    async def explain(self, logged: Logged, log: PredictionLog) -> Explanation:
        """Execute one again and find its contributions; `log` is where what it is compared with is found.

        Raises PenstockError with a sentence when its model is not to be had, or does not take its features.
        """
        [examined] = await self.examine([logged])
        version, served = examined.served.version, examined.served
        if served.score is None or version is None:
            raise PenstockError(served.problem)
        model = await asyncio.to_thread(self._open, version)
        background = [] if isinstance(model, Explains) else await self._background(logged, version, log)
        index = 0 if served.scores is None else int(np.argmax(served.scores))
        contributions, why_none = await asyncio.to_thread(_contributions, model, logged.prediction, background, index)
        return Explanation(
            examined=examined,
            label=version.classes[index] if served.scores is not None else int(served.score >= self._threshold),
            contributions=contributions,
            why_none=why_none,
            of_class=version.classes[index] if served.scores is not None else None,
            background=len(background),
        )

    async def _background(self, logged: Logged, version: ModelVersion, log: PredictionLog) -> list[Prediction]:
        """Return other predictions of the same features, by whatever model."""
        known = {other.model_id: other.features for other in self._registry.models}
        return await log.around(
            logged.place, BACKGROUND_ROWS, lambda other: known.get(other.model_id) == version.features
        )

    def _rescored(self, model_id: str, saids: Sequence[_Said]) -> dict[_Said, Rescored]:
        version: ModelVersion | None = None
        try:
            version = self._registry.find(model_id)
            model = self._open(version)
        except PenstockError as error:
            return {said: _failed(said, version, str(error)) for said in saids}
        misfits = [said for said in saids if len(said.logged.prediction.features) != model.n_features]
        found = {said: _failed(said, version, _misfit(said, model)) for said in misfits}
        return found | _predicted(model, version, [said for said in saids if said not in found])

    def _open(self, version: ModelVersion) -> Model:
        if version.pruned:
            raise ModelUnusable(
                f"model {version.model_id} was pruned: its file was deleted, so its scores cannot be computed again"
            )
        try:
            return self._open_model(version)
        except PenstockError:
            raise
        except Exception as error:  # a model may come from any package, and raise anything
            raise ModelUnusable(
                f"model {version.model_id} cannot be opened: {type(error).__name__}: {error}"
            ) from error


async def examine_sample(
    connection: KafkaConnection,
    settings: Settings,
    spec: StreamSpec,
    count: int,
    draws: random.Random,
    starts: Mapping[TopicPartition, int] | None = None,
) -> list[Examined]:
    """Execute `count` random predictions again, out of those held from offsets `starts` on."""
    explainer = Explainer(await read_registry(connection, spec), model_opener(settings), spec.threshold)
    async with prediction_log(connection, spec) as log:
        logged = await log.sample(count, draws, starts)
    return await explainer.examine(logged)


def matrix_of(predictions: Iterable[Prediction]) -> Matrix:
    """Return the features as they were scored: float32, NaN for null. All have equally many."""
    rows: Matrix = np.array([prediction.features for prediction in predictions], dtype=np.float32)
    return rows


def _said(logged: Logged) -> list[_Said]:
    prediction = logged.prediction
    every: tuple[Prediction | ShadowScore, ...] = (prediction, *prediction.shadows)
    return [_Said(one.variant, one.model_id, one.score, one.scores, logged) for one in every]


def _predicted(model: Model, version: ModelVersion, saids: Sequence[_Said]) -> dict[_Said, Rescored]:
    """Score the features of `saids`, all of them as many as the model takes."""
    if not saids:
        return {}
    try:
        scores = np.asarray(model.predict(matrix_of(said.logged.prediction for said in saids)))
    except Exception as error:  # noqa: BLE001  # as above
        sentence = f"model {version.model_id} cannot score these features: {type(error).__name__}: {error}"
        return {said: _failed(said, version, sentence) for said in saids}
    return {said: _compared(said, version, row) for said, row in zip(saids, scores, strict=True)}


def _compared(said: _Said, version: ModelVersion, row: NDArray[np.floating[Any]]) -> Rescored:
    """`row` is of shape () or (classes,)."""
    several: list[float] | None = row.tolist() if row.ndim else None
    score = float(row.max())
    logged = [said.score, *(said.scores or ())]
    now = [score, *(several or ())]
    same = len(logged) == len(now) and all(
        _same(then, again, row.dtype) for then, again in zip(logged, now, strict=True)
    )
    return Rescored(said.variant, said.model_id, version, said.score, said.scores, score, several, same)


def _same(logged: float, score: float, dtype: np.dtype[Any]) -> bool:
    """Whether a score is the one that was logged. Every 32-bit number is a JSON number, and comes back as the same."""
    if dtype == np.float32:
        return logged == score
    return math.isclose(logged, score, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _failed(said: _Said, version: ModelVersion | None, problem: str) -> Rescored:
    return Rescored(said.variant, said.model_id, version, said.score, said.scores, problem=problem)


def _misfit(said: _Said, model: Model) -> str:
    partition, offset = said.logged.place
    return (
        f"the prediction at {partition}:{offset} is of {len(said.logged.prediction.features)} features, "
        f"and model {said.model_id} takes {model.n_features}"
    )


def _contributions(
    model: Model, prediction: Prediction, background: Sequence[Prediction], class_index: int
) -> tuple[Contributions | None, str]:
    """Return the contributions, or why there are none. What is drawn depends on the event's id alone."""
    seed = hashlib.blake2b(prediction.event_id.encode(), digest_size=8).digest()
    rows = matrix_of(background) if background else np.empty((0, model.n_features), np.float32)
    try:
        found = contributions_of(
            model, matrix_of([prediction]), rows, np.random.default_rng(int.from_bytes(seed)), class_index
        )
    except ModelError as error:
        return None, f"no contributions: {error}"
    except Exception as error:  # noqa: BLE001  # as above
        return None, f"no contributions: the model failed ({type(error).__name__}: {error})"
    if not math.isfinite(found.output):
        return None, "no contributions: the model gives no finite score for mixtures of this row and others"
    return found, ""
