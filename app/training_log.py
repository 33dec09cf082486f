"""What training runs are at and what became of them, for people: found in `<s>.training`, and followed as it grows."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial

from aiokafka import AIOKafkaConsumer

from app.logs import event_of, events_of
from app.models import log_reader, producer, require_topics
from schemas.errors import PenstockError
from schemas.events import RetrainRequest
from schemas.runs import TrainingEvent
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from stream.consumers import opened
from stream.tail import read_back
from topics import StreamTopics


class NotEnded(PenstockError):
    """A request was not answered in time; it stays in its topic, and the run goes on."""


async def newest_runs(connection: KafkaConnection, spec: StreamSpec, count: int) -> list[TrainingEvent]:
    """Return the newest event of each of the newest `count` runs, the run that spoke last at the end.

    Reads back until so many are found. Raises SettingsError when the stream's topics do not exist.
    """
    newest: dict[str, TrainingEvent] = {}
    async with aclosing(_pieces(connection, spec)) as pieces:
        async for events in pieces:
            for event in reversed(events):
                newest.setdefault(event.run_id, event)
            if len(newest) >= count:
                break
    return list(newest.values())[:count][::-1]


async def events_of_run(connection: KafkaConnection, spec: StreamSpec, run_id: str) -> list[TrainingEvent]:
    """Return all that is still known of a run, oldest first. Reads the whole log, which Kafka keeps for some weeks.

    Raises PenstockError when nothing is.
    """
    found: list[TrainingEvent] = []
    async with aclosing(_pieces(connection, spec)) as pieces:
        async for events in pieces:
            found = [event for event in events if event.run_id == run_id] + found
    if not found:
        raise PenstockError(f"stream {spec.name} has no run {run_id!r}; see `penstock runs list`")
    return found


async def _pieces(connection: KafkaConnection, spec: StreamSpec) -> AsyncGenerator[list[TrainingEvent], None]:
    """Yield the committed events, the newest piece first, each in order."""
    await require_topics(connection, spec)
    source = TopicPartition(StreamTopics(spec.name).training, 0)
    async with aclosing(read_back(partial(log_reader, connection), source)) as pieces:
        async for records in pieces:
            yield events_of(TrainingEvent, records)


async def send_request(connection: KafkaConnection, request: RetrainRequest) -> None:
    """Append a request to `<s>.retrain`."""
    async with producer(connection) as sending:
        topic = StreamTopics(request.stream).retrain
        await sending.send_and_wait(topic, encode(request), key=request.stream.encode(), partition=0)


async def send_and_follow(
    connection: KafkaConnection,
    request: RetrainRequest,
    show: Callable[[TrainingEvent], None],
    silent: Callable[[], None],
    *,
    timeout_s: float | None = None,
    silence_s: float = 30.0,
) -> TrainingEvent:
    """Send a request, `show` all that is told of training from then on, and return how the run ended that answers it.

    `silent` is called once when nothing has been told for `silence_s`. Raises NotEnded after `timeout_s`.
    """
    source = TopicPartition(StreamTopics(request.stream).training, 0)
    async with opened(log_reader(connection)) as reader:
        reader.assign([source])
        await reader.seek_to_end(source)  # before the request is sent, so that all of its run comes after
        await reader.position(source)
        await send_request(connection, request)
        try:
            async with asyncio.timeout(timeout_s):
                return await _outcome(reader, request.id, show, silent, silence_s)
        except TimeoutError as error:
            raise NotEnded(
                f"training did not end within {timeout_s:g} s; the request stays and is answered all the same: "
                "see `penstock runs list`"
            ) from error


async def _outcome(
    reader: AIOKafkaConsumer,
    request_id: str,
    show: Callable[[TrainingEvent], None],
    silent: Callable[[], None],
    silence_s: float,
) -> TrainingEvent:
    speaking = asyncio.get_running_loop().call_later(silence_s, silent)
    try:
        while True:
            event = event_of(TrainingEvent, (await reader.getone()).value)
            speaking.cancel()
            if event is None:
                continue
            show(event)
            if event.phase == "ended" and request_id in event.request_ids:
                return event
    finally:
        speaking.cancel()


def phases_of(events: Sequence[TrainingEvent]) -> list[tuple[TrainingEvent, TrainingEvent]]:
    """Return the first and the last event of each phase of each attempt, in their order."""
    found: dict[tuple[int, str], tuple[TrainingEvent, TrainingEvent]] = {}
    for event in events:
        place = event.attempt, event.phase
        found[place] = (found[place][0] if place in found else event, event)
    return list(found.values())
