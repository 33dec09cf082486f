"""A backtest: history out of the logs and the archive, the models out of the registry, and what comes of both."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer

from agents.replay.events import HistoryReader
from agents.replay.identity import Identity
from agents.replay.learning import Learning
from agents.replay.logs import logs
from agents.replay.merging import merged
from agents.replay.question import Question
from agents.replay.run import Progress, Replay
from agents.replay.worlds import World
from app.backtest_history import Past
from app.backtest_models import BacktestModels
from app.models import read_registry
from app.partitions import partition_count
from app.settings import Settings
from app.stages import drift_of
from schemas.errors import PenstockError
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from topics import StreamTopics

_FETCH_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Where history was found: offsets by partition, from the first to before the second, and what was archived.

    `unusable` records are no events of the stream as it is declared now.
    """

    predictions: Mapping[int, tuple[int, int]]
    samples: tuple[int, int]
    archived_samples: int
    archived_predictions: int
    unusable: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A finished replay."""

    question: Question
    history: History
    replay: Replay
    identity: Identity
    problems: Mapping[str, str]
    learning: Learning | None


Follow = Callable[[Progress, int], None]
"""Is told the progress before the first block and after each, and how many records there are in all."""


async def backtest(connection: KafkaConnection, settings: Settings, question: Question, follow: Follow) -> Answered:
    """Replay the history of a stream whose topics exist. Writes nothing.

    Raises PenstockError with a sentence when a model or learner is not to be had, or there is no history at all.
    """
    spec = question.spec
    registry = await read_registry(connection, spec)
    models = BacktestModels(settings, registry, question)
    scorer = await models.scorer()
    embedded = (await connection.reachable()).embedded
    topics = StreamTopics(spec.name)
    numbers = range(await partition_count(connection, topics.predictions))
    parts = [TopicPartition(topics.predictions, number) for number in numbers]
    samples = TopicPartition(topics.samples, 0)
    open_consumer = _opener(connection)
    from_ms = None if embedded else question.span.from_ms
    async with AsyncExitStack() as closing:
        opened = await closing.enter_async_context(logs(open_consumer, [*parts, samples], from_ms))
        past = Past(settings.model_storage_dir, question, opened, open_consumer)
        sources = await past.sources(parts, samples)
        reader = HistoryReader(spec, question.span)
        worlds = [
            World(its, drift_of(settings, its), models.reference, models.measure, models.deployments)
            for its in (spec, question.changed)
        ]
        replay = Replay(reader, scorer, *worlds)
        blocks = await closing.enter_async_context(aclosing(merged(sources)))
        records = sum(stop - start for start, stop in opened.bounds.values()) + past.archived_records
        follow(replay.progress, records)
        async with aclosing(replay.steps(blocks)) as steps:
            async for _ in steps:
                follow(replay.progress, records)
    if not replay.progress.events and not replay.progress.samples:
        raise PenstockError(f"there is no history of stream {spec.name} in this time: no prediction and no sample")
    history = History(
        predictions={part.partition: opened.bounds[part] for part in parts},
        samples=opened.bounds[samples],
        archived_samples=past.archived_samples,
        archived_predictions=past.archived_predictions,
        unusable=reader.unusable,
    )
    learning = scorer if isinstance(scorer, Learning) else None
    return Answered(question, history, replay, models.identity, models.library.problems, learning)


def _opener(connection: KafkaConnection) -> Callable[[], AIOKafkaConsumer]:
    def open_consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=20,
            max_partition_fetch_bytes=_FETCH_BYTES,
            **connection.client_options(),
        )

    return open_consumer
