"""What each event is. All are frozen records, JSON on the wire, times in integer milliseconds since the epoch.

Unknown fields are ignored when reading; a missing or mistyped field makes the record invalid. A field
added later has a default, so that old readers and old records go on working.
The feature event is not here: its type is made from the stream's declared features (see `features`).
"""

from typing import Annotated, Literal

import msgspec

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=32_503_680_000_000)]  # up to the year 3000


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of every event."""


class Label(Event, frozen=True, kw_only=True, gc=False):
    """The true outcome of an event, which may come long after its prediction.

    The same label and time again is a duplicate; a later time is a revision.
    """

    event_id: Id
    entity_id: Id
    label: int | str
    label_time_ms: TimeMs
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class Prediction(Event, frozen=True, kw_only=True, gc=False):
    """One scored event.

    `score` is the probability of class 1 (binary), the anomaly score (anomaly), or the highest of
    `scores` (multiclass; `scores` is in the order of the stream's classes, otherwise null).
    `features` are the values that were scored, in the stream's declared order; null is missing.
    `partition` and `offset` locate the feature event in `<s>.features`.
    """

    event_id: str
    entity_id: str
    event_time_ms: int
    scored_time_ms: int
    model_id: str
    variant: str
    deployment_revision: int
    score: float
    scores: list[float] | None
    label: int | str
    features: tuple[float | None, ...]
    partition: int
    offset: int


class ModelVersion(Event, frozen=True, kw_only=True, gc=False):
    """One registered model: a record of `<s>.models`, which is the registry.

    The artifact is found by `sha256` alone and is opened only after its hash and `signature` were checked.
    `memory_bytes` estimates what the loaded model occupies. `metrics` and `parameters` are what the trainer
    chose to say.
    """

    model_id: Id
    stream: str
    algorithm: str
    task: str
    created_time_ms: TimeMs
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    signature: str
    size_bytes: int
    memory_bytes: int
    features: tuple[str, ...]
    classes: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    parameters: dict[str, str | int | float | bool | None] = {}
    parent: str | None = None
    registered_by: str = ""


class Deployment(Event, frozen=True, kw_only=True, gc=False):
    """The routing of a stream from `revision` on: a record of `<s>.deployments`, written by control only."""

    stream: str
    revision: int
    champion: str
    changed_time_ms: TimeMs
    changed_by: str
    correlation_id: str


class Command(Event, frozen=True, kw_only=True, gc=False):
    """A request to control: make `model_id` the champion, if the routing is still at `expected_revision`.

    `expected_revision` 0 stands for a stream that has no deployment yet.
    """

    stream: str
    action: Literal["promote"]
    model_id: Id
    expected_revision: Annotated[int, msgspec.Meta(ge=0)]
    issued_by: str
    issued_time_ms: TimeMs
    correlation_id: Id


class AuditEvent(Event, frozen=True, kw_only=True, gc=False):
    """What became of a command. `revision` is the deployment revision in force afterwards."""

    stream: str
    correlation_id: str
    action: str
    issued_by: str
    outcome: Literal["done", "refused"]
    reason: str
    model_id: str
    revision: int
    decided_time_ms: TimeMs


class Alert(Event, frozen=True, kw_only=True, gc=False):
    """Something a person should look at. `id` is derived, so that a replay repeats it."""

    id: str
    stream: str
    kind: str
    severity: Literal["low", "medium", "high", "critical"]
    subject: str
    message: str
    recommendation: str
    raised_time_ms: TimeMs


class DeadLetter(Event, frozen=True, kw_only=True, gc=False):
    """A record that could not be used: what, where and why.

    `original_base64` holds at most the first 64 KiB of the value; `size_bytes` and `sha256` are of the whole.
    One with stage "replay" is a receipt: the original of an earlier letter was sent again.
    """

    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    message: str
    dead_time_ms: TimeMs
    size_bytes: int
    sha256: str
    original_base64: str


EVENT_TYPES: tuple[type[Event], ...] = (
    Label,
    Prediction,
    ModelVersion,
    Deployment,
    Command,
    AuditEvent,
    Alert,
    DeadLetter,
)
