"""A stream: one prediction task, as the user declares it in `penstock.toml`."""

from typing import Annotated, Literal

import msgspec

Task = Literal["binary", "multiclass", "anomaly"]
Strategy = Literal["incremental", "mini_batch", "periodic", "adaptive"]
Minutes = Annotated[int, msgspec.Meta(ge=0, le=10 * 366 * 24 * 60)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
MINUTE_MS = 60_000


class JoinSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How labels meet predictions.

    A label counts when its time is at most `window_minutes` after its event's. The clock of a partition is the
    earlier of the newest event time and the newest label time read; labels may come out of order by
    `lateness_minutes` of it. When no labels come at all, the clock waits for them for `idle_wait_minutes` (by the
    timestamps that Kafka gave the records), then follows the predictions alone; and the other way round.
    `assume_negative` makes a sample with label 0 of each event that got no label in time.
    """

    window_minutes: Annotated[int, msgspec.Meta(ge=1)] = 24 * 60
    lateness_minutes: Minutes = 60
    idle_wait_minutes: Minutes = 24 * 60
    assume_negative: bool = False


class EvaluationSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How predictions are judged once their labels are known.

    A window is `window_samples` samples in a row, or, when `window_minutes` is not 0, a span of event time. It is
    mature `maturity_minutes` of label time after its last event (null: after the join window). In mature windows of at
    least `min_samples`, an accuracy more than `accuracy_drop` (a share) below the reference, a false-positive rate
    above `max_false_positive_rate` or a median latency above `max_latency_ms` raises an alert and a retrain request,
    at most once in `cooldown_minutes` of event time for each kind. The reference is `reference_accuracy`, or
    the first `reference_windows` mature windows of the variant.
    """

    window_samples: Count = 1000
    window_minutes: Minutes = 0
    maturity_minutes: Minutes | None = None
    min_samples: Count = 100
    accuracy_drop: Share = 0.05
    reference_accuracy: Share | None = None
    reference_windows: Count = 3
    max_false_positive_rate: Share | None = None
    max_latency_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None
    cooldown_minutes: Minutes = 24 * 60


class LearnerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that learns from the stream's samples; its name is the name of its lineage.

    `algorithm` is one that can learn, with its `parameters`. What is null is taken from the settings `online_strategy`,
    `online_batch_size` and `online_max_buffer`. `period_minutes` (of event time) is for the periodic strategy, and the
    longest time without an update for the adaptive one. `revisions` says whether a corrected label is learnt, too.
    Every `publish_every` samples a snapshot becomes a model version, of which the newest `keep_snapshots` that
    never served are kept. A snapshot takes the place of the lineage's version that serves, unless its Brier score on
    the newest `publish_every` mature samples is worse than the serving one's by more than `publish_margin`. With
    `shadow` the first snapshot becomes a shadow by itself. `start_from` is a registered version to begin with.
    """

    algorithm: str
    strategy: Strategy | None = None
    batch_size: Count | None = None
    max_buffer: Count | None = None
    period_minutes: Annotated[int, msgspec.Meta(ge=1)] = 24 * 60
    revisions: Literal["ignore", "apply"] = "ignore"
    publish_every: Count = 1000
    publish_margin: Annotated[float, msgspec.Meta(ge=0)] = 0.01
    keep_snapshots: Count = 5
    shadow: bool = False
    start_from: str | None = None
    parameters: dict[str, int | float | bool | str] = {}


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream predicts and from what.

    `features` are the feature names in the order of the model's matrix columns. `classes` names the
    classes of a multiclass task in the order of the model's score columns; it is empty for other tasks.
    `threshold` is the score at and above which a binary (or anomaly) prediction is labelled 1.
    `partitions` is the partition count of the per-event topics; `replication` and
    `min_insync_replicas` hold for every topic of the stream, and so does nothing else.
    """

    name: str
    features: tuple[str, ...]
    task: Task = "binary"
    classes: tuple[str, ...] = ()
    threshold: float = 0.5
    partitions: int = 4
    replication: int = 1
    min_insync_replicas: int = 1
    retention_hours: int = 168
    join: JoinSpec = JoinSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    learners: dict[str, LearnerSpec] = {}

    @property
    def ripens_ms(self) -> int:
        """How long after an event, by label time, its labels are taken to have come: maturity, and lateness."""
        maturity = self.evaluation.maturity_minutes
        minutes = self.join.window_minutes if maturity is None else maturity
        return (minutes + self.join.lateness_minutes) * MINUTE_MS

    def problems(self) -> list[str]:
        """Return one sentence for each thing that is wrong with this declaration."""
        found = []
        if not _is_topic_prefix(self.name):
            found.append(
                f"stream name {self.name!r} must be 1 to 100 of a-z, 0-9, '-' and '_', and start with a letter"
            )
        if not self.features:
            found.append(f"stream {self.name!r} declares no features")
        if len(set(self.features)) != len(self.features) or "" in self.features:
            found.append(f"stream {self.name!r}: feature names must be unique and not empty")
        if any(c in '"\\' or ord(c) < 32 for name in self.features for c in name):
            found.append(
                f"stream {self.name!r}: feature names must be free of quotes, backslashes and control characters"
            )
        if self.task == "multiclass" and len(self.classes) < 2:
            found.append(f"stream {self.name!r} is multiclass and must name at least two classes")
        if len(set(self.classes)) != len(self.classes):
            found.append(f"stream {self.name!r}: class names must be unique")
        if self.task != "multiclass" and self.classes:
            found.append(f"stream {self.name!r}: only a multiclass stream has classes")
        if not 0.0 <= self.threshold <= 1.0 and self.task == "binary":
            found.append(f"stream {self.name!r}: threshold {self.threshold} is not between 0 and 1")
        found += [
            f"stream {self.name!r}: {name} must be at least 1"
            for name in ("partitions", "replication", "min_insync_replicas", "retention_hours")
            if getattr(self, name) < 1
        ]
        found += [
            f"stream {self.name!r}: learner name {name!r} must be 1 to 100 of a-z, 0-9, '-' and '_', starting with "
            "a letter; it cannot be 'champion', which is the name of the variant that serves"
            for name in self.learners
            if not _is_topic_prefix(name) or name == "champion"
        ]
        if self.join.assume_negative and self.task != "binary":
            found.append(f"stream {self.name!r}: only a binary stream can assume negatives")
        if self.join.window_minutes + self.join.lateness_minutes > self.retention_hours * 60:
            found.append(
                f"stream {self.name!r}: retention_hours {self.retention_hours} is less than the join's window and "
                "lateness: Kafka would forget predictions that still wait for their label"
            )
        if self.min_insync_replicas > self.replication:
            found.append(
                f"stream {self.name!r}: min_insync_replicas {self.min_insync_replicas} "
                f"is more than replication {self.replication}"
            )
        return found


def _is_topic_prefix(name: str) -> bool:
    return (
        0 < len(name) <= 100
        and name[0].isalpha()
        and all(c.isascii() and (c.islower() or c.isdigit() or c in "-_") for c in name)
    )
