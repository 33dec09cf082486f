"""A backtest: history out of the logs and the archive, the models out of the registry, and what comes of both.

Without a learner its two halves know nothing of each other: the samples are replayed in a process of their own.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from agents.learn.hosts import Apart
from agents.replay.ahead import ahead
from agents.replay.drifting import Drifting
from agents.replay.learning import Learning, until_due
from agents.replay.merging import Block, Source, merged
from agents.replay.question import Question
from agents.replay.run import LabelledReplay, LabelledResult, ServedReplay, ServedResult
from agents.replay.scoring import Scorer
from app.backtest_history import past
from app.backtest_models import BacktestModels
from app.garbage import rarely_collected
from app.models import read_registry
from app.settings import Settings
from app.stages import drift_of
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from stream.connection import KafkaConnection
from topics import StreamTopics

S = TypeVar("S")
L = TypeVar("L")


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of the records were replayed, and how many events were in them."""

    records: int
    of: int
    events: int


Follow = Callable[[Progress], None]
"""Is told the progress: when the first record is about to be replayed, and at times until after the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Where history was found: offsets by partition, from the first to before the second, and what was archived."""

    predictions: Mapping[int, tuple[int, int]]
    samples: tuple[int, int]
    archived_samples: int
    archived_predictions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A finished replay. `problems` say what could not be had, and why; the files of the `pruned` models were deleted.

    `learnt` is as in BacktestModels.
    """

    question: Question
    history: History
    served: ServedResult
    labelled: LabelledResult
    problems: Mapping[str, str]
    pruned: Collection[str]
    learnt: ModelVersion | None = None
    learning: Learning | None = None


async def backtest(connection: KafkaConnection, settings: Settings, question: Question, follow: Follow) -> Answered:
    """Replay the history of a stream whose topics exist. Writes nothing.

    Raises PenstockError with a sentence when a model or learner is not to be had, or there is no history at all.
    """
    answer = _side_by_side if question.learner is None else _together
    with rarely_collected():
        answered = await answer(connection, settings, question, follow)
    if not answered.served.events and not answered.labelled.samples:
        raise PenstockError(f"stream {question.spec.name} has no prediction and no sample in this time")
    return answered


async def _side_by_side(
    connection: KafkaConnection, settings: Settings, question: Question, follow: Follow
) -> Answered:
    """Replay predictions here and samples in another process, both up to the same moment."""
    other = Apart(ended="the process that replays the samples has ended (exit code {code}); run the replay again")
    starting = asyncio.create_task(other.start(partial(LabelledHalf, connection, settings, question)))
    try:
        models, scorer = await _prepared(connection, settings, question)
        async with past(connection, question, settings.model_storage_dir) as found:
            sources = await found.served()
            replay = _served(settings, question, models, scorer)
            await replay.open()
            await starting

            async def serve() -> ServedResult:
                whole = _held(found.predictions)
                async for records in _through(merged(sources), replay.take):
                    follow(Progress(records, whole, replay.events))
                return await replay.result()

            served, labelled = await _both(serve(), other.call("run", found.samples[1]))
            follow(Progress(_held(found.predictions), _held(found.predictions), replay.events))
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        await other.close()
    half: LabelledHalfResult = labelled
    return Answered(
        question=question,
        history=History(
            predictions=found.predictions,
            samples=half.samples,
            archived_samples=half.archived_samples,
            archived_predictions=found.archived_predictions,
        ),
        served=served,
        labelled=half.result,
        problems=half.problems | models.library.problems,
        pruned=models.library.pruned,
        learnt=models.learnt,
    )


async def _together(connection: KafkaConnection, settings: Settings, question: Question, follow: Follow) -> Answered:
    """Replay both in the order in which they were written, so that a learner learns what it could have known."""
    models, scorer = await _prepared(connection, settings, question)
    topics = StreamTopics(question.spec.name)
    samples, predictions = topics.samples, topics.predictions
    async with past(connection, question, settings.model_storage_dir) as found:
        sources: list[Source] = [*await found.served(), await found.labelled()]
        served, labelled = _served(settings, question, models, scorer), LabelledReplay(question, scorer, models.foreign)
        await served.open()

        assert isinstance(scorer, Learning)

        async def take(block: Block) -> None:
            for piece in until_due(block, samples, scorer):
                await served.take(piece.of(predictions))
                for _, records in piece.of(samples).pieces:
                    await labelled.take(records)

        whole = _held(found.predictions) + found.samples[1] - found.samples[0]
        async for records in _through(merged(sources), take):
            follow(Progress(records, whole, served.events))
        answered = await served.result()
    return Answered(
        question=question,
        history=History(
            predictions=found.predictions,
            samples=found.samples,
            archived_samples=found.archived_samples,
            archived_predictions=found.archived_predictions,
        ),
        served=answered,
        labelled=labelled.result(),
        problems=models.library.problems,
        pruned=models.library.pruned,
        learnt=models.learnt,
        learning=scorer,
    )


@dataclass(frozen=True, slots=True)
class LabelledHalfResult:
    """What came of the samples, in the other process."""

    result: LabelledResult
    samples: tuple[int, int]
    archived_samples: int
    problems: dict[str, str]


class LabelledHalf:
    """The half of a replay that is about labels, to be made and run in a process of its own."""

    def __init__(self, connection: KafkaConnection, settings: Settings, question: Question) -> None:
        """Read the registry and open the models."""
        self._runner = asyncio.Runner()
        self._connection = connection
        self._settings = settings
        self._question = question
        self._models, self._scorer = self._runner.run(_prepared(connection, settings, question))

    def run(self, stop: int) -> LabelledHalfResult:
        """Replay the samples up to an offset."""
        with rarely_collected():
            return self._runner.run(self._run(stop))

    async def _run(self, stop: int) -> LabelledHalfResult:
        replay = LabelledReplay(self._question, self._scorer, self._models.foreign)

        async def take(block: Block) -> None:
            for _, records in block.pieces:
                await replay.take(records)

        async with past(self._connection, self._question, self._settings.model_storage_dir, stop) as found:
            async for _ in _through(merged([await found.labelled()]), take):
                pass
        problems = self._models.library.problems
        return LabelledHalfResult(replay.result(), found.samples, found.archived_samples, problems)


async def _prepared(
    connection: KafkaConnection, settings: Settings, question: Question
) -> tuple[BacktestModels, Scorer]:
    models = BacktestModels(settings, await read_registry(connection, question.spec), question)
    return models, await models.scorer()


def _served(settings: Settings, question: Question, models: BacktestModels, scorer: Scorer) -> ServedReplay:
    def drifting(spec: StreamSpec) -> Drifting:
        return Drifting(spec, drift_of(settings, spec), models.reference, models.measure, models.deployments)

    instead = drifting(question.changed) if question.changed.drift != question.spec.drift else None
    learnt_to_ms = None if models.learnt is None else models.learnt.training_to_time_ms
    return ServedReplay(
        question, scorer, models.identity, drifting(question.spec), instead, models.foreign, learnt_to_ms
    )


async def _both(serving: Coroutine[Any, Any, S], labelling: Coroutine[Any, Any, L]) -> tuple[S, L]:
    """Return what both return. When one fails, the other is given up."""
    serves, labels = asyncio.ensure_future(serving), asyncio.ensure_future(labelling)
    try:
        done, _ = await asyncio.wait({serves, labels}, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        return serves.result(), labels.result()
    finally:
        serves.cancel()
        labels.cancel()
        await asyncio.gather(serves, labels, return_exceptions=True)


async def _through(
    blocks: AsyncGenerator[Block, None], take: Callable[[Block], Awaitable[None]]
) -> AsyncGenerator[int, None]:
    """Pass every block on, while the next ones are read; yield how many records were passed on by then."""
    records = 0
    yield records
    async with aclosing(ahead(blocks)) as ready:
        async for block in ready:
            await take(block)
            records += len(block)
            yield records


def _held(predictions: Mapping[int, tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in predictions.values())
