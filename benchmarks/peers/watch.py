"""A reader of predictions that looks at the clock as soon as it has one in hand."""

import threading
import time
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from numpy.typing import NDArray

from benchmarks import synthetic
from benchmarks.peers.outputs import Events

_WAIT_S: Final = 0.1
_MOST: Final = 10_000


class _Seen(msgspec.Struct, gc=False):
    event_id: str


class Watch(threading.Thread):
    """Reads what is committed of a topic while its block runs. Wakes up when something comes, and decodes nothing."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(name="watch", daemon=True)
        self._consumer: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": 2,
            }
        )
        places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(synthetic.PARTITIONS)]
        self._consumer.assign(places)
        self._read: list[tuple[float, list[bytes]]] = []
        self._done = threading.Event()
        self._problem: BaseException | None = None
        self.count = 0

    def run(self) -> None:
        """Read until the block ends."""
        try:
            while not self._done.is_set():
                first = self._consumer.poll(_WAIT_S)
                if first is not None:
                    now_ms = time.time() * 1000
                    self._keep(now_ms, [first, *self._consumer.consume(_MOST, 0)])
        except KafkaException as problem:
            self._problem = problem

    def seen_ms(self, events: Events) -> NDArray[np.float64]:
        """Return when the prediction of each event was first seen, by its number; NaN when it was not."""
        if self._problem is not None:
            raise self._problem
        decode = msgspec.json.Decoder(_Seen).decode
        seen = np.full(len(events), np.nan)
        for time_ms, values in reversed(self._read):
            for value in values:
                number = events.numbers.get(decode(value).event_id, -1)
                if number >= 0:
                    seen[number] = time_ms
        return seen

    def _keep(self, now_ms: float, messages: list[Any]) -> None:
        values = []
        for message in messages:
            error = message.error()
            if error is None:
                values.append(message.value())
            elif not error.retriable() and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
        self._read.append((now_ms, values))
        self.count += len(values)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self.join()
        self._consumer.close()
