"""A checkpoint that holds what no replay would give again: it is read, or the worker ends and says why."""

from typing import TypeVar

import msgspec

from schemas.errors import FatalError, InvalidEvent
from schemas.events import Checkpoint
from schemas.wire import decode

S = TypeVar("S", bound=msgspec.Struct)


def state_of(kind: type[S], checkpoint: Checkpoint | None, version: int, what: str, otherwise: str) -> S:
    """Return the state in the checkpoint, or an empty one where there is none.

    Raises FatalError if it is of another format than `version`, or unreadable: `what` names it, and `otherwise` says
    how to do without.
    """
    if checkpoint is None:
        return kind()
    try:
        if checkpoint.format == version:
            return decode(kind, checkpoint.state)
        why = f"it is of format {checkpoint.format}, and this version of Penstock reads {version}"
    except InvalidEvent as error:
        why = str(error)
    raise FatalError(f"{what} cannot be read ({why}); run the version of Penstock that wrote it, or {otherwise}")
