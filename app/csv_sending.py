"""Sending the rows of a CSV file to a stream's topics, as its producers do: keyed by entity, in the order of time."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app.csv_events import NO_LABEL, CsvEvents
from app.models import producer
from schemas.errors import RetryableError, SettingsError
from schemas.events import Label
from schemas.features import FeatureEvent
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.connection import KafkaConnection
from topics import StreamTopics

_BURSTS_PER_S: Final = 10


@dataclass(slots=True)
class Sent:
    """How many records the broker has acknowledged so far."""

    features: int = 0
    labels: int = 0


@dataclass(frozen=True, slots=True)
class _Record:
    topic: str
    key: bytes
    value: bytes


class CsvSender:
    """Turns rows into records. A row without a time happens at the moment that it is sent; a label is known at once."""

    def __init__(self, spec: StreamSpec, events: CsvEvents, clock_ms: Callable[[], int], *, labels: bool) -> None:
        """Raises SettingsError when an event comes twice, as only one of them would get its label."""
        event_id, times = Counter(events.event_ids).most_common(1)[0]
        if times > 1:
            raise SettingsError(f"event id {event_id!r} comes {times} times; name another column with --event-id")
        self._spec = spec
        self._topics = StreamTopics(spec.name)
        self._events = events
        self._clock_ms = clock_ms
        self._labels = labels

    async def send(self, connection: KafkaConnection, rate: float, tell: Callable[[Sent], None]) -> Sent:
        """Send all rows, `rate` of them a second; `tell` is called ten times a second.

        The whole burst of a tenth of a second is acknowledged before the next one leaves. Raises RetryableError, which
        says how many were, when Kafka does not take one, and KafkaError when it cannot be reached.
        """
        sent, total = Sent(), len(self._events.event_ids)
        burst = max(1, math.ceil(rate / _BURSTS_PER_S))
        loop = asyncio.get_running_loop()
        async with producer(connection) as sending:
            began_s = loop.time()
            for start in range(0, total, burst):
                await asyncio.sleep(began_s + start / rate - loop.time())
                rows = range(start, min(start + burst, total))
                failure = await self._send(sending, [record for row in rows for record in self._records(row)], sent)
                tell(sent)
                if failure is not None:
                    raise RetryableError(
                        f"Kafka took {sent.features:,} of {total:,} events and {sent.labels:,} labels, and then no "
                        f"more: {failure}"
                    ) from failure
        return sent

    async def _send(self, sending: AIOKafkaProducer, records: Sequence[_Record], sent: Sent) -> KafkaError | None:
        """Send records, wait for all of them, and count what was acknowledged; return the first failure."""
        failure, pending = None, []
        try:
            for record in records:
                acknowledged = await sending.send(record.topic, record.value, record.key)
                pending.append(acknowledged)
        except KafkaError as error:
            failure = error
        for record, outcome in zip(records, await asyncio.gather(*pending, return_exceptions=True), strict=False):
            if isinstance(outcome, KafkaError):
                failure = failure or outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            elif record.topic == self._topics.features:
                sent.features += 1
            else:
                sent.labels += 1
        return failure

    def _records(self, row: int) -> Iterator[_Record]:
        """Yield the feature event of a row, and its label if it has one that is wanted."""
        events = self._events
        event_id, entity_id = events.event_ids[row], events.entity_ids[row]
        time_ms = self._clock_ms() if events.times_ms is None else int(events.times_ms[row])
        values = [None if math.isnan(value) else value for value in events.features[row].tolist()]
        features = dict(zip(self._spec.features, values, strict=True))
        event = FeatureEvent(event_id=event_id, entity_id=entity_id, event_time_ms=time_ms, features=features)
        yield _Record(self._topics.features, entity_id.encode(), encode(event))
        if self._has_label(row):
            index = int(events.labels[row])
            name = self._spec.classes[index] if self._spec.classes else index
            label = Label(event_id=event_id, entity_id=entity_id, label=name, label_time_ms=time_ms)
            yield _Record(self._topics.labels, entity_id.encode(), encode(label))

    def _has_label(self, row: int) -> bool:
        return self._labels and int(self._events.labels[row]) != NO_LABEL
