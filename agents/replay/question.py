"""What is asked of history: which of it, and how it is to go instead."""

from dataclasses import dataclass
from typing import Final

from schemas.streams import StreamSpec

SERVED: Final = "served"


@dataclass(frozen=True, slots=True)
class Span:
    """The event times that are replayed: from `from_ms` to before `to_ms`; None is no limit."""

    from_ms: int | None = None
    to_ms: int | None = None

    def has(self, event_time_ms: int) -> bool:
        """Whether an event of that time is replayed."""
        return (self.from_ms is None or event_time_ms >= self.from_ms) and (
            self.to_ms is None or event_time_ms < self.to_ms
        )

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self.from_ms is None and self.to_ms is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`spec` is the stream as it is declared, `changed` as the replay is to take it: they have the same features.

    `model` is the id of a model that scores everything, or SERVED: each scores what it scored. With a `learner`, the
    name of one of the stream's, that takes over from its first snapshot on.
    """

    spec: StreamSpec
    changed: StreamSpec
    span: Span = Span()
    model: str = SERVED
    learner: str | None = None
