"""Which requests to train anew would have become runs: the trainer's own rules, as if each run took no time."""

from collections.abc import Sequence
from dataclasses import dataclass

from agents.train.queue import Queue, begun, ended, received
from schemas.events import RetrainRequest
from schemas.streams import StreamSpec


@dataclass(frozen=True, slots=True)
class Trigger:
    """A request, and why it would have become no run; empty if it would have."""

    request: RetrainRequest
    why_not: str


def triggers_of(spec: StreamSpec, requests: Sequence[RetrainRequest]) -> list[Trigger]:
    """Return what becomes of the requests, in their order. Without `[training]` none becomes a run.

    A run has read what was ripe at its request; the cool-down counts from there.
    """
    rules = spec.training
    if rules is None:
        return [Trigger(request, "the stream has no [training]") for request in requests]
    queue, found = Queue(), []
    for request in requests:
        before, (queue, skip) = queue, received(queue, request, rules)
        if skip is not None:
            found.append(Trigger(request, skip.why))
        elif queue is not before:
            time_ms = request.requested_time_ms
            queue, _ = begun(queue, spec.name, rules, stop_offset=0, champion=None, now_ms=time_ms)
            queue = ended(queue, rules, time_ms)
            found.append(Trigger(request, ""))
    return found
