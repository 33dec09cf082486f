"""A broker that does what it is told to, good and bad, for the tests of both deliveries."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from aiokafka import errors
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)
from aiokafka.record.memory_records import MemoryRecords

from stream.batches import Outbox, Outgoing, TopicPartition
from stream.delivery import ExactlyOnce
from tests.support import leap_through

OFFSETS = {TopicPartition("in", 0): 7}
OUT = TopicPartition("out", 3)
STATE = TopicPartition("state", 0)
LEADERS = {"out": 1, "state": 1, "elsewhere": 2}
NAMES = {
    InitProducerIdRequest: "init",
    AddOffsetsToTxnRequest: "group",
    AddPartitionsToTxnRequest: "add",
    ProduceRequest: "produce",
    TxnOffsetCommitRequest: "offsets",
}


class Broker:
    """Notes what it is asked, and by whom.

    `refuses` has the errors of its next answers, which take `takes_s`; `loses` has what happens instead of an answer.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.details: list[str] = []
        self.written: list[tuple[TopicPartition, list[Outgoing]]] = []
        self.sequences: dict[tuple[str | None, TopicPartition], list[int]] = defaultdict(list)
        self.refuses: dict[str, deque[type[errors.KafkaError]]] = defaultdict(deque)
        self.loses: dict[str, deque[type[Exception]]] = defaultdict(deque)
        self.takes_s: dict[str, float] = {}
        self.answering = 0
        self.most_answering = 0
        self.open = 0
        self.up = True
        self.leaders = dict(LEADERS)
        self.coordinator = 3  # of transactions
        self.generation = 0  # of connections: those of an earlier one are closed

    # What `Links` does

    async def leader(self, target: TopicPartition) -> int:
        return self.leaders.get(target.topic, 1)

    async def transaction_coordinator(self, _: str) -> int:
        return self.coordinator

    async def group_coordinator(self, _: str) -> int:
        return 4

    def any_node(self) -> int:
        return 1

    def outdated(self) -> None:
        self.asked.append("outdated")

    async def connect(self, node: int, client_id: str) -> "Connection":
        await asyncio.sleep(0)
        self.open += 1
        return Connection(self, node)

    def answer(self, node: int, request: Any) -> Awaitable[Any]:
        kind = ("commit" if request._transaction_result else "abort") if isinstance(request, EndTxnRequest) else ""
        kind = kind or NAMES[type(request)]
        self.asked.append(kind)
        targets = sorted(
            f"{topic}/{each}" for topic, many in getattr(request, "_topics", ()) for each in _numbers(many)
        )
        self.details.append(" ".join([kind, str(request._transactional_id), *targets, f"at {node}"]))
        refused = self.refuses[kind].popleft() if self.refuses[kind] else None
        if kind == "produce" and refused is None:
            self._write(request)
        return self._later(kind, 0 if refused is None else refused.errno, request)

    def _write(self, request: ProduceRequest) -> None:
        for topic, partitions in request._topics:
            for partition, data in partitions:
                target, memory = TopicPartition(topic, partition), MemoryRecords(bytes(data))
                batch = memory.next_batch()
                assert memory.next_batch() is None, "a request takes one batch of each partition"
                assert batch.is_transactional == (request._transactional_id is not None)
                self.written.append((target, [Outgoing(record.key, record.value) for record in batch]))
                self.sequences[request._transactional_id, target].append(batch.base_sequence)

    async def _later(self, kind: str, code: int, request: Any) -> Any:
        self.answering += 1
        self.most_answering = max(self.most_answering, self.answering)
        try:
            await asyncio.sleep(self.takes_s.get(kind, 0.0))
        finally:
            self.answering -= 1
        if self.loses[kind]:
            raise self.loses[kind].popleft()
        if kind == "produce":
            return SimpleNamespace(topics=[("out", [(3, code, 0, -1, 0)])])
        if kind in ("add", "offsets"):
            return SimpleNamespace(errors=[("out", [(3, code)])])
        return SimpleNamespace(error_code=code, producer_id=17, producer_epoch=4)


class Connection:
    def __init__(self, broker: Broker, node: int) -> None:
        self._broker = broker
        self._node = node
        self._generation = broker.generation

    def send(self, request: Any) -> Awaitable[Any]:
        return self._broker.answer(self._node, request)

    def connected(self) -> bool:
        return self._broker.up and self._broker.generation == self._generation

    def close(self) -> asyncio.Future[None]:
        self._broker.open -= self._broker.generation == self._generation
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        return closed


def _numbers(partitions: list[Any]) -> list[int]:
    return [each[0] if isinstance(each, tuple) else each for each in partitions]


def outbox_of(*values: bytes, target: TopicPartition = OUT) -> Outbox:
    outbox = Outbox()
    outbox.extend(target.topic, target.partition, [Outgoing(b"key", value) for value in values])
    return outbox


Scenario = Callable[[Broker, Any], Coroutine[None, None, None]]


def once(scenario: Scenario) -> Callable[[], None]:
    """Run a scenario in leaping time with an ExactlyOnce delivery that has started; all is closed at its end."""

    async def run() -> None:
        broker = Broker()
        delivery = ExactlyOnce(broker, "task", "group")  # type: ignore[arg-type]
        await delivery.start()
        try:
            await scenario(broker, delivery)
        finally:
            await delivery.stop()
        assert broker.open == 0

    return lambda: leap_through(run())
