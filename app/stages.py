"""A stream on this worker: its logs' views, its serving models, and the stages of each role."""

from collections import Counter
from collections.abc import Callable
from functools import partial

import msgspec
from aiokafka import AIOKafkaConsumer

from agents import archive, compare, control, evaluate, join, judge, learn, notify, score, train, views
from agents.baselines import baseline_finder, baseline_opener
from agents.blobs import Blobs
from agents.counting import Counting
from agents.learn.hosts import Apart, Here
from agents.learn.publishing import Publisher
from agents.registry import Registry
from agents.routes import routes_of
from agents.serving import Serving
from agents.shelf import ModelShelf
from agents.train.job import Resources
from app.clock import now_ms
from app.experiments import plan_of
from app.registry import artifact_store, signer
from app.roles import RoleName, inputs_of, learner_group
from app.settings import Settings
from app.sinks import sender_of
from ml.models.registry import learner_type
from schemas.events import Alert, Deployment, ModelVersion, Status
from schemas.features import FeatureReader
from schemas.sinks import sinks_of
from schemas.streams import DriftSpec, LearnerSpec, StreamSpec
from schemas.wire import encode
from stream.announcer import Announcer
from stream.batches import TopicPartition
from stream.deadletters import DeadLetterGate
from stream.intake import FeatureIntake
from stream.memory import KafkaMemory
from stream.metric_values import Metrics
from stream.placement import Placement
from stream.role import StageSpec
from stream.stage import Stage
from stream.tail import end_of, read_back
from stream.views import LogView, ViewFollower
from topics.specs import StreamTopics


def learner_of(settings: Settings, declared: LearnerSpec) -> LearnerSpec:
    """Return a learner as it is declared, with what its table leaves open taken from the settings."""
    return msgspec.structs.replace(
        declared,
        strategy=declared.strategy or settings.online_strategy,
        batch_size=declared.batch_size or settings.online_batch_size,
        max_buffer=declared.max_buffer or settings.online_max_buffer,
    )


def drift_of(settings: Settings, spec: StreamSpec) -> DriftSpec:
    """Return how a stream's drift is watched, with what its table leaves open taken from the settings."""
    declared = spec.drift
    return msgspec.structs.replace(
        declared,
        window_events=declared.window_events or settings.drift_window_size,
        check_seconds=declared.check_seconds or settings.drift_check_interval,
        threshold=settings.drift_threshold if declared.threshold is None else declared.threshold,
    )


class StreamStages:
    """One stream's views and serving model on this worker, and the stages made from them."""

    def __init__(
        self,
        spec: StreamSpec,
        settings: Settings,
        shelf: ModelShelf,
        metrics: Metrics,
        announcer: Announcer,
        open_consumer: Callable[[], AIOKafkaConsumer],
        resources: Callable[[], Resources],
        redis: views.ViewStore | None = None,
    ) -> None:
        """`open_consumer` makes a consumer without a group, which reads what is committed; `resources` are a run's.

        `redis` is where views are kept; without one there are none.
        """
        self.spec = spec
        self.models = LogView(StreamTopics(spec.name).models, ModelVersion)
        self.deployments = LogView(StreamTopics(spec.name).deployments, Deployment)
        self._settings = settings
        self._shelf = shelf
        self._metrics = metrics
        self._announcer = announcer
        self._open_consumer = open_consumer
        self._resources = resources
        self._redis = redis
        self._registry = Registry(self.models)
        self._drift = drift_of(settings, spec)
        self._topics = StreamTopics(spec.name)
        self._reader = FeatureReader(spec)

    def attach(self, follower: ViewFollower, *, scores: bool) -> None:
        """Use `follower`, which follows this stream's logs; models are loaded where this worker scores."""
        self._follower = follower
        self.serving = Serving(
            self.spec,
            self.models,
            self.deployments,
            follower.caught_up,
            self._shelf,
            baseline_opener(artifact_store(self._settings)),
            self._metrics,
            self._raise_alert,
            now_ms,
            loads=scores,
        )

    @property
    def statuses(self) -> Counter[Status]:
        """How many models are registered with each status, as far as the views are."""
        return Counter(version.status for version in self._registry.versions.values())

    @property
    def routed(self) -> list[ModelVersion]:
        """The versions that are routed to, and the previous champion, as far as the views are."""
        routes = routes_of(self.deployments.events)
        found = map(self._registry.find, (*routes.routed, routes.previous))
        return [version for version in found if version is not None]

    def stages(self, role: RoleName) -> list[StageSpec]:
        """Return the stages of `role` for this stream. What reads the same topic is in different consumer groups."""
        made: dict[str, tuple[str, Callable[[int, int], Stage]]] = {
            "score": (score.STAGE, self._score),
            "join": (join.STAGE, self._join),
            "learn": (control.STAGE, self._control),
            "evaluate": (evaluate.STAGE, self._evaluate),
            "archive": (archive.STAGE, self._archive),
            "compare": (compare.STAGE, self._compare),
            "judge": (judge.STAGE, self._judge),
            "views": (views.STAGE, self._views),
            "train": (train.STAGE, self._train),
            "notify": (notify.STAGE, self._notify),
        }
        made |= {learner_group(name): (learn.STAGE, partial(self._learn, name)) for name in self.spec.learners}
        return [
            StageSpec(
                self.spec.name,
                group,
                stage,
                topics,
                make,
                single=role in ("learn", "train"),
                prompt=stage in (score.STAGE, control.STAGE),
            )
            for group, topics in inputs_of(self.spec, role).items()
            for stage, make in [made[group]]
        ]

    def _score(self, partition: int, partitions: int) -> Stage:
        intake = FeatureIntake(
            self._reader, Placement(self._topics.features, partition, partitions), self._settings.max_event_bytes
        )
        gate = DeadLetterGate(self._settings.dead_letter_share, self._settings.dead_letter_window)
        counting = Counting(self.spec, self._drift, partition, self._metrics)
        return score.Score(self.serving, intake, counting, gate, self._metrics, now_ms)

    def _control(self, partition: int, partitions: int) -> Stage:
        return control.Control(
            self.spec, self.models, self.deployments, self._follower.caught_up, self._shelf, self._metrics, now_ms
        )

    def _join(self, partition: int, partitions: int) -> Stage:
        return join.Join(
            self.spec,
            partition,
            Placement(self._topics.labels, partition, partitions),
            DeadLetterGate(self._settings.dead_letter_share, self._settings.dead_letter_window),
            self._memory(join.STAGE, partition),
            self._metrics,
            now_ms,
            self._settings.max_event_bytes,
        )

    def _evaluate(self, partition: int, partitions: int) -> Stage:
        blobs = Blobs(artifact_store(self._settings), f"{self.spec.name} {evaluate.STAGE}")
        return evaluate.Evaluate(self.spec, self._memory(evaluate.STAGE, partition), blobs, self._metrics)

    def _archive(self, partition: int, partitions: int) -> Stage:
        from agents.archive.stage import ArchiveStage  # with Arrow, which no other role needs
        from stores.archive import Archive

        store = Archive(self._settings.model_storage_dir)
        return ArchiveStage(self.spec, store, self._memory(archive.STAGE, partition), self._metrics, now_ms)

    def _compare(self, partition: int, partitions: int) -> Stage:
        owner = f"{self.spec.name} {compare.STAGE}"
        return compare.Compare(
            self.spec,
            self.deployments,
            self._follower.caught_up,
            self._memory(compare.STAGE, partition),
            Blobs(artifact_store(self._settings), owner, compare.INLINE_BYTES),
            self._metrics,
        )

    def _learn(self, lineage: str, partition: int, partitions: int) -> Stage:
        learner = learner_of(self._settings, self.spec.learners[lineage])
        store = artifact_store(self._settings)
        return learn.Learn(
            self.spec,
            lineage,
            learner,
            Apart() if learner_type(learner.algorithm).heavy else Here(),
            self._memory(f"{learn.STAGE}-{lineage}", partition),
            Blobs(store, f"{self.spec.name} {learn.STAGE} {lineage}"),
            Publisher(
                self.spec, lineage, learner, self.models, self.deployments, store, signer(self._settings), now_ms
            ),
            self._metrics,
            self._settings.checkpoint_interval_ms / 1000,
        )

    def _judge(self, partition: int, partitions: int) -> Stage:
        open_baseline = baseline_opener(artifact_store(self._settings))
        find = baseline_finder(self.models, self._follower.caught_up, open_baseline)
        return judge.Judge(self.spec, self._drift, find, self._memory(judge.STAGE, partition), self._metrics)

    def _views(self, partition: int, partitions: int) -> Stage:
        return views.Views(self.spec, partial(read_back, self._open_consumer), self._redis, self._metrics, now_ms)

    def _train(self, partition: int, partitions: int) -> Stage:
        samples = TopicPartition(self._topics.samples, 0)
        world = train.World(
            self.models, self.deployments, self._follower.caught_up, partial(end_of, self._open_consumer, samples)
        )
        plan = plan_of(self._settings, self.spec, {"steps": self.spec.experiments.steps})
        memory = self._memory(train.STAGE, partition)
        spec = msgspec.structs.replace(self.spec, drift=self._drift)  # a run knows no settings
        doing = train.Doing(self._resources(), train.run_apart, train.clear_leftovers)
        return train.Train(spec, memory, world, plan, doing, self._metrics, now_ms)

    def _notify(self, partition: int, partitions: int) -> Stage:
        outlets = [notify.Outlet(sink.spec, sender_of(sink)) for sink in sinks_of(self._settings.sinks, self.spec.name)]
        memory, history = self._memory(notify.STAGE, partition), partial(read_back, self._open_consumer)
        return notify.Notify(self.spec, outlets, memory, history, self._metrics, now_ms)

    def _memory(self, stage: str, partition: int) -> KafkaMemory:
        return KafkaMemory(self._topics.checkpoints, stage, partition, self._open_consumer)

    async def _raise_alert(self, alert: Alert) -> None:
        await self._announcer.say(self._topics.alerts, self.spec.name, encode(alert))
