"""Who gives the scores of a replay: the models that served, each for what it scored, or one model for everything."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.replay.events import Floats, LabelledEvents, ReplayedSample, ServedEvent, ServedEvents, scores_of
from agents.replay.identity import Identity
from agents.shadows import checked_scores, finite_rows
from agents.shelf import ModelShelf
from ml.models.protocol import Matrix, Model, Scores
from schemas.errors import PenstockError, RetryableError
from schemas.events import ModelVersion
from schemas.experiments import CHAMPION
from schemas.streams import StreamSpec

Find = Callable[[str], ModelVersion]
"""Finds a registered version; raises PenstockError when there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was made of n events: `scores`, (n,) or (n, classes), and whose they are, `models` and `variants` (n,).

    A row that no model could score is NaN. `as_logged` tells that all of it is what was logged: equal scores, of the
    same models and variants.
    """

    scores: Scores
    models: NDArray[np.object_]
    variants: NDArray[np.object_]
    as_logged: bool = False

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which rows have a score, shape (n,)."""
        return finite_rows(self.scores)


class Scorer(Protocol):
    """Gives the scores of the replayed history."""

    async def of_served(self, events: ServedEvents) -> Answer:
        """Return what it makes of predictions, at the moment when they were served."""

    async def of_labelled(self, events: LabelledEvents) -> Answer:
        """Return what it had made of these events, whose labels have come now."""


class Library:
    """The models of one stream by their ids, opened as a worker opens them, and why some could not be.

    What cannot be opened is asked for once. `pruned` are the models whose files were deleted, which is no problem.
    """

    def __init__(self, spec: StreamSpec, find: Find, shelf: ModelShelf) -> None:
        self._spec = spec
        self._find = find
        self._shelf = shelf
        self.problems: dict[str, str] = {}
        self.pruned: set[str] = set()

    async def open(self, model_id: str) -> Model:
        """Return a model. Raises PenstockError with a sentence."""
        return await self._shelf.get(self._spec, self._find(model_id))

    async def predict(self, model_id: str, matrix: Matrix) -> Scores | None:
        """Return the model's scores of these rows; None, and note the problem, where it gives none.

        Raises RetryableError when the store is away, which says nothing about the model.
        """
        if model_id in self.problems or model_id in self.pruned:
            return None
        try:
            if self._find(model_id).pruned:
                self.pruned.add(model_id)
                return None
            model = await self.open(model_id)
            return await asyncio.to_thread(checked_scores, model, matrix, model.classes)
        except RetryableError:
            raise
        except PenstockError as error:
            self.problems[model_id] = str(error)
        except Exception as error:  # noqa: BLE001  # a model may come from any package, and raise anything
            self.problems[model_id] = f"model {model_id} cannot score these features: {type(error).__name__}: {error}"
        return None


class AsServed:
    """Every model scores what it scored: the variant that served, and the shadows, so that all of it is compared.

    Where a model that served gives no score any more, the logged one stands: the event took place.
    """

    def __init__(self, spec: StreamSpec, library: Library, identity: Identity) -> None:
        self._classes = len(spec.classes)
        self._library = library
        self._identity = identity

    async def of_served(self, events: ServedEvents) -> Answer:
        answer = await self._answer(events.events, events.matrix)
        for rows, variant, model_id in _groups(answer.variants, answer.models):
            self._identity.add(variant, model_id, events.scores[rows], answer.scores[rows])
        if any(event.shadows for event in events.events):
            await self._score_shadows(events)
        return _or_logged(answer, events.scores)

    async def of_labelled(self, events: LabelledEvents) -> Answer:
        answer = await self._answer(events.samples, events.matrix)
        return _or_logged(answer, scores_of(events.samples, self._classes))

    async def _answer(self, events: Sequence[ServedEvent | ReplayedSample], matrix: Matrix) -> Answer:
        models = np.array([event.model_id for event in events], dtype=object)
        variants = np.array([event.variant for event in events], dtype=object)
        parts = [
            (rows, await self._library.predict(model_id, matrix[rows])) for rows, _, model_id in _groups(models, models)
        ]
        return Answer(together(parts, len(matrix), self._classes), models, variants)

    async def _score_shadows(self, events: ServedEvents) -> None:
        said = [(row, shadow) for row, event in enumerate(events.events) for shadow in event.shadows]
        variants = np.array([shadow.variant for _, shadow in said], dtype=object)
        models = np.array([shadow.model_id for _, shadow in said], dtype=object)
        rows = np.array([row for row, _ in said], dtype=np.int64)
        logged = scores_of([shadow for _, shadow in said], self._classes)
        for places, variant, model_id in _groups(variants, models):
            scores = await self._library.predict(model_id, events.matrix[rows[places]])
            part = together([(np.arange(len(logged[places])), scores)], len(logged[places]), self._classes)
            self._identity.add(variant, model_id, logged[places], part, shadow=True)


class OneModel:
    """One model is the champion of everything."""

    def __init__(self, spec: StreamSpec, model_id: str, model: Model) -> None:
        self._classes = len(spec.classes)
        self.model_id = model_id
        self._model = model

    async def of_served(self, events: ServedEvents) -> Answer:
        return await self._answer(events.matrix)

    async def of_labelled(self, events: LabelledEvents) -> Answer:
        return await self._answer(events.matrix)

    async def _answer(self, matrix: Matrix) -> Answer:
        n = len(matrix)
        scores = await asyncio.to_thread(checked_scores, self._model, matrix, self._model.classes) if n else None
        return Answer(
            together([(np.arange(n), scores)], n, self._classes),
            np.full(n, self.model_id, dtype=object),
            np.full(n, CHAMPION, dtype=object),
        )


def together(parts: Sequence[tuple[Any, Scores | None]], n: int, classes: int) -> Scores:
    """Return the scores of n rows, as precise as the most precise of the parts; NaN where a part has none."""
    given = [scores for _, scores in parts if scores is not None]
    dtype = np.result_type(*given) if given else np.dtype(np.float64)
    scores: Scores = np.full((n, classes) if classes else n, np.nan, dtype=dtype)
    for rows, part in parts:
        if part is not None:
            scores[rows] = part
    return scores


def _or_logged(answer: Answer, logged: Floats) -> Answer:
    """Return the answer of those that served, with the logged score where it has none."""
    scores, missing = answer.scores, ~answer.finite
    if missing.any():
        scores = scores.astype(np.float64)
        scores[missing] = logged[missing]
    return Answer(scores, answer.models, answer.variants, as_logged=np.array_equal(scores, logged))


def _groups(
    variants: NDArray[np.object_], models: NDArray[np.object_]
) -> Iterator[tuple[NDArray[np.int64] | slice, str, str]]:
    """Yield the rows of each variant and model, in the order of their names."""
    if not len(models):
        return
    if (variants == variants[0]).all() and (models == models[0]).all():  # most often
        yield slice(None), variants[0], models[0]
        return
    for variant, model_id in sorted(set(zip(variants.tolist(), models.tolist(), strict=True))):
        yield np.flatnonzero((variants == variant) & (models == model_id)), variant, model_id
