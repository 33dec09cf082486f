"""Rows on their way to Kafka, and one that it does not take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiokafka.errors import KafkaError, RecordTooLargeError

from app import csv_sending
from app.csv_events import CsvEvents
from app.csv_sending import CsvSender, Sent
from schemas.errors import RetryableError, SettingsError
from schemas.streams import CsvSpec, StreamSpec
from stream.connection import KafkaConnection

SPEC = StreamSpec(name="s", features=("a",))
CONNECTION = KafkaConnection(bootstrap="nowhere:9092")


def events(ids: list[str], labels: list[int]) -> CsvEvents:
    return CsvEvents(
        columns=CsvSpec(),
        event_ids=ids,
        entity_ids=ids,
        times_ms=np.arange(len(ids)),
        features=np.ones((len(ids), 1)),
        labels=np.array(labels),
    )


class Refusing:
    """Takes each record in a moment, the later the longer, but refuses those of one key, at once or in a moment."""

    def __init__(self, key: bytes, *, at_once: bool) -> None:
        self.key = key
        self.at_once = at_once
        self.acknowledged: list[asyncio.Future[None]] = []

    async def send(self, _topic: str, _value: bytes, key: bytes) -> asyncio.Future[None]:
        if key == self.key and self.at_once:
            raise RecordTooLargeError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.acknowledged.append(future)
        settle = (future.set_exception, RecordTooLargeError()) if key == self.key else (future.set_result, None)
        loop.call_later(0.001 * len(self.acknowledged), *settle)
        return future


@pytest.mark.parametrize(("at_once", "taken"), [(True, "2 of 5 events and 1 labels"), (False, "4 of 5 events")])
async def test_all_that_left_is_awaited_and_counted_when_kafka_does_not_take_a_row(
    monkeypatch: pytest.MonkeyPatch, *, at_once: bool, taken: str
) -> None:
    refusing = Refusing(b"c", at_once=at_once)

    @asynccontextmanager
    async def producer(_: KafkaConnection) -> AsyncIterator[Refusing]:
        yield refusing

    monkeypatch.setattr(csv_sending, "producer", producer)
    sender = CsvSender(SPEC, events(["a", "b", "c", "d", "e"], [1, -1, -1, 0, -1]), lambda: 0, labels=True)
    told: list[Sent] = []
    with pytest.raises(RetryableError, match=f"Kafka took {taken}") as raised:
        await sender.send(CONNECTION, 1_000, told.append)
    assert isinstance(raised.value.__cause__, KafkaError)
    assert len(refusing.acknowledged) == (3 if at_once else 7)
    assert all(future.done() for future in refusing.acknowledged)
    assert len(told) == 1


def test_an_event_that_comes_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="event id 'a' comes 2 times"):
        CsvSender(SPEC, events(["a", "b", "a"], [0, 0, 0]), lambda: 0, labels=False)
