"""Writes records to the partitions they name, in the order of the calls, each once; in a transaction when wanted.

aiokafka's producer keeps what it is given, tries again, and asks its coordinator one thing after the other. That is of
no use to a partition task: whatever fails, it opens again from what was last committed. So nothing is tried again here,
requests go out at once, and all that the broker must be told before a commit travels together.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from itertools import zip_longest
from typing import Any, Final

from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from schemas.errors import RetryableError
from stream.batches import Outbox, TopicPartition
from stream.closing import quietly, together
from stream.links import Links

BATCH_BYTES: Final = 768 * 1024  # below the 1 MB that a topic takes by default
IN_FLIGHT: Final = 4  # requests may be on their way when more is sent
PRODUCE_TIMEOUT_MS: Final = 20_000  # a broker answers sooner than its client gives up
TRANSACTION_MS: Final = 60_000
BUSY_S: Final = (0.002, 0.05)  # between two questions whether the last transaction's markers are written: first, later
BUSY_TRIES: Final = 400  # some twenty seconds
_SEQUENCES: Final = 2**31

Ack = asyncio.Task[None]


class Writer:
    """An idempotent producer: a broker takes each batch once. Its numbers begin anew whenever it starts."""

    def __init__(self, links: Links, name: str) -> None:
        self._links = links
        self._name = name
        self._transactional_id: str | None = None
        self._producer_id = self._epoch = -1
        self._sequences: dict[TopicPartition, int] = {}
        self._nodes: dict[TopicPartition, int] = {}
        self._connections: dict[int, AIOKafkaConnection] = {}
        self._acks: list[Ack] = []
        self._dialing = asyncio.Lock()

    async def start(self) -> None:
        """Get a producer id."""
        await self._init(self._links.any_node())

    async def send(self, outbox: Outbox) -> None:
        """Send every record; `settled` waits for the acknowledgements. Raises what an earlier record failed of."""
        nodes = [await self._ready(target) for target in outbox.targets]
        while len(self._acks) >= IN_FLIGHT:
            await asyncio.wait(self._acks, return_when=asyncio.FIRST_COMPLETED)
            self._let_go()
        self._let_go()
        # From here to the end nothing waits: so all that is sent goes out in the order of the calls.
        by_node: dict[int, list[list[tuple[TopicPartition, bytes]]]] = defaultdict(list)
        for node, (target, records) in zip(nodes, outbox.targets.items(), strict=True):
            by_node[node].append([(target, batch) for batch in self._batches(target, records)])
        for node, of_targets in by_node.items():
            for batches in zip_longest(*of_targets):  # a request takes one batch of each partition
                self._produce(self._connections[node], [each for each in batches if each is not None])

    async def settled(self) -> None:
        """Wait until everything that was sent is acknowledged; raise what any of it failed of."""
        acks, self._acks = self._acks, []
        try:
            if acks:
                await asyncio.wait(acks, return_when=asyncio.FIRST_EXCEPTION)
            for ack in acks:
                if ack.done():
                    ack.result()
        except BaseException:
            self._acks += acks  # `stop` must see to them
            raise

    async def stop(self) -> None:
        """Close all connections; what has no answer yet gets none. Never raises."""
        for ack in self._acks:
            ack.cancel()
        await asyncio.gather(*self._acks, return_exceptions=True)
        self._acks.clear()
        closing = [closed for link in self._connections.values() if (closed := link.close()) is not None]
        self._connections.clear()
        if closing:
            await quietly(asyncio.wait(closing))

    def _let_go(self) -> None:
        """Forget the requests that were answered; raise when one was refused."""
        for ack in self._acks:
            if ack.done():
                ack.result()
        self._acks = [ack for ack in self._acks if not ack.done()]

    async def _ready(self, target: TopicPartition) -> int:
        """Return who leads `target`, connected."""
        if (node := self._nodes.get(target)) is None:
            node = self._nodes[target] = await self._links.leader(target)
        await self._connect(node)
        return node

    async def _connect(self, node: int) -> AIOKafkaConnection:
        async with self._dialing:
            link = self._connections.get(node)
            if link is None or not link.connected():  # it was idle for long
                link = self._connections[node] = await self._links.connect(node, self._name)
            return link

    async def _init(self, node: int) -> None:
        link = await self._connect(node)
        answer = await link.send(InitProducerIdRequest(self._transactional_id, TRANSACTION_MS))
        _check(answer.error_code, f"a producer id for {self._name}")
        self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch
        self._sequences.clear()

    def _batches(self, target: TopicPartition, records: list[tuple[bytes | None, bytes]]) -> Iterable[bytes]:
        """Yield the records as batches that a topic takes. A record that is larger than that is a batch of its own."""
        now_ms = time.time_ns() // 1_000_000
        first = 0
        while first < len(records):
            sequence = self._sequences.get(target, 0)
            builder = DefaultRecordBatchBuilder(
                2, 0, int(self._transactional_id is not None), self._producer_id, self._epoch, sequence, BATCH_BYTES
            )
            append, place = builder.append, 0
            for key, value in records[first:] if first else records:
                if append(place, now_ms, key, value, []) is None:
                    break
                place += 1
            first += place
            self._sequences[target] = (sequence + place) % _SEQUENCES
            yield builder.build()

    def _produce(self, link: AIOKafkaConnection, batches: Iterable[tuple[TopicPartition, bytes]]) -> None:
        topics: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for target, batch in batches:
            topics[target.topic].append((target.partition, batch))
        request = ProduceRequest(self._transactional_id, -1, PRODUCE_TIMEOUT_MS, [*topics.items()])
        self._acks.append(asyncio.create_task(self._acknowledged(link.send(request))))

    async def _acknowledged(self, answer: Awaitable[Any]) -> None:
        try:
            for topic, partitions in (await answer).topics:
                for partition, error_code, *_ in partitions:
                    _check(error_code, f"{topic}/{partition}")
        except (errors.KafkaError, TimeoutError) as error:
            if isinstance(error, TimeoutError) or getattr(error, "invalid_metadata", False):
                self._links.outdated()
            raise


class Transaction(Writer):
    """A writer whose records, and a group's offsets, become visible together or not at all; one after the other.

    Starting it ends whatever another process left of this id, and fences that process.
    """

    def __init__(self, links: Links, transactional_id: str, group: str) -> None:
        super().__init__(links, transactional_id)
        self._transactional_id = transactional_id
        self._group = group
        self._coordinator = self._group_coordinator = -1
        self._under_way = False
        self._added: set[TopicPartition] = set()
        self._used: set[TopicPartition] = set()
        self._beginning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fence whoever has this id, and wait until what they left is committed or aborted."""
        assert self._transactional_id is not None
        self._coordinator = await self._links.transaction_coordinator(self._transactional_id)
        self._group_coordinator = await self._links.group_coordinator(self._group)
        await self._until_free(lambda: self._init(self._coordinator))

    async def send(self, outbox: Outbox) -> None:
        await self._begun()
        if new := outbox.targets.keys() - self._added:
            await self._tell(self._addition(new))
            self._added |= new
        self._used |= outbox.targets.keys()
        await super().send(outbox)

    async def write_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Send `offsets`; return when they and all that was sent are written, though not visible yet."""
        await self._begun()
        if offsets:
            self._acks.append(asyncio.create_task(self._commit_offsets(offsets)))
        await self.settled()

    async def commit(self) -> None:
        """Make all that was written visible; return when that is decided."""
        await self._tell(EndTxnRequest(*self._me, True))
        self._beginning, self._under_way = None, False

    async def stop(self) -> None:
        """Abort what was not committed, if the broker answers within seconds, and close. Never raises."""
        if self._beginning is not None:
            await quietly(self._abort())
            self._beginning.cancel()
            await asyncio.gather(self._beginning, return_exceptions=True)
            self._beginning = None
        await super().stop()

    async def _abort(self) -> None:
        # A record that came after the abort would belong to no transaction, and hide what follows it for ever. So where
        # an answer was lost there is no abort from here: the next owner's start does it, and refuses what comes late.
        assert self._beginning is not None
        await asyncio.wait({self._beginning, *self._acks})
        if all(map(_answered, self._acks)):
            await self._tell(EndTxnRequest(*self._me, False))

    async def _begun(self) -> None:
        """Wait until the coordinator knows of the transaction, and of the partitions that the last one wrote to."""
        if self._beginning is None:
            self._added, self._used = self._used, set()
            self._connections = {node: link for node, link in self._connections.items() if link.connected()}
            self._beginning = asyncio.create_task(self._begin(self._added))
        await asyncio.shield(self._beginning)
        self._under_way = True

    async def _connect(self, node: int) -> AIOKafkaConnection:
        """Connect, but never again within a transaction: what a broker knew of it before it went may be gone."""
        link = self._connections.get(node)
        if self._under_way and link is not None and not link.connected():
            raise errors.KafkaConnectionError(f"broker {node} was lost during a transaction of {self._name}")
        return await super()._connect(node)

    async def _begin(self, targets: Collection[TopicPartition]) -> None:
        asked = [self._tell(AddOffsetsToTxnRequest(*self._me, self._group))]
        if targets:
            asked.append(self._tell(self._addition(targets)))
        await together(*asked)

    async def _tell(self, request: Any) -> None:
        """Tell the coordinator something, again while it still ends the transaction before this one."""

        async def ask() -> None:
            link = await self._connect(self._coordinator)
            _check_all(await link.send(request), self._name)

        await self._until_free(ask)

    async def _until_free(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask until the markers of the last transaction are written. Raises a RetryableError after twenty seconds."""
        first_s, later_s = BUSY_S
        for tries in range(BUSY_TRIES):
            try:
                await ask()
            except errors.ConcurrentTransactions:
                await asyncio.sleep(min(first_s * (1 + tries), later_s))
            else:
                return
        raise RetryableError(f"the last transaction of {self._name} does not come to its end")

    async def _commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        topics: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for source, offset in offsets.items():
            topics[source.topic].append((source.partition, offset, ""))
        link = await self._connect(self._group_coordinator)
        transactional_id, *producer = self._me
        request = TxnOffsetCommitRequest(transactional_id, self._group, *producer, [*topics.items()])
        _check_all(await link.send(request), f"the offsets of {self._group}")

    def _addition(self, targets: Collection[TopicPartition]) -> AddPartitionsToTxnRequest:
        topics: dict[str, list[int]] = defaultdict(list)
        for target in targets:
            topics[target.topic].append(target.partition)
        return AddPartitionsToTxnRequest(*self._me, [*topics.items()])

    @property
    def _me(self) -> tuple[str, int, int]:
        assert self._transactional_id is not None
        return self._transactional_id, self._producer_id, self._epoch


def _answered(ack: Ack) -> bool:
    """Tell whether a broker said what became of a request, be it an error."""
    if ack.cancelled():
        return False
    error = ack.exception()
    return error is None or isinstance(error, (errors.BrokerResponseError, errors.ProducerFenced))


def _check_all(answer: Any, what: str) -> None:
    """Raise the error that an answer tells of, if it tells of one."""
    if hasattr(answer, "error_code"):
        return _check(answer.error_code, what)
    for topic, partitions in answer.errors:
        for partition, error_code in partitions:
            if error_code != errors.OperationNotAttempted.errno:  # another one says why
                _check(error_code, f"{what}: {topic}/{partition}")
    return None


def _check(error_code: int, what: str) -> None:
    if error_code == errors.InvalidProducerEpoch.errno:
        raise errors.ProducerFenced
    if error_code:
        raise errors.for_code(error_code)(what)
