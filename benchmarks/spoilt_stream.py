"""A stream of events, some of them spoilt, from an ordinary producer that notes where each one went."""

import hashlib
import itertools
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from aiokafka.partitioner import murmur2
from confluent_kafka import Producer
from numpy.typing import NDArray

from benchmarks import synthetic
from benchmarks.bad_events import KINDS, Bad
from benchmarks.checker import Place

GOOD: Final = "good"
UNKNOWN_FEATURE: Final = "unknown_feature"
BAD_SHARE: Final = 0.01
UNKNOWN_FEATURE_SHARE: Final = 0.01
_PARTITIONER_DECIDES: Final = -1
_LAST_ACK_S: Final = 120.0
# A huge event takes as much disk as 8,000 good ones.
_DECK: Final = [kind for kind in KINDS for _ in range(1 if kind == "huge" else 10)]


class Written(NamedTuple):
    """An acknowledged record. `kind` is `good`, `unknown_feature` or one of `KINDS`; `sha256` is of its value."""

    event_id: str
    place: Place
    kind: str
    sha256: str

    @property
    def good(self) -> bool:
        """Whether it must be scored."""
        return self.kind not in KINDS


class SpoiltStream:
    """Writes events to a topic. `written` are those that were acknowledged, in no order."""

    def __init__(self, bootstrap: str, topic: str, seed: int) -> None:
        self.written: list[Written] = []
        self._topic = topic
        self._random = random.Random(seed)
        self._bad_kinds = itertools.cycle(self._random.sample(_DECK, len(_DECK)))
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 20,
                "batch.size": 500_000,
                "message.max.bytes": 4 * 1024 * 1024,
                "queue.buffering.max.messages": 100_000,
                "log_level": 2,
            }
        )

    def write(self, values: NDArray[np.float64], tick: Callable[[], None]) -> None:
        """Write an event per row of `values`, calling `tick` now and then. Raises when one is not acknowledged."""
        for number, (key, value) in enumerate(synthetic.documents(values)):
            kind = self._draw_kind()
            record = Bad(key, value) if kind == GOOD else _spoil(kind, json.loads(value))
            partition = _PARTITIONER_DECIDES
            if record.detour:
                partition = (_home(key) + record.detour) % synthetic.PARTITIONS
            self._produce(number, kind, record, partition)
            if number % 1_000 == 0:
                tick()
        self._producer.flush(_LAST_ACK_S)
        if len(self.written) != len(values):
            raise RuntimeError(f"{len(values) - len(self.written)} events were not acknowledged")

    def _draw_kind(self) -> str:
        chance = self._random.random()
        if chance < BAD_SHARE:
            return next(self._bad_kinds)
        return UNKNOWN_FEATURE if chance < BAD_SHARE + UNKNOWN_FEATURE_SHARE else GOOD

    def _produce(self, number: int, kind: str, record: Bad, partition: int) -> None:
        sha256 = hashlib.sha256(record.value or b"").hexdigest() if kind in KINDS else ""
        acknowledged = partial(self._acknowledged, synthetic.event_id(number), kind, sha256)
        while True:
            try:
                self._producer.produce(self._topic, record.value, record.key, partition, on_delivery=acknowledged)
                break
            except BufferError:
                self._producer.poll(0.05)
        self._producer.poll(0)

    def _acknowledged(self, event_id: str, kind: str, sha256: str, error: Any, message: Any) -> None:
        if error is None:
            self.written.append(Written(event_id, Place(message.partition(), message.offset()), kind, sha256))


def _spoil(kind: str, document: dict[str, Any]) -> Bad:
    if kind in KINDS:
        return KINDS[kind](document)
    document["features"]["never_declared"] = 1.5
    return Bad(document["entity_id"].encode(), json.dumps(document).encode())


def _home(key: bytes) -> int:
    """The partition where Java's default partitioner puts a key."""
    home: int = (murmur2(key) & 0x7FFFFFFF) % synthetic.PARTITIONS
    return home
