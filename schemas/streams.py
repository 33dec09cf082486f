"""A stream: one prediction task, as the user declares it in `penstock.toml`."""

from typing import Annotated, Literal

import msgspec

from schemas.experiments import Metric
from schemas.quantities import MINUTE_MS as MINUTE_MS
from schemas.quantities import Count, Minutes, NotNegative, Share, SomeHours, SomeMinutes
from schemas.training import ArchiveSpec, TrainingSpec

Task = Literal["binary", "multiclass", "anomaly"]
Strategy = Literal["incremental", "mini_batch", "periodic", "adaptive"]


class JoinSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How labels meet predictions.

    The clock of a partition is the earlier of the newest event time and the newest label time read.
    """

    window_minutes: Annotated[SomeMinutes, "A label counts when its time is at most this long after its event's."] = (
        24 * 60
    )
    lateness_minutes: Annotated[Minutes, "How much out of order labels may come, by their own times."] = 60
    idle_wait_minutes: Annotated[
        Minutes, "How long, by Kafka's time, a side without news is waited for before the other goes on alone."
    ] = 24 * 60
    assume_negative: Annotated[
        bool, "An event without a label in time becomes a sample with label 0, marked as assumed."
    ] = False

    def problems(self, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this in `stream`."""
        found = []
        if self.assume_negative and stream.task != "binary":
            found.append(f"stream {stream.name!r}: only a binary stream can assume negatives")
        if self.window_minutes + self.lateness_minutes > stream.retention_hours * 60:
            found.append(
                f"stream {stream.name!r}: retention_hours {stream.retention_hours} is less than the join's window and "
                "lateness: Kafka would forget predictions that still wait for their label"
            )
        return found


class EvaluationSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How predictions are judged once their labels are known.

    A window raises alerts only once it is mature; each comes with a request to train anew.
    """

    window_samples: Annotated[Count, "A window is so many samples in a row."] = 1000
    window_minutes: Annotated[Minutes, "When not 0, a window is a span of event time instead."] = 0
    maturity_minutes: Annotated[
        Minutes | None,
        "A window is judged so long, by label time, after its last event; else after the join window.",
    ] = None
    min_samples: Annotated[Count, "A window of fewer samples raises no alert."] = 100
    accuracy_drop: Annotated[
        Share,
        "An alert when the accuracy is lower than the reference by more than this share of it. "
        "The adaptive strategy uses it, too.",
    ] = 0.05
    reference_accuracy: Annotated[Share | None, "The reference; else it is taken from the first windows."] = None
    reference_windows: Annotated[Count, "How many mature windows make the reference."] = 3
    max_false_positive_rate: Annotated[Share | None, "An alert above it."] = None
    max_latency_ms: Annotated[
        Annotated[float, msgspec.Meta(gt=0)] | None, "An alert when the median latency is above it."
    ] = None
    cooldown_minutes: Annotated[Minutes, "An alert of one kind comes at most once in so much event time."] = 24 * 60

    def problems(self, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this in `stream`."""
        if self.window_minutes or self.min_samples <= self.window_samples:
            return []
        return [
            f"stream {stream.name!r}: min_samples {self.min_samples} is more than window_samples "
            f"{self.window_samples}: no window would ever raise an alert"
        ]


class DriftSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How features and predictions are compared with the baseline of the model that serves.

    A column has drifted when the difference is significant and large: its corrected p-value is below `threshold`, and
    its PSI, scaled Wasserstein distance, share of unseen values or change of the share of missing ones is at least what
    is set here.
    """

    window_events: Annotated[
        Count | None,
        "A window has at least so many scored events, and fewer than twice as many; else `drift_window_size`.",
    ] = None
    window_minutes: Annotated[
        Minutes,
        "When not 0, a window is a span of event time instead. Scoring needs 0.1 ms for each in 10 features.",
    ] = 0
    lateness_minutes: Annotated[
        Minutes, "By so much event time all partitions must have passed the end of a span before it is judged."
    ] = 60
    sliding: Annotated[
        bool, "Whether the newest window is judged again and again, instead of each window once when it is complete."
    ] = False
    check_seconds: Annotated[
        Count | None, "Event time between two judgements of a sliding window; else `drift_check_interval`."
    ] = None
    threshold: Annotated[Share | None, "The level of significance; else `drift_threshold`."] = None
    min_psi: Annotated[NotNegative, "The least population stability index that counts as drift."] = 0.1
    min_distance: Annotated[NotNegative, "The least Wasserstein distance that does, in deviations of the baseline."] = (
        0.1
    )
    min_unseen_share: Annotated[Share, "The least share of values that the baseline has never seen that does."] = 0.01
    min_missing_change: Annotated[Share, "The least change of the share of missing values that does."] = 0.05
    drifted_share: Annotated[Share, "From this share of drifted features on, training anew is asked for."] = 0.3
    only_counted: Annotated[tuple[str, ...], "Features that are counted and never judged: calendar ones, say."] = ()
    bins: Annotated[Annotated[int, msgspec.Meta(ge=2, le=100)], "Quantile bins of a baseline made from now on."] = 10
    empty_bins: Annotated[
        Literal["floor", "half_count"],
        "What PSI and the divergences take for an empty bin: a share of 0.0001 at least, or half a count more in all.",
    ] = "floor"
    cooldown_minutes: Annotated[
        Minutes, "An alert names a feature at most once in so much event time, unless it gets worse."
    ] = 24 * 60

    def problems(self, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this in `stream`."""
        found = []
        if unknown := [name for name in self.only_counted if name not in stream.features]:
            found.append(f"stream {stream.name!r}: drift.only_counted names no features: {', '.join(unknown)}")
        if self.window_minutes and self.window_events is not None:
            found.append(f"stream {stream.name!r}: a drift window has either window_events or window_minutes")
        return found


class ExperimentSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By what an experiment or a rollout of the stream is decided, unless it is started with something else."""

    metric: Annotated[Metric | None, "The target, a mean per event; else `brier`, or `accuracy` of anomalies."] = None
    false_positive_cost: Annotated[NotNegative, "What one costs, for the metric `cost`."] = 1.0
    false_negative_cost: Annotated[NotNegative, "What one costs, for the metric `cost`."] = 1.0
    alpha: Annotated[
        Annotated[float, msgspec.Meta(gt=0, lt=1)],
        "The chance that, however often one looks, a variant is ever called better or worse, and is not.",
    ] = 0.05
    margin: Annotated[NotNegative, "Worse by less than this, in the metric's unit, is good enough to go on."] = 0.01
    min_samples: Annotated[
        Count | None, "No verdict before each variant has so many mature samples; else `ab_min_samples`."
    ] = None
    guard_metrics: Annotated[tuple[Metric, ...], "What must not become worse by more than `margin`."] = ()
    max_error_share: Annotated[Share, "The most of a variant's events that its model may fail to score."] = 0.01
    max_call_ms: Annotated[
        Annotated[float, msgspec.Meta(gt=0)], "How long a call of a variant's model may take, but for one in ten."
    ] = 50.0
    max_score_psi: Annotated[NotNegative, "How far a variant's scores may be from the champion's, as a PSI."] = 1.0
    steps: Annotated[
        tuple[Annotated[float, msgspec.Meta(gt=0, le=1)], ...], "The challenger's share of the traffic in a rollout."
    ] = (0.1, 0.5, 1.0)

    def problems(self, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this in `stream`."""
        found = []
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            found.append(f"stream {stream.name!r}: experiments.steps must rise from step to step")
        elif self.steps[0] == 1:
            found.append(f"stream {stream.name!r}: the first of experiments.steps must leave something to the champion")
        wrong = sorted({"brier", "log_loss"} & {self.metric, *self.guard_metrics}) if stream.task == "anomaly" else []
        if wrong:
            names = " or ".join(wrong)
            found.append(f"stream {stream.name!r}: an anomaly score is no probability, so it has no {names}")
        return found


class LearnerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that learns from the stream's samples; its name is the name of its lineage.

    A snapshot takes the place of the lineage's version that serves, unless its Brier score on the newest
    `publish_every` mature samples is worse than the serving one's by more than `publish_margin`.
    """

    algorithm: Annotated[str, "A model that can learn, by the name of its entry point."]
    strategy: Annotated[Strategy | None, "When it learns; else `online_strategy`."] = None
    batch_size: Annotated[Count | None, "Samples in a mini-batch; else `online_batch_size`."] = None
    max_buffer: Annotated[Count | None, "The most samples that wait to be learnt; else `online_max_buffer`."] = None
    period_minutes: Annotated[
        SomeMinutes, "Event time between updates (periodic), or the longest without one (adaptive)."
    ] = 24 * 60
    revisions: Annotated[Literal["ignore", "apply"], "Whether a corrected label is learnt, too."] = "ignore"
    publish_every: Annotated[Count, "After so many samples a snapshot becomes a model version."] = 10_000
    publish_margin: Annotated[
        NotNegative,
        "By how much a snapshot's Brier score may exceed the serving version's; else it is kept back.",
    ] = 0.01
    keep_snapshots: Annotated[Count, "How many of the snapshots that never served are kept."] = 5
    shadow: Annotated[bool, "Whether the first snapshot becomes a shadow by itself."] = False
    start_from: Annotated[str | None, "A registered model to begin with."] = None
    parameters: Annotated[dict[str, int | float | bool | str], "What the algorithm takes."] = {}

    def problems(self, name: str, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this, called `name`, in `stream`."""
        found = []
        if not _is_topic_prefix(name):
            found.append(
                f"stream {stream.name!r}: learner name {name!r} must be 1 to 100 of a-z, 0-9, '-' and '_', "
                "and start with a letter"
            )
        if name == "champion":
            found.append(
                f"stream {stream.name!r}: learner name 'champion' is the name of the variant that serves; "
                "choose another"
            )
        if self.batch_size is not None and self.max_buffer is not None and self.batch_size > self.max_buffer:
            found.append(
                f"stream {stream.name!r}: learner {name!r}: batch_size {self.batch_size} is more than "
                f"max_buffer {self.max_buffer}: no batch would ever be full"
            )
        return found


class CsvSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which columns of a CSV file are what, beside the features; an empty name is none."""

    event_id: Annotated[str, "The id of the event; without one it is made of the row."] = ""
    entity: Annotated[str, "Whose event it is; without one it is the event's own."] = ""
    time: Annotated[
        str, "When it happened: ISO 8601, in UTC unless it says otherwise, or seconds or milliseconds since 1970."
    ] = ""
    label: Annotated[str, "What came true; a file may be without it."] = ""

    def problems(self, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this in `stream`."""
        if self.label in stream.features:
            return [f"stream {stream.name!r}: csv.label {self.label!r} is a feature: a model would be told the answer"]
        return []


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream predicts and from what, and how its model learns from the labels that come back."""

    name: str
    features: Annotated[tuple[str, ...], "The feature names, in the order of the model's columns."]
    task: Annotated[Task, "What is predicted: 0 or 1, one of several classes, or how unusual an event is."] = "binary"
    classes: Annotated[
        tuple[str, ...], "The classes of a multiclass stream, in the order of the model's scores; others have none."
    ] = ()
    threshold: Annotated[float, "A score from here on is label 1; from 0 to 1 for a binary stream."] = 0.5
    partitions: Annotated[
        Count,
        "Of features, labels, predictions, `features.dead` and `labels.dead`. It cannot be changed later.",
    ] = 4
    replication: Annotated[Count, "How many brokers keep a copy of each topic."] = 1
    min_insync_replicas: Annotated[
        Count, "How many of them must have a record before it counts; at most `replication`."
    ] = 1
    retention_hours: Annotated[
        SomeHours, "How long events, labels, predictions, samples and dead letters are kept."
    ] = 168
    csv: CsvSpec = CsvSpec()
    join: JoinSpec = JoinSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    drift: DriftSpec = DriftSpec()
    experiments: ExperimentSpec = ExperimentSpec()
    learners: dict[str, LearnerSpec] = {}
    archive: ArchiveSpec = ArchiveSpec()
    training: TrainingSpec | None = None

    @property
    def ripens_ms(self) -> int:
        """How long after an event, by label time, its labels are taken to have come: maturity, and lateness."""
        maturity = self.evaluation.maturity_minutes
        minutes = self.join.window_minutes if maturity is None else maturity
        return (minutes + self.join.lateness_minutes) * MINUTE_MS

    def problems(self) -> list[str]:
        """Return one sentence for each thing that is wrong with this declaration."""
        found = self._feature_problems() + self._class_problems()
        if not _is_topic_prefix(self.name):
            found.insert(
                0, f"stream name {self.name!r} must be 1 to 100 of a-z, 0-9, '-' and '_', and start with a letter"
            )
        if not 0.0 <= self.threshold <= 1.0 and self.task == "binary":
            found.append(f"stream {self.name!r}: threshold {self.threshold} is not between 0 and 1")
        if self.min_insync_replicas > self.replication:
            found.append(
                f"stream {self.name!r}: min_insync_replicas {self.min_insync_replicas} "
                f"is more than replication {self.replication}"
            )
        found += self.csv.problems(self) + self.join.problems(self) + self.evaluation.problems(self)
        found += self.drift.problems(self) + self.experiments.problems(self)
        if self.training is not None:
            found += self.training.problems(self)
        return found + [p for name, learner in self.learners.items() for p in learner.problems(name, self)]

    def _feature_problems(self) -> list[str]:
        found = []
        if not self.features:
            found.append(f"stream {self.name!r} declares no features")
        if len(set(self.features)) != len(self.features) or "" in self.features:
            found.append(f"stream {self.name!r}: feature names must be unique and not empty")
        if any(c in '"\\' or ord(c) < 32 for name in self.features for c in name):
            found.append(
                f"stream {self.name!r}: feature names must be free of quotes, backslashes and control characters"
            )
        return found

    def _class_problems(self) -> list[str]:
        found = []
        if self.task == "multiclass" and len(self.classes) < 2:
            found.append(f"stream {self.name!r} is multiclass and must name at least two classes")
        if len(set(self.classes)) != len(self.classes):
            found.append(f"stream {self.name!r}: class names must be unique")
        if self.task != "multiclass" and self.classes:
            found.append(f"stream {self.name!r}: only a multiclass stream has classes")
        return found


def _is_topic_prefix(name: str) -> bool:
    return (
        0 < len(name) <= 100
        and name[0].isalpha()
        and all(c.isascii() and (c.islower() or c.isdigit() or c in "-_") for c in name)
    )
