"""The mark: how far the archive of a stream is complete, as the checkpoint of the stage says it."""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import msgspec

from agents.archive import STAGE
from schemas.events import Checkpoint
from schemas.wire import encode
from stream.batches import Record, TopicPartition
from stream.memory import Memory

FORMAT: Final = 1


class Hole(msgspec.Struct, frozen=True):
    """Kafka forgot the offsets [first, stop) before they were archived; the next record is of the time `until_ms`.

    Offsets at its edges may have been commit markers, so it is at most as many samples.
    """

    first: int
    stop: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Of the log that its files call `log`, every sample below `offset` is archived that is in none of `holes`.

    `last_ms` is Kafka's time of the record just below `offset`, by which the log is known again; None in a mark of
    earlier versions.
    """

    log: str = ""
    offset: int = 0
    last_ms: int | None = None
    holes: tuple[Hole, ...] = ()


async def recognised(mark: Mark, memory: Memory, source: TopicPartition) -> tuple[Mark, bool]:
    """Return the mark, and whether the log still has the last record that is archived.

    When the log was made anew, it is the mark of nothing: just below the old one there is a record of another time, or
    none though there are earlier ones. A new log that has grown beyond the mark and forgotten what is below it is not
    told apart; no offset is there twice then.
    """
    if not mark.offset:
        return mark, False
    last = await _first(memory, source, mark.offset - 1, mark.offset)
    if last is not None:
        known = mark.last_ms in (None, last.timestamp)
        return (mark, True) if known else (Mark(), False)
    earlier = await _first(memory, source, 0, mark.offset)
    return mark if earlier is None else Mark(), False


async def _first(memory: Memory, source: TopicPartition, start: int, stop: int) -> Record | None:
    async with aclosing(memory.read(source, start, stop)) as batches:
        async for batch in batches:
            return batch.records[0]
    return None


class _State(msgspec.Struct, frozen=True):
    log: str
    last_ms: int | None = None
    holes: tuple[Hole, ...] = ()


def checkpoint_of(mark: Mark, topic: str, partition: int) -> Checkpoint:
    """Return the checkpoint that says so."""
    return Checkpoint(
        stage=STAGE,
        partition=partition,
        format=FORMAT,
        offsets={topic: mark.offset},
        state=msgspec.Raw(encode(_State(mark.log, mark.last_ms, mark.holes))),
    )


def mark_of(checkpoint: Checkpoint | None, topic: str) -> Mark:
    """Return what the checkpoint says; without one, or of another format, that nothing is archived."""
    if checkpoint is None or checkpoint.format != FORMAT:
        return Mark()
    state = msgspec.json.decode(checkpoint.state, type=_State)
    return Mark(state.log, checkpoint.offsets[topic], state.last_ms, state.holes)
