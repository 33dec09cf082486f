"""A stage of the stream, as a partition task runs it: a batch in, everything that is made of it out."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from stream.batches import Batch, Outbox, TopicPartition


class Stage:
    """What a partition task runs. One instance per task, opened again whenever the task is.

    A subclass overrides what it needs. It may keep state between batches: the fold of every record before the
    committed offsets (see `memory`).

    Several inputs are read side by side, as they were written by Kafka's time, if they are `aligned`. That costs a wait
    wherever one of them seems to have more on its way; a stage to which it does not matter goes without.
    """

    aligned: ClassVar[bool] = True
    wake: Callable[[], None] = staticmethod(lambda: None)
    """Set by the task: a stage that works in the background calls it, on the event loop, when it has news."""

    @property
    def has_news(self) -> bool:
        """Whether `save` has something to write although no record came: it is called soon after `wake`."""
        return False

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Get ready for records from `committed` on, after the previous owner was fenced; forget any state before."""

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Put everything made of `batch` into `outbox`. Raising loses nothing: the batch comes again."""
        raise NotImplementedError

    async def save(self, outbox: Outbox) -> None:
        """Put the state, if it is time, into `outbox`: it is committed with all that was processed so far."""

    async def finish(self) -> None:
        """Stop what works in the background: the task closes on purpose, and calls `save` for the last time."""

    async def close(self) -> None:
        """Give up what `open` took. Never raises."""
