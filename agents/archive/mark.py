"""The mark: how far the archive of a stream is complete, as the checkpoint of the stage says it."""

from dataclasses import dataclass
from typing import Final

import msgspec

from agents.archive import STAGE
from schemas.events import Checkpoint
from schemas.wire import encode

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """Of the log that its files call `log`, every sample below `offset` is archived."""

    log: str = ""
    offset: int = 0


class _State(msgspec.Struct, frozen=True):
    log: str


def checkpoint_of(mark: Mark, topic: str, partition: int) -> Checkpoint:
    """Return the checkpoint that says so."""
    return Checkpoint(
        stage=STAGE,
        partition=partition,
        format=FORMAT,
        offsets={topic: mark.offset},
        state=msgspec.Raw(encode(_State(mark.log))),
    )


def mark_of(checkpoint: Checkpoint | None, topic: str) -> Mark:
    """Return what the checkpoint says; without one, or of another format, that nothing is archived."""
    if checkpoint is None or checkpoint.format != FORMAT:
        return Mark()
    return Mark(msgspec.json.decode(checkpoint.state, type=_State).log, checkpoint.offsets[topic])
