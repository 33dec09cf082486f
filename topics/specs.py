"""The topics of a stream, and why each is kept the way it is.

Two kinds of topics carry a stream. *Flows* (features, labels, predictions, their dead letters) are large and are
kept for the stream's `retention_hours`: long enough to replay after a bad day. *Ledgers* (models, deployments,
audit) are small and are the registry itself: they are kept forever, and not compacted, because their key is the
stream: compaction would leave one record of each and forget which models there ever were.
Commands, alerts and what is told of learning are small flows. *Checkpoints* are the one compacted topic: only the
newest state of each stage counts. Every topic says which it is, because clusters differ in their default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.drift import DriftReport, PartialHistogram
from schemas.event import Event
from schemas.events import (
    Alert,
    AuditEvent,
    Checkpoint,
    Command,
    DeadLetter,
    Deployment,
    Label,
    ModelUpdate,
    ModelVersion,
    Performance,
    Prediction,
    RetrainRequest,
    Sample,
)
from schemas.experiments import ExperimentReport, VariantCounts
from schemas.runs import TrainingEvent
from schemas.streams import StreamSpec

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The largest record (and batch) that topics written by strangers take: an oversized event must become a dead
letter with a reason, not an error in its producer that nobody here sees."""

_HOUR_MS = 3_600_000
_LONG_RETENTIONS = 4
_CHECKPOINT_SEGMENT_BYTES = 16 * 1024 * 1024


class StreamTopics:
    """The topic names of one stream; the only place where they are spelled."""

    def __init__(self, stream: str) -> None:
        self.features: Final = f"{stream}.features"
        self.features_dead: Final = f"{stream}.features.dead"
        self.labels: Final = f"{stream}.labels"
        self.labels_dead: Final = f"{stream}.labels.dead"
        self.predictions: Final = f"{stream}.predictions"
        self.samples: Final = f"{stream}.samples"
        self.histograms: Final = f"{stream}.histograms"
        self.drift: Final = f"{stream}.drift"
        self.variants: Final = f"{stream}.variants"
        self.experiments: Final = f"{stream}.experiments"
        self.performance: Final = f"{stream}.performance"
        self.updates: Final = f"{stream}.updates"
        self.retrain: Final = f"{stream}.retrain"
        self.training: Final = f"{stream}.training"
        self.checkpoints: Final = f"{stream}.checkpoints"
        self.models: Final = f"{stream}.models"
        self.deployments: Final = f"{stream}.deployments"
        self.commands: Final = f"{stream}.commands"
        self.commands_dead: Final = f"{stream}.commands.dead"
        self.audit: Final = f"{stream}.audit"
        self.alerts: Final = f"{stream}.alerts"
        self.alerts_dead: Final = f"{stream}.alerts.dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """What a topic must be.

    `value` is the event type, or a word for a type that is made from the stream. `config` holds Kafka's own
    topic settings, by Kafka's names, as Kafka spells their values.
    """

    name: str
    key: str
    value: type[Event] | str
    partitions: int
    replication: int
    config: Mapping[str, str]
    purpose: str


def topics_of(stream: StreamSpec) -> tuple[TopicSpec, ...]:
    """Return what every topic of `stream` must be.

    Features, labels and predictions have the same number of partitions, so that an entity is at the same
    partition number in each; dead letters follow their input. What needs one order has one partition.
    """
    names = StreamTopics(stream.name)
    many = stream.partitions
    flow = _kept(stream, hours=stream.retention_hours)
    wide = flow | {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    forever = _kept(stream, hours=None)
    weeks = _kept(stream, hours=_LONG_RETENTIONS * stream.retention_hours)
    compacted = _compacted(stream)

    def topic(
        name: str, key: str, value: type[Event] | str, partitions: int, config: Mapping[str, str], purpose: str
    ) -> TopicSpec:
        return TopicSpec(
            name=name,
            key=key,
            value=value,
            partitions=partitions,
            replication=stream.replication,
            config=config,
            purpose=purpose,
        )

    return (
        topic(names.features, "entity_id", "FeatureEvent", many, wide, "events to score, from the stream's producers"),
        topic(names.features_dead, "original key", DeadLetter, many, wide, "events that could not be scored, and why"),
        topic(names.labels, "entity_id", Label, many, wide, "true outcomes, from the stream's producers"),
        topic(names.labels_dead, "original key", DeadLetter, many, wide, "labels that could not be joined, and why"),
        topic(names.predictions, "entity_id", Prediction, many, flow, "one record per scored event"),
        topic(names.samples, "stream", Sample, 1, flow, "predictions with their labels, and triggers for learners"),
        topic(names.histograms, "stream", PartialHistogram, 1, flow, "what was counted of the scored events"),
        topic(names.drift, "stream", DriftReport, 1, weeks, "how far features and predictions are from the baseline"),
        topic(names.variants, "stream", VariantCounts, 1, flow, "what was counted of variants and shadows"),
        topic(names.experiments, "stream", ExperimentReport, 1, weeks, "what is known of experiments and shadows"),
        topic(names.performance, "stream", Performance, 1, weeks, "how good each variant was, window by window"),
        topic(names.updates, "stream", ModelUpdate, 1, weeks, "what the learners did, and why"),
        topic(names.retrain, "stream", RetrainRequest, 1, weeks, "requests to train anew, with their evidence"),
        topic(names.training, "stream", TrainingEvent, 1, weeks, "what training runs are at, and what became of them"),
        topic(names.checkpoints, "stage", Checkpoint, 1, compacted, "the newest state of every stage that has one"),
        topic(names.models, "stream", ModelVersion, 1, forever, "the registry: every model ever registered"),
        topic(names.deployments, "stream", Deployment, 1, forever, "the routing: every deployment there ever was"),
        topic(names.commands, "stream", Command, 1, flow, "requests to control; their outcome stays in audit"),
        topic(names.commands_dead, "original key", DeadLetter, 1, flow, "commands that could not be read, and why"),
        topic(names.audit, "stream", AuditEvent, 1, forever, "what became of every command"),
        topic(names.alerts, "stream", Alert, 1, weeks, "what a person should look at; kept to look back over weeks"),
        topic(names.alerts_dead, "original key", DeadLetter, 1, weeks, "alerts that reached no sink, and why"),
    )


def _kept(stream: StreamSpec, *, hours: int | None) -> dict[str, str]:
    """Return the config of a topic kept for `hours`, or forever (then whatever size limit the cluster defaults to)."""
    config = {"cleanup.policy": "delete", "min.insync.replicas": str(stream.min_insync_replicas)}
    if hours is None:
        return config | {"retention.ms": "-1", "retention.bytes": "-1"}
    return config | {"retention.ms": str(hours * _HOUR_MS)}


def _compacted(stream: StreamSpec) -> dict[str, str]:
    """Return the config of a topic of which the newest record of each key stays.

    Small segments and a low dirty ratio keep it short: a stage reads it whole when it opens.
    """
    return {
        "cleanup.policy": "compact",
        "min.insync.replicas": str(stream.min_insync_replicas),
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "segment.bytes": str(_CHECKPOINT_SEGMENT_BYTES),
        "segment.ms": str(_HOUR_MS),
        "min.cleanable.dirty.ratio": "0.1",
    }
