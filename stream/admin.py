"""Topics as they are against topics as they must be: `check` says what differs, `apply` mends what is safe to mend.

Safe means that no record can be lost and none can land in another partition than its key says. Everything else is
left alone and answered with what a person can do. The embedded broker has no topic admin: a topic appears there when
it is first used, so there is nothing to check or to apply.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.errors import FatalError, RetryableError, SettingsError
from stream.connection import KafkaConnection
from topics import TopicSpec

_SET_ON_TOPIC: Final = 1  # DescribeConfigs' source of a value that was set for this very topic
_UNLIMITED: Final = "-1"
_POLL_S: Final = 0.05
_APPLY: Final = "run `penstock topics apply`"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualTopic:
    """What a topic is. `config` are the values in force, `own` those of them that were set for this topic."""

    partitions: int
    replication: int
    config: Mapping[str, str]
    own: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing about a topic that is not as it must be.

    `mend` is what `apply` does about it: create the topic, or set a (key, value) of its config. Where it is None,
    `remedy` says what a person can do.
    """

    topic: str
    what: str
    mend: Literal["create"] | tuple[str, str] | None = None
    remedy: str = _APPLY

    def __str__(self) -> str:
        return f"topic {self.topic} {self.what}: {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What `apply` did about one topic, or about one difference of it; `detail` is empty or says what or why."""

    topic: str
    action: Literal["created", "changed", "unchanged", "refused"]
    detail: str = ""


def differences(spec: TopicSpec, actual: ActualTopic | None, brokers: int) -> list[Difference]:
    """Return how `actual` (None: there is no such topic) differs from `spec` in a cluster of `brokers`."""
    if actual is None:
        return [_missing(spec, brokers)]
    found = []
    if actual.partitions != spec.partitions:
        found.append(_partitions_differ(spec, actual))
    if actual.replication < spec.replication:
        found.append(
            Difference(
                topic=spec.name,
                what=f"has replication factor {actual.replication}, but must have {spec.replication}",
                remedy="raise it with kafka-reassign-partitions, or lower the stream's replication",
            )
        )
    found += [
        _config_differs(spec, actual, key) for key, value in spec.config.items() if actual.config.get(key) != value
    ]
    return found


async def check(connection: KafkaConnection, specs: Sequence[TopicSpec]) -> list[str]:
    """Return one sentence for each thing that is not as `specs` say, with what to do about it; change nothing.

    Raises SettingsError or RetryableError when Kafka cannot be reached, FatalError when it refuses to answer.
    """
    cluster = await connection.reachable()
    if cluster.embedded:
        return []
    async with _admin(connection) as admin:
        actual = await _describe(admin, specs)
    return [str(d) for spec in specs for d in differences(spec, actual.get(spec.name), cluster.brokers)]


async def require(connection: KafkaConnection, names: Sequence[str]) -> dict[str, int]:
    """Return how many partitions each of these topics has; change nothing, and look at nothing else.

    Raises SettingsError when one does not exist: a client would wait long for it. On the embedded broker such a one is
    only left out. Raises as `check` does.
    """
    cluster = await connection.reachable()
    async with _admin(connection) as admin:
        known = {found["topic"]: len(found["partitions"]) for found in await admin.describe_topics()}
    missing = [name for name in names if not known.get(name)]
    if missing and not cluster.embedded:
        more = f" and {len(missing) - 1:,} more do" if len(missing) > 1 else " does"
        raise SettingsError(f"topic {missing[0]}{more} not exist: {_APPLY}")
    return {name: known[name] for name in names if name not in missing}


async def apply(connection: KafkaConnection, specs: Sequence[TopicSpec]) -> list[Outcome]:
    """Create the topics that are missing, mend what is safe to mend, refuse the rest; return what was done.

    Returns when the created topics can be seen. Applying again changes nothing. Raises as `check` does.
    """
    cluster = await connection.reachable()
    if cluster.embedded:
        note = "the embedded broker makes topics on first use"
        return [Outcome(topic=spec.name, action="unchanged", detail=note) for spec in specs]
    outcomes = []
    async with _admin(connection) as admin:
        actual = await _describe(admin, specs)
        for spec in specs:
            outcomes += await _mend(admin, spec, actual.get(spec.name), cluster.brokers)
        created = {outcome.topic for outcome in outcomes if outcome.action == "created"}
        async with asyncio.timeout(connection.request_timeout_ms / 1000):
            while created - (await _describe(admin, specs)).keys():  # noqa: ASYNC110 (Kafka sends no event)
                await asyncio.sleep(_POLL_S)
    return outcomes


def _missing(spec: TopicSpec, brokers: int) -> Difference:
    if spec.replication <= brokers:
        return Difference(topic=spec.name, what="does not exist", mend="create")
    return Difference(
        topic=spec.name,
        what=f"does not exist and cannot have {spec.replication} replicas: the cluster has {brokers} broker(s)",
        remedy="start more brokers, or lower the stream's replication",
    )


def _partitions_differ(spec: TopicSpec, actual: ActualTopic) -> Difference:
    what = f"has {actual.partitions} partition(s), but must have {spec.partitions}"
    if spec.partitions == 1:
        remedy = "it needs one order; begin the stream again under another name"
    else:
        # Adding some would send an entity's later events to another partition than its earlier ones.
        remedy = (
            f"set the stream's partitions to {actual.partitions} if its features, labels and predictions all have "
            "that many, else begin it again under another name"
        )
    return Difference(topic=spec.name, what=what, remedy=remedy)


def _config_differs(spec: TopicSpec, actual: ActualTopic, key: str) -> Difference:
    wanted, present = spec.config[key], actual.config.get(key)
    what = f"has {key}={present}, but must have {wanted}"
    if key == "min.insync.replicas" and int(wanted) > actual.replication:
        return Difference(topic=spec.name, what=what, remedy="raise its replication factor first, or nobody can write")
    if _would_delete(key, wanted, present):
        command = f"kafka-configs --alter --entity-type topics --entity-name {spec.name} --add-config {key}={wanted}"
        return Difference(topic=spec.name, what=what, remedy=f"this may delete records, so do it yourself: {command}")
    return Difference(topic=spec.name, what=what, mend=(key, wanted))


def _would_delete(key: str, wanted: str, present: str | None) -> bool:
    """Return whether Kafka may delete records once `key` goes from `present` to `wanted`."""
    if key == "cleanup.policy":
        return True
    if key not in ("retention.ms", "retention.bytes") or wanted == _UNLIMITED:
        return False
    return present is None or present == _UNLIMITED or int(present) > int(wanted)


async def _mend(admin: AIOKafkaAdminClient, spec: TopicSpec, actual: ActualTopic | None, brokers: int) -> list[Outcome]:
    found = differences(spec, actual, brokers)
    outcomes = [
        Outcome(topic=spec.name, action="refused", detail=f"{d.what}: {d.remedy}") for d in found if d.mend is None
    ]
    changes = dict(d.mend for d in found if isinstance(d.mend, tuple))
    if actual is not None and changes:
        outcomes.append(await _set_config(admin, spec.name, actual.own, changes))
    if any(d.mend == "create" for d in found):
        outcomes.append(await _create(admin, spec))
    return outcomes or [Outcome(topic=spec.name, action="unchanged")]


async def _create(admin: AIOKafkaAdminClient, spec: TopicSpec) -> Outcome:
    topic = NewTopic(spec.name, spec.partitions, spec.replication, topic_configs=dict(spec.config))
    [(_, code, message)] = (await admin.create_topics([topic])).topic_errors
    if code == errors.TopicAlreadyExistsError.errno:
        return Outcome(topic=spec.name, action="refused", detail=f"was made by somebody else just now: {_APPLY} again")
    done = Outcome(topic=spec.name, action="created", detail=f"{spec.partitions} partition(s)")
    return done if code == 0 else _refused(spec.name, code, message)


async def _set_config(
    admin: AIOKafkaAdminClient, topic: str, own: Mapping[str, str], changes: Mapping[str, str]
) -> Outcome:
    """Set `changes` beside what the topic has of its own: the request resets everything that it does not name."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {**own, **changes})
    [response] = await admin.alter_configs([resource])
    [(code, message, _, _)] = response.resources
    done = Outcome(topic=topic, action="changed", detail=", ".join(f"{key}={value}" for key, value in changes.items()))
    return done if code == 0 else _refused(topic, code, message)


def _refused(topic: str, code: int, message: str | None) -> Outcome:
    return Outcome(topic=topic, action="refused", detail=f"Kafka says: {message or errors.for_code(code).description}")


async def _describe(admin: AIOKafkaAdminClient, specs: Iterable[TopicSpec]) -> dict[str, ActualTopic]:
    """Return those of the topics that exist. Asks for all topics: asking by name may create them."""
    wanted = {spec.name for spec in specs}
    partitions = {
        t["topic"]: t["partitions"] for t in await admin.describe_topics() if t["topic"] in wanted and t["partitions"]
    }
    configs = await _describe_configs(admin, partitions)
    return {
        name: ActualTopic(
            partitions=len(parts),
            replication=min(len(part["replicas"]) for part in parts),
            config={key: value for key, value, *_ in configs[name]},
            own={key: value for key, value, _, source, *_ in configs[name] if source == _SET_ON_TOPIC},
        )
        for name, parts in partitions.items()
    }


async def _describe_configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, list[tuple[Any, ...]]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs = {}
    for response in await admin.describe_configs(resources):
        for code, message, _, name, entries in response.resources:
            if code != 0:
                raise FatalError(
                    f"the settings of topic {name} cannot be read: {message or errors.for_code(code).description}"
                )
            configs[name] = entries
    return configs


@asynccontextmanager
async def _admin(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an admin client; what goes wrong with Kafka inside is a RetryableError of one sentence."""
    admin = AIOKafkaAdminClient(**connection.client_options())
    try:
        await admin.start()
        yield admin
    except (errors.KafkaError, TimeoutError) as error:
        raise RetryableError(f"Kafka at {connection.bootstrap} did not answer about its topics: {error!r}") from error
    finally:
        await admin.close()
