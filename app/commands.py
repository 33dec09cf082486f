"""Asking control: commands into `<s>.commands`, and what became of them out of `<s>.audit`."""

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer

from app.logs import event_of, events_of
from app.models import log_reader, producer, read_registry, require_topics
from schemas.errors import InvalidEvent, PenstockError
from schemas.events import AuditEvent, Command
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from stream.consumers import opened
from stream.tail import read_back
from topics import StreamTopics

_WITHOUT_REVISION: Final = ("move", "succeed")


class NoAnswer(PenstockError):
    """Control did not answer in time; the command stays in its topic."""


async def ask_control(
    connection: KafkaConnection, spec: StreamSpec, command: Command, timeout_s: float = 30.0
) -> AuditEvent:
    """Send `command` to control and return its answer.

    A command that must name the revision it expects, and does not, is given the newest. Nothing else is judged here:
    what control refuses is in the audit log, and what a sender keeps back would not be. Raises PenstockError when it is
    no command that could be read, and NoAnswer when none comes in time: then no worker with the role `learn` runs, and
    the command waits for one.
    """
    _require_readable(command)
    if command.expected_revision is None and command.action not in _WITHOUT_REVISION:
        registry = await read_registry(connection, spec)
        command = msgspec.structs.replace(command, expected_revision=registry.revision)
    else:
        await require_topics(connection, spec)
    return await send_command(connection, command, timeout_s)


def _require_readable(command: Command) -> None:
    """Raise PenstockError for what would become a dead letter, which nobody answers."""
    try:
        decode(Command, encode(command))
    except UnicodeEncodeError as error:
        raise PenstockError("this is no command that control could read: a text in it is not UTF-8") from error
    except InvalidEvent as error:
        raise PenstockError(f"this is no command that control could read: {error}") from error


async def send_command(connection: KafkaConnection, command: Command, timeout_s: float) -> AuditEvent:
    """Send a command and return the audit event that answers it. Raises NoAnswer when none comes in time."""
    topics = StreamTopics(command.stream)
    audit = TopicPartition(topics.audit, 0)
    async with opened(log_reader(connection)) as reader:
        try:
            reader.assign([audit])
            await reader.seek_to_end(audit)  # before the command is sent, so that its answer comes after
            await reader.position(audit)
            async with producer(connection) as sending:
                await sending.send_and_wait(topics.commands, encode(command), key=command.stream.encode(), partition=0)
            async with asyncio.timeout(timeout_s):
                return await _answer(reader, command.correlation_id)
        except TimeoutError as error:
            raise NoAnswer(
                f"control did not answer within {timeout_s:g} s: is a worker with the role learn running? "
                "The command stays in its topic and is carried out when one starts."
            ) from error


async def _answer(reader: AIOKafkaConsumer, correlation_id: str) -> AuditEvent:
    while True:
        record: Any = await reader.getone()
        event = event_of(AuditEvent, record.value)
        if event is not None and event.correlation_id == correlation_id:
            return event


async def newest_audit(connection: KafkaConnection, spec: StreamSpec, count: int) -> list[AuditEvent]:
    """Return the newest `count` audit events, oldest first; fewer if there are. Reads about as many records."""
    await require_topics(connection, spec)
    found: list[AuditEvent] = []
    source = TopicPartition(StreamTopics(spec.name).audit, 0)
    async with aclosing(read_back(partial(log_reader, connection), source)) as pieces:
        async for records in pieces:
            found = events_of(AuditEvent, records) + found
            if len(found) >= count:
                break
    return found[-count:]
