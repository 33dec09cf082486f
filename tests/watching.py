"""What tests of the page share: a fold of one stream, and events as its stages would write them."""

import base64
from typing import Any

import msgspec

from app.page.audience import Overview
from app.page.board import StreamFold
from app.page.document import State, StreamBoard, StreamState
from app.page.flow import Look
from schemas.event import Event
from schemas.events import AuditEvent, DeadLetter, Deployment, Performance, VariantPerformance
from schemas.experiments import Experiment
from schemas.runs import TrainingEvent
from schemas.streams import StreamSpec
from schemas.wire import encode
from tests.support import Entry, deployment_of

SPEC = StreamSpec(name="flights", features=("distance", "hour"))
NOW_MS = 1_800_000_000_000


class Scene:
    """One stream and what was told of it; a minute has passed since, unless said otherwise."""

    def __init__(self, spec: StreamSpec = SPEC) -> None:
        self.fold = StreamFold(spec)

    def tell(self, *events: Event, ago_ms: int = 60_000) -> "Scene":
        for event in events:
            self.fold.take(type(event), [Entry(0, encode(event), timestamp=NOW_MS - ago_ms)])
        return self

    def look(self, second: float, end: int, answered: int, *latencies_ms: float) -> "Scene":
        time_ms = NOW_MS + int(1_000 * second)
        self.fold.look(Look(time_ms=time_ms, ends={0: end}, answered={0: answered}, latencies_ms=latencies_ms))
        return self

    @property
    def board(self) -> StreamBoard:
        return self.fold.board(NOW_MS)


def overview_of(number: int, **levels: Any) -> Overview:
    """Return an overview that was made at `number`, of streams by their name and level."""
    states = {name: State(level=level, sentence=f"{name} is {level}") for name, level in levels.items()}

    def board(name: str) -> StreamBoard:
        stream = StreamFold(StreamSpec(name=name, features=("a",))).board(NOW_MS)
        return msgspec.structs.replace(stream, state=states[name])

    streams = tuple(StreamState(name=name, state=state) for name, state in states.items())
    return Overview(generated_time_ms=number, streams=streams, board=board)


def served(model_id: str = "m1", revision: int = 1, experiment: Experiment | None = None, **changes: Any) -> Deployment:
    deployment = deployment_of(SPEC, model_id, revision)
    return msgspec.structs.replace(deployment, changed_time_ms=1_000 * revision, experiment=experiment, **changes)


def window_of(number: int, *, mature: bool = True, model_id: str = "m1", **figures: Any) -> Performance:
    """Return window `number`, of the champion's figures."""
    fields: dict[str, Any] = dict.fromkeys(VariantPerformance.__struct_fields__)
    fields |= {"variant": "champion", "model_id": model_id, "n": 100, "assumed": 0, "revised": 0} | figures
    return Performance(
        stream="flights",
        window="count",
        number=number,
        from_time_ms=1_000 * number,
        to_time_ms=1_000 * (number + 1),
        mature=mature,
        variants=(VariantPerformance(**fields),),
    )


def letter_of(offset: int, original: bytes = b"{}", **changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "topic": "flights.features",
        "partition": 0,
        "offset": offset,
        "stage": "score",
        "reason": "malformed_json",
        "message": "the value is not JSON",
        "dead_time_ms": NOW_MS + offset,
        "size_bytes": len(original),
        "sha256": "",
        "original_base64": base64.b64encode(original).decode(),
    }
    return DeadLetter(**(fields | changes))


def audit_of(action: str, time_ms: int = NOW_MS, **changes: Any) -> AuditEvent:
    fields: dict[str, Any] = {
        "stream": "flights",
        "correlation_id": "c",
        "action": action,
        "issued_by": "ada",
        "outcome": "done",
        "reason": f"model m1 took part in {action}",
        "model_id": "m1",
        "revision": 1,
        "decided_time_ms": time_ms,
    }
    return AuditEvent(**(fields | changes))


def run_of(phase: str, time_ms: int, run_id: str = "run-1", **changes: Any) -> TrainingEvent:
    fields: dict[str, Any] = {
        "stream": "flights",
        "run_id": run_id,
        "request_ids": ("r",),
        "reasons": ("drift",),
        "attempt": 1,
        "phase": phase,
        "time_ms": time_ms,
        "started_time_ms": time_ms,
    }
    return TrainingEvent(**(fields | changes))
