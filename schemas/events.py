"""What each event is. All are frozen records, JSON on the wire, times in integer milliseconds since the epoch.

Unknown fields are ignored when reading; a missing or mistyped field makes the record invalid. A field
added later has a default, so that old readers and old records go on working.
The feature event is not here: its type is made from the stream's declared features (see `features`). The events of
drift and of experiments are in `drift` and `experiments`.
"""

from typing import Annotated, Literal

import msgspec

from schemas.drift import DriftReport, PartialHistogram
from schemas.event import Event, Id, Severity, TimeMs
from schemas.experiments import Experiment, ExperimentPlan, ExperimentReport, VariantCounts
from schemas.runs import TrainingEvent
from schemas.training import Reason


class Label(Event, frozen=True, kw_only=True, gc=False):
    """The true outcome of an event, which may come long after its prediction.

    The same label and time again is a duplicate; a later time is a revision.
    """

    event_id: Id
    entity_id: Id
    label: int | str
    label_time_ms: TimeMs
    weight: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 1.0


class ShadowScore(Event, frozen=True, kw_only=True, gc=False):
    """What a model that is watched but not served made of an event. `score` and `scores` are as in Prediction."""

    variant: str
    model_id: str
    score: float
    scores: list[float] | None = None


class Prediction(Event, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One scored event.

    `score` is the probability of class 1 (binary), the anomaly score (anomaly), or the highest of
    `scores` (multiclass; `scores` is in the order of the stream's classes, otherwise null).
    `features` are the values that were scored, in the stream's declared order; null is missing.
    `partition` and `offset` locate the feature event in `<s>.features`; `latency_ms` is from that record's
    timestamp to the moment of scoring. `variant` is the one that the entity is assigned to; where its model gave no
    score, `model_id` is the champion's. `shadows` are the scores of models that are tried beside the one that serves.
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
    latency_ms: int = 0
    shadows: tuple[ShadowScore, ...] = ()


class Sample(Event, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A prediction and its label: a record of `<s>.samples`, known by `event_id` and `revision`.

    `revision` counts the labels that the event has had, from 0; `replaces` is the label before this one.
    `predicted` is the label that was predicted. Everything else is as in Prediction and Label. An `assumed` sample
    has no label: none came within the join window, and the stream takes that for label 0.
    """

    event_id: str
    entity_id: str
    revision: int
    event_time_ms: int
    label_time_ms: int
    features: tuple[float | None, ...]
    label: int | str
    weight: float
    score: float
    scores: list[float] | None = None
    predicted: int | str
    model_id: str
    variant: str
    deployment_revision: int
    scored_time_ms: int
    latency_ms: int = 0
    shadows: tuple[ShadowScore, ...] = ()
    replaces: int | str | None = None
    assumed: bool = False


class Trigger(Event, frozen=True, kw_only=True, gc=False):
    """A person's wish that a learner update its model now: a record of `<s>.samples`, keyed `trigger`.

    It stands in that log so that a fold over it tells the same story again. `lineage` names the learner.
    """

    stream: str
    lineage: Id
    issued_by: str
    issued_time_ms: TimeMs
    correlation_id: Id


class ModelUpdate(Event, frozen=True, kw_only=True, gc=False):
    """Something that a learner did with its model: learnt a batch, published a snapshot, or kept one back.

    `reason` says what made it do so. `samples` were learnt in this update, from `first_offset` to `last_offset` of
    `<s>.samples`; `event_time_ms` is the newest event time among them. What is said of a snapshot, which has a
    `model_id`, is of all samples that it has learnt, and the time is that of the last one.
    """

    stream: str
    lineage: str
    action: Literal["learnt", "published", "kept_back", "pruned"]
    reason: str
    samples: int
    first_offset: int
    last_offset: int
    event_time_ms: int
    model_id: str | None = None
    metrics: dict[str, float] = {}


class VariantPerformance(Event, frozen=True, kw_only=True, gc=False):
    """How good one variant was in a window. A figure that cannot be computed (no positives, no scores) is null.

    `n` counts events; of these `assumed` have an assumed label and `revised` a corrected one. Binary and anomaly
    figures are of class 1; multiclass ones are macro averages over the classes that occur. `model_id` is the newest
    of the variant's models in the window. `roc_auc_low` to `roc_auc_high` is the 95% interval of `roc_auc`; a
    multiclass variant has none, nor has one without two positives and two negatives.
    """

    variant: str
    model_id: str
    n: int
    assumed: int
    revised: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    specificity: float | None
    false_positive_rate: float | None
    false_negative_rate: float | None
    roc_auc: float | None
    roc_auc_low: float | None = None
    roc_auc_high: float | None = None
    log_loss: float | None
    calibration_error: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    label_delay_p50_ms: float | None
    label_delay_p95_ms: float | None


class Performance(Event, frozen=True, kw_only=True, gc=False):
    """How good the variants of a stream were in one window: a record of `<s>.performance`.

    A window is `count` samples in the order of `<s>.samples`, or a span of event `time`; windows are numbered in the
    order of their start. `from_time_ms` and `to_time_ms` bound its event times (the end is exclusive). A window
    that is not `mature` is a first look: labels for its events may still come. A later record with the same
    number replaces it.
    """

    stream: str
    window: Literal["count", "time"]
    number: int
    from_time_ms: int
    to_time_ms: int
    mature: bool
    variants: tuple[VariantPerformance, ...]


class RetrainRequest(Event, frozen=True, kw_only=True, gc=False):
    """Evidence that a stream's model should be trained anew. `id` is derived, so that a replay repeats it."""

    id: str
    stream: str
    reason: Reason
    evidence: dict[str, str | int | float | bool | None]
    requested_time_ms: TimeMs
    requested_by: str = ""


class Checkpoint(Event, frozen=True, kw_only=True, gc=False):
    """A stage's state after the records before `offsets` (by input topic): a record of `<s>.checkpoints`.

    Written in the transaction of what the stage made of those records. `state` is the stage's own; `format` is
    raised when its meaning changes. A large part of it is `blob_base64`, or lies in the artifact store under
    `blob_sha256`.
    """

    stage: str
    partition: int
    format: int
    offsets: dict[str, int]
    state: msgspec.Raw
    blob_base64: str = ""
    blob_sha256: str = ""
    blob_bytes: int = 0


Status = Literal["draft", "testing", "staging", "production", "archived"]


class ModelVersion(Event, frozen=True, kw_only=True, gc=False):
    """One registered model: a record of `<s>.models`, which is the registry.

    The artifact is found by `sha256` alone and is opened only after its hash and `signature` were checked.
    `memory_bytes` estimates what the loaded model occupies. `metrics` and `parameters` are what the trainer
    chose to say; it learnt from events between the training times and from samples in the training offsets (of
    `<s>.samples`; both ends exclusive), where it says so. Versions that a learner made one from the other share a
    `lineage`; `samples_offset` is the next sample it would have learnt. `version` is for people, as in semantic
    versioning: other features or another algorithm raise the first number, a new model the second, a learner's snapshot
    the third.

    A later record of the same id replaces the earlier in one of two ways: with more `changes` it tells of a new
    `status` (who changed it, when and why) and of nothing else, otherwise of everything but that. So writers that do
    not see each other both have their way. The artifact of a `pruned` version is gone.
    `baseline` is the SHA-256 of what drift is measured against, an artifact of `baseline_bytes`; a version that has
    none is measured against its nearest ancestor's. `run_id` names the training run that made it, whose model card is
    in the artifact store, too.
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
    version: Annotated[str, msgspec.Meta(pattern=r"^(\d+\.\d+\.\d+)?$")] = ""
    metrics: dict[str, float] = {}
    parameters: dict[str, str | int | float | bool | None] = {}
    parent: str | None = None
    registered_by: str = ""
    lineage: str = ""
    samples_offset: int | None = None
    training_from_time_ms: int | None = None
    training_to_time_ms: int | None = None
    training_from_offset: int | None = None
    training_to_offset: int | None = None
    status: Status = "draft"
    changes: int = 0
    changed_by: str = ""
    changed_time_ms: TimeMs = 0
    reason: str = ""
    pruned: bool = False
    baseline: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    baseline_bytes: int = 0
    run_id: str = ""


class Deployment(Event, frozen=True, kw_only=True, gc=False):
    """The routing of a stream from `revision` on: a record of `<s>.deployments`, written by control only.

    The `champion` serves; the `shadows` score every event beside it, for comparison only. While there is an
    `experiment`, its variants serve, each the entities of its buckets. `previous` is what a roll-back would bring back;
    empty when there is nothing. While `held`, after a roll-back, no snapshot takes the champion's place by itself.
    """

    stream: str
    revision: int
    champion: str
    changed_time_ms: TimeMs
    changed_by: str
    correlation_id: str
    shadows: tuple[str, ...] = ()
    previous: str = ""
    held: bool = False
    experiment: Experiment | None = None
    reason: str = ""


Action = Literal["promote", "rollback", "succeed", "shadow", "unshadow", "move", "start", "reshare", "stop"]


class Command(Event, frozen=True, kw_only=True, gc=False):
    """A request to control.

    `promote` makes `model_id` the champion, and ends the experiment whose variant it is. `rollback` brings the previous
    champion back, and ends any experiment. `shadow` lets a model score beside the champion, `unshadow` ends that.
    `move` gives a model another `status`. `start` begins `experiment_id` by `plan` with `variants` (model ids by name,
    without the champion) and their `shares` of the traffic, from 0 to 1; the champion has the rest. `reshare` changes
    the shares: those of all other variants are named. `stop` ends the experiment and leaves the champion. `succeed` is
    what a learner asks for: put this version in the place of the one of its lineage that is routed.

    All but `move` and `succeed` name the revision that they expect the routing to be at (0 is a stream without a
    deployment), or with an `experiment_id` the `expected_epoch` of that, or the `expected_champion` (empty: none),
    which a newer version of its lineage may have followed. `reason` is for the audit log.
    """

    stream: str
    action: Action
    model_id: Annotated[str, msgspec.Meta(max_length=256)] = ""
    expected_revision: Annotated[int, msgspec.Meta(ge=0)] | None = None
    issued_by: str
    issued_time_ms: TimeMs
    correlation_id: Id
    reason: str = ""
    status: Status | None = None
    experiment_id: Annotated[str, msgspec.Meta(max_length=256)] = ""
    expected_epoch: Annotated[int, msgspec.Meta(ge=0)] | None = None
    expected_champion: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    plan: ExperimentPlan | None = None
    variants: dict[str, str] = {}
    shares: dict[str, float] = {}


class AuditEvent(Event, frozen=True, kw_only=True, gc=False):
    """What became of a command, or that a model was registered (`action` "register").

    `revision` is the deployment revision in force afterwards. `issued_by` is what the sender says of itself, and
    `asked_reason` is what the sender gave as the reason; `reason` says what was done, or why it was refused.
    """

    stream: str
    correlation_id: str
    action: str
    issued_by: str
    outcome: Literal["done", "refused"]
    reason: str
    model_id: str
    revision: int
    decided_time_ms: TimeMs
    experiment_id: str = ""
    asked_reason: str = ""


class Alert(Event, frozen=True, kw_only=True, gc=False):
    """Something a person should look at. `id` is derived, so that a replay repeats it."""

    id: str
    stream: str
    kind: str
    severity: Severity
    subject: str
    message: str
    recommendation: str
    raised_time_ms: TimeMs
    value: float | None = None
    threshold: float | None = None
    window: str = ""


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
    Sample,
    Trigger,
    ModelUpdate,
    Performance,
    PartialHistogram,
    DriftReport,
    RetrainRequest,
    TrainingEvent,
    Checkpoint,
    ModelVersion,
    Deployment,
    Command,
    AuditEvent,
    VariantCounts,
    ExperimentReport,
    Alert,
    DeadLetter,
)
