"""What the doctor asks Kafka: brokers, topics, transactions, models and champions, and how far the workers are."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, get_args

from aiokafka import AIOKafkaProducer

from agents.baselines import baseline_opener, require_columns
from agents.shelf import ModelShelf, opener
from app.findings import Finding, ok, problem, skipped, warning
from app.local_checks import find_signer
from app.models import RegistryView, read_registry
from app.partitions import admin_client, lag_of
from app.registry import artifact_store
from app.roles import RoleName
from app.settings import Settings
from ml.models.protocol import Model
from schemas.errors import PenstockError, SettingsError
from schemas.events import ModelVersion, Status
from schemas.streams import StreamSpec
from stores.artifacts import ArtifactUntrusted, Signer
from stream import admin
from stream.connection import Cluster, KafkaConnection
from topics import topics_of

_BROKER_TIMEOUT_S: Final = 5.0
_SAFE_REPLICATION: Final = 3
_STATUSES: Final = get_args(Status)


async def check_broker(connection: KafkaConnection, cluster: Cluster) -> list[Finding]:
    """Say what answers at kafka_bootstrap, and which brokers of the cluster cannot be reached from here."""
    if cluster.embedded:
        sentence = f"{connection.bootstrap} is an embedded broker: it forgets everything when it ends"
        return [warning("broker", sentence, "right for a first look; for more, run Apache Kafka")]
    found = [
        ok("broker", f"Kafka answers at {connection.bootstrap} ({connection.security_protocol}), {cluster.brokers} up")
    ]
    for host, port in cluster.addresses:
        bootstrap = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            await replace(connection, bootstrap=bootstrap).reachable(_BROKER_TIMEOUT_S)
        except PenstockError as error:
            found.append(problem("broker", f"one of the cluster's brokers is out of reach: {error}"))
    return found


async def check_topics(connection: KafkaConnection, spec: StreamSpec, cluster: Cluster) -> list[Finding]:
    """Say what of the stream's topics is not as declared."""
    subject = f"topics of {spec.name}"
    if cluster.embedded:
        return [skipped(subject, "the embedded broker makes topics on first use")]
    wanted = topics_of(spec)
    if differences := await admin.check(connection, wanted):
        return [problem(subject, difference) for difference in differences]
    found = [ok(subject, f"all {len(wanted)} are as declared")]
    if cluster.brokers >= _SAFE_REPLICATION > spec.replication:
        sentence = f"keep {spec.replication} replica(s) although there are {cluster.brokers} brokers"
        found.append(warning(subject, sentence, "set replication = 3 and min_insync_replicas = 2"))
    return found


async def check_transactions(settings: Settings, connection: KafkaConnection, cluster: Cluster) -> list[Finding]:
    """Begin a transaction as a worker would. Raises KafkaError when that is refused."""
    if cluster.embedded:
        return [skipped("transactions", "on the embedded broker delivery is at least once")]
    if settings.delivery == "at_least_once":
        remedy = "unset ML_DELIVERY for exactly once"
        return [warning("transactions", "not used: after a crash, some predictions come twice", remedy)]
    transactional_id = f"{settings.kafka_group_prefix}-doctor"
    producer = AIOKafkaProducer(transactional_id=transactional_id, **connection.client_options())
    try:
        await producer.start()
        async with producer.transaction():
            pass
    finally:
        await producer.stop()
    return [ok("transactions", "work: delivery is exactly once")]


class ModelCheck:
    """Looks at the registered models, and loads what each stream routes to as a worker with these settings would."""

    def __init__(self, settings: Settings, connection: KafkaConnection) -> None:
        self._settings = settings
        self._connection = connection
        self._signer = _usable_signer(settings)
        self._shelf = ModelShelf(self._open, settings.model_memory_bytes)

    async def check(self, spec: StreamSpec) -> list[Finding]:
        """Say whether the stream's models can be trusted, and whether all that it routes to can be loaded."""
        registry = await read_registry(self._connection, spec)
        return [
            self._signatures(spec, registry),
            *await self._routed(spec, registry),
            *await self._drift(spec, registry),
        ]

    def _signatures(self, spec: StreamSpec, registry: RegistryView) -> Finding:
        subject = f"models of {spec.name}"
        models = [version for version in registry.models if not version.pruned]
        if not models:
            return warning(
                subject, "none is registered", f"`penstock models register --stream {spec.name} --file FILE`"
            )
        bad = [version.model_id for version in models if not self._is_signed(version)]
        if not bad:
            statuses = Counter(version.status for version in models)
            counts = ", ".join(f"{statuses[status]} {status}" for status in _STATUSES if statuses[status])
            return ok(subject, f"{len(models)} registered ({counts}), all signed with this machine's key")
        sentence = f"{len(bad)} of {len(models)} are not signed with this machine's key: {_some(bad)}"
        return warning(subject, sentence, "take the key that they were registered with, or register them again")

    async def _routed(self, spec: StreamSpec, registry: RegistryView) -> list[Finding]:
        """Load the champion and then everything beside it, each with what was loaded before it."""
        subject = f"champion of {spec.name}"
        if registry.champion is None:
            remedy = f"`penstock models promote MODEL_ID --stream {spec.name}`, with a worker running"
            return [warning(subject, "there is none: events wait until a model is promoted", remedy)]
        try:
            champion = await self._load(spec, registry, registry.champion)
        except PenstockError as error:
            remedy = "mend that, or promote another model; until then an earlier champion serves, or none"
            return [problem(subject, f"cannot serve: {error}", remedy)]
        found = [ok(subject, f"{champion.model_id} (revision {registry.revision}) is verified, opens and fits")]
        loaded = [champion]
        for subject, model_id, sentence, remedy in _beside(spec, registry):
            try:
                loaded.append(await self._load(spec, registry, model_id, loaded))
            except PenstockError as error:
                found.append(warning(subject, f"{sentence}: {error}", remedy))
            else:
                found.append(ok(subject, "it is verified, opens and fits beside the champion"))
        routed = (*registry.variants, *registry.shadows)  # the previous champion may go when room is short
        self._shelf.route(champion, [version for version in loaded if version.model_id in routed])
        return found

    async def _drift(self, spec: StreamSpec, registry: RegistryView) -> list[Finding]:
        """Say whether there is something to measure the champion's drift against."""
        if registry.champion is None:
            return []
        subject = f"drift of {spec.name}"
        remedy = f"`penstock drift baseline {registry.champion} --stream {spec.name} --data FILE`"
        source = registry.baseline_of(registry.champion)
        if source is None:
            return [warning(subject, f"it is not watched: champion {registry.champion} has no baseline", remedy)]
        try:
            open_baseline = baseline_opener(artifact_store(self._settings))
            require_columns(spec, await open_baseline(source.baseline, source.baseline_bytes))
        except PenstockError as error:
            return [
                warning(subject, f"it is not watched: the baseline of {source.model_id} is no use: {error}", remedy)
            ]
        return [ok(subject, f"it is watched, against the baseline of {source.model_id}")]

    async def _load(
        self, spec: StreamSpec, registry: RegistryView, model_id: str, beside: Sequence[ModelVersion] = ()
    ) -> ModelVersion:
        version = registry.find(model_id)
        await self._shelf.get(spec, version, beside)
        return version

    def _open(self, version: ModelVersion) -> Model:
        if self._signer is None:
            raise SettingsError(f"model {version.model_id} cannot be verified: this machine has no signing key")
        return opener(artifact_store(self._settings), self._signer, self._settings.model_threads)(version)

    def _is_signed(self, version: ModelVersion) -> bool:
        if self._signer is None:
            return False
        try:
            self._signer.verify(version)
        except ArtifactUntrusted:
            return False
        return True


def _beside(spec: StreamSpec, registry: RegistryView) -> Iterator[tuple[str, str, str, str]]:
    """Yield (subject, model id, what it means if that cannot be loaded, what to do) for all but the champion."""
    for model_id, name in registry.variants.items():
        assert registry.experiment is not None  # it has the variants
        stop = f"`penstock experiments stop {registry.experiment.experiment_id} --stream {spec.name}`"
        subject = f"variant {name} of {spec.name}"
        yield subject, model_id, "the champion scores its events, which count as errors", f"mend that, or {stop}"
    for model_id in registry.shadows:
        unshadow = f"`penstock models unshadow {model_id} --stream {spec.name}`"
        yield f"shadow {model_id} of {spec.name}", model_id, "events are scored without it", f"mend that, or {unshadow}"
    if registry.previous:
        subject = f"previous champion of {spec.name}"
        yield subject, registry.previous, "it is not ready for a roll-back", "mend that, or promote another model"


def _usable_signer(settings: Settings) -> Signer | None:
    try:
        return find_signer(settings)
    except SettingsError:
        return None  # why, is a finding of its own


async def check_progress(
    settings: Settings,
    connection: KafkaConnection,
    cluster: Cluster,
    subject: str,
    role: RoleName,
    group: str,
    topics: Sequence[str],
) -> list[Finding]:
    """Say whether workers run a group of the role, and how much of its topics waits for them."""
    group = f"{settings.kafka_group_prefix}-{group}"
    queues = []
    for topic in topics:
        waiting, expired = await lag_of(connection, group, topic)
        if expired:
            sentence = f"retention removed {expired:,} records of {topic} before {group} read them: they are lost to it"
            return [problem(subject, sentence, "keep enough workers running, or raise the stream's retention_hours")]
        queues.append(f"at most {waiting:,} records of {topic} wait" if waiting else f"nothing of {topic} waits")
    queue = ", ".join(queues)
    if cluster.embedded:  # it does not tell who is in a group
        return [ok(subject, queue)]
    if not (members := await _members(connection, group)):
        return [warning(subject, f"no worker runs this role; {queue}", f"`penstock worker --role {role}`")]
    return [ok(subject, f"{members} worker(s); {queue}")]


async def _members(connection: KafkaConnection, group: str) -> int:
    async with admin_client(connection) as client:
        [answer] = await client.describe_consumer_groups([group])
    [(_, _, _, _, _, members)] = answer.groups
    return len(members)


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
