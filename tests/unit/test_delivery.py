"""Both deliveries against a producer that does what aiokafka's does, good and bad."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalOperation, KafkaError, MessageSizeTooLargeError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from stream.batches import Outbox, Outgoing, TopicPartition
from stream.delivery import BATCH_BYTES, AtLeastOnce, ExactlyOnce, send_outbox
from tests.support import leap_through, now

OFFSETS = {TopicPartition("in", 0): 7}
OUT = TopicPartition("out", 3)


class Producer:
    """Notes its calls. Batches are acknowledged by `acknowledge`; `silent` names the calls that never return."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.batches: list[tuple[TopicPartition, list[Outgoing]]] = []
        self.silent: set[str] = set()
        self.dead = False
        self._sender = SimpleNamespace(sender_task=None, close=self._nothing)
        self.client = SimpleNamespace(close=self._nothing)
        self._waiting: list[asyncio.Future[object]] = []

    async def _nothing(self) -> None:
        pass

    def acknowledge(self, error: KafkaError | None = None) -> None:
        for future in self._waiting:
            if future.cancelled():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self._waiting.clear()

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, 0)

    async def send_batch(self, builder: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[object]:
        await self._call("send_batch")
        self.batches.append((TopicPartition(topic, partition), _records(builder)))
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    async def start(self) -> None:
        await self._call("start")

    async def stop(self) -> None:
        self.dead = False
        await self._call("stop")

    async def begin_transaction(self) -> None:
        await self._call("begin")

    async def send_offsets_to_transaction(self, offsets: Mapping[TopicPartition, int], group: str) -> None:
        assert (dict(offsets), group) == (OFFSETS, "group")
        await self._call("offsets")

    async def commit_transaction(self) -> None:
        """Commit, as aiokafka does, as soon as every batch has an answer, whatever the answer is."""
        if self._waiting:
            await asyncio.wait(self._waiting)
        await self._call("commit")

    async def abort_transaction(self) -> None:
        await self._call("abort")

    async def _call(self, name: str) -> None:
        if self.dead:
            raise IllegalOperation("Not in the middle of a transaction")
        self.calls.append(name)
        await asyncio.sleep(3600.0 if name in self.silent else 0)


def _records(builder: BatchBuilder) -> list[Outgoing]:
    records = MemoryRecords(bytes(builder._build()))
    found = []
    while (batch := records.next_batch()) is not None:
        found += [Outgoing(record.key, record.value) for record in batch]
    return found


def _outbox(*values: bytes) -> Outbox:
    outbox = Outbox()
    outbox.extend(OUT.topic, OUT.partition, [Outgoing(b"key", value) for value in values])
    return outbox


Scenario = Callable[[Producer, Any], Coroutine[None, None, None]]


def once(scenario: Scenario) -> Callable[[], None]:
    """Run a scenario in leaping time with an ExactlyOnce delivery."""

    async def run() -> None:
        producer = Producer()
        await scenario(producer, ExactlyOnce(producer, "group"))

    return lambda: leap_through(run())


def test_records_go_to_the_partition_they_name_in_order_and_in_batches_that_a_topic_takes() -> None:
    async def run() -> None:
        producer = Producer()
        sent = [Outgoing(b"%d" % i, b"x" * 300_000) for i in range(5)] + [Outgoing(None, b"y" * 2_000_000)]
        outbox = _outbox(b"small")
        outbox.extend("dead", 1, sent)
        futures = await send_outbox(producer, outbox)
        assert len(futures) == len(producer.batches)
        assert [records for target, records in producer.batches if target == OUT] == [[Outgoing(b"key", b"small")]]
        large = [records for target, records in producer.batches if target == TopicPartition("dead", 1)]
        assert [record for records in large for record in records] == sent
        assert [len(records) for records in large] == [2, 2, 1, 1]

    leap_through(run())


@once
async def test_records_and_offsets_are_one_transaction(producer: Producer, delivery: ExactlyOnce) -> None:
    await delivery.start()
    await delivery.send(_outbox(b"1"))
    await delivery.send(_outbox(b"2"))
    producer.acknowledge()
    await delivery.commit(OFFSETS)
    await delivery.send(_outbox(b"3"))
    producer.acknowledge()
    await delivery.commit(OFFSETS)
    transaction = ["send_batch", "offsets", "commit"]
    assert producer.calls == ["start", "begin", "send_batch", *transaction, "begin", *transaction]


@once
async def test_no_offset_is_committed_past_a_batch_that_failed(producer: Producer, delivery: ExactlyOnce) -> None:
    await delivery.start()
    await delivery.send(_outbox(b"1"))
    asyncio.get_running_loop().call_later(1.0, producer.acknowledge, MessageSizeTooLargeError())
    with pytest.raises(MessageSizeTooLargeError):
        await delivery.commit(OFFSETS)
    assert "commit" not in producer.calls
    await delivery.stop()
    assert producer.calls[-2:] == ["abort", "stop"]


@pytest.mark.parametrize("step", ["send", "commit"])
def test_a_fenced_producer_says_so_at_the_next_step(step: str) -> None:
    @once
    async def check(producer: Producer, delivery: ExactlyOnce) -> None:
        await delivery.start()
        await delivery.send(_outbox(b"1"))
        producer.acknowledge(ProducerFenced())
        producer.dead = True  # from here on aiokafka has only "Not in the middle of a transaction" to say
        with pytest.raises(ProducerFenced):
            await (delivery.send(_outbox(b"2")) if step == "send" else delivery.commit(OFFSETS))

    check()


@once
async def test_stopping_aborts_what_was_not_committed(producer: Producer, delivery: ExactlyOnce) -> None:
    await delivery.start()
    await delivery.send(_outbox(b"1"))
    await delivery.stop()
    assert producer.calls == ["start", "begin", "send_batch", "abort", "stop"]


@once
async def test_stopping_after_a_commit_has_nothing_to_abort(producer: Producer, delivery: ExactlyOnce) -> None:
    await delivery.start()
    await delivery.send(_outbox(b"1"))
    producer.acknowledge()
    await delivery.commit(OFFSETS)
    await delivery.stop()
    assert producer.calls[-2:] == ["commit", "stop"]


@once
async def test_stopping_waits_only_seconds_for_a_broker_that_is_away(producer: Producer, delivery: ExactlyOnce) -> None:
    producer.silent = {"abort", "stop"}
    await delivery.start()
    await delivery.send(_outbox(b"1"))
    await delivery.stop()
    assert producer.calls[-2:] == ["abort", "stop"]
    assert now() <= 10.0


def test_stopping_leaves_no_error_for_the_garbage_collector_to_complain_of() -> None:
    complaints: list[object] = []

    @once
    async def check(producer: Producer, delivery: ExactlyOnce) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        await delivery.start()
        await delivery.send(_outbox(b"1"))
        await delivery.send(_outbox(b"2"))
        producer.acknowledge(ProducerFenced())
        await delivery.stop()
        del delivery
        gc.collect()

    check()
    gc.collect()
    assert complaints == []


class Group:
    """Notes the offsets that were committed, and when."""

    def __init__(self) -> None:
        self.committed: list[tuple[float, Mapping[TopicPartition, int]]] = []

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.committed.append((now(), offsets))


def test_without_transactions_offsets_wait_for_every_acknowledgement() -> None:
    async def run() -> None:
        producer, group = Producer(), Group()
        delivery = AtLeastOnce(producer, group.commit)
        await delivery.start()
        await delivery.send(_outbox(b"1"))
        asyncio.get_running_loop().call_later(2.0, producer.acknowledge)
        await delivery.commit(OFFSETS)
        [(time_s, offsets)] = group.committed
        assert time_s == pytest.approx(2.0)
        assert offsets == OFFSETS
        await delivery.stop()
        assert producer.calls == ["start", "send_batch", "stop"]

    leap_through(run())


def test_without_transactions_no_offset_is_committed_past_a_batch_that_failed() -> None:
    async def run() -> None:
        producer, group = Producer(), Group()
        delivery = AtLeastOnce(producer, group.commit)
        await delivery.start()
        await delivery.send(_outbox(b"1"))
        producer.acknowledge(MessageSizeTooLargeError())
        with pytest.raises(MessageSizeTooLargeError):
            await delivery.commit(OFFSETS)
        assert group.committed == []

    leap_through(run())
