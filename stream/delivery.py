"""How a partition task writes what it made and says how far it got: exactly once, or at least once.

What is sent, and the offsets that it came from, belong to the next commit. While that is under way more can be sent
already, for the one after it. A delivery that failed is of no further use; the task opens a new one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from stream.batches import Outbox, TopicPartition
from stream.closing import together
from stream.links import Links
from stream.writer import Transaction, Writer

Offsets = Mapping[TopicPartition, int]


class Delivery(Protocol):
    """One task's way out. `hides_until_commit`: readers wait for the commit, so it should come early."""

    hides_until_commit: bool

    async def start(self) -> None:
        """Take over from whoever had the task before. Only after this are committed offsets final."""

    async def send(self, outbox: Outbox) -> None:
        """Send everything in `outbox`; acknowledgements are awaited by the commit."""

    def commit(self, saved: Outbox, offsets: Offsets) -> Awaitable[None]:
        """Make what was sent before this call durable and visible, with `saved` and `offsets` (the next to read).

        What is sent after the call belongs to the next commit, which must not begin before this one was awaited. It is
        to run as a task at once: what is sent meanwhile waits until all that it commits is written.
        """

    async def stop(self) -> None:
        """Give up what was not committed and close. Never raises."""


class ExactlyOnce:
    """Records and offsets in one Kafka transaction; a reader with `read_committed` sees all or nothing.

    Two transactions take turns: one is filled while the other is being committed, from when all records of that are in
    the log, so that they stand there in order; and it commits after it. The ids are the task's name, and that with a
    letter behind it: starting fences both of whoever had the task, and only then the offsets say where to go on.
    """

    hides_until_commit = True

    def __init__(self, links: Links, name: str, group: str) -> None:
        self._open, self._other = (Transaction(links, each, group) for each in (name, f"{name}.b"))
        self._written = asyncio.Event()  # whether all records of the other transaction are in the log
        self._written.set()

    async def start(self) -> None:
        await together(self._open.start(), self._other.start())

    async def send(self, outbox: Outbox) -> None:
        await self._written.wait()
        await self._open.send(outbox)

    def commit(self, saved: Outbox, offsets: Offsets) -> Awaitable[None]:
        closing, self._open, self._other = self._open, self._other, self._open
        written = self._written = asyncio.Event()
        return self._commit(closing, saved, offsets, written)

    async def stop(self) -> None:
        await asyncio.gather(self._open.stop(), self._other.stop())

    async def _commit(self, closing: Transaction, saved: Outbox, offsets: Offsets, written: asyncio.Event) -> None:
        try:
            if saved.targets:
                await closing.send(saved)
            await closing.write_offsets(offsets)
        finally:
            written.set()
        await closing.commit()


class AtLeastOnce:
    """Await every acknowledgement, then commit the group's offsets."""

    hides_until_commit = False

    def __init__(self, links: Links, name: str, commit_offsets: Callable[[Offsets], Awaitable[None]]) -> None:
        self._writer = Writer(links, name)
        self._commit_offsets = commit_offsets

    async def start(self) -> None:
        await self._writer.start()

    async def send(self, outbox: Outbox) -> None:
        await self._writer.send(outbox)

    async def commit(self, saved: Outbox, offsets: Offsets) -> None:
        if saved.targets:
            await self._writer.send(saved)
        await self._writer.settled()
        if offsets:
            await self._commit_offsets(offsets)

    async def stop(self) -> None:
        await self._writer.stop()
