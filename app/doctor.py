"""The doctor: looks at everything a stream needs and says what is wrong and what to do; it mends nothing.

What fails is a finding, never the end of the examination; what needs something that is not there is skipped.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Final

from app import kafka_checks as kafka
from app import local_checks as local
from app.findings import Finding, problem, skipped
from app.roles import ROLES, inputs_of
from app.settings import Settings
from app.training_checks import check_training
from schemas.errors import PenstockError, SettingsError
from schemas.streams import StreamSpec
from stream.connection import Cluster, KafkaConnection

CHECK_TIMEOUT_S: Final = 30.0

Check = Callable[[], Awaitable[Iterable[Finding]]]


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yield every finding as soon as it is there. Raises nothing."""
    for subject, check in _local_checks(settings):
        for finding in await attempt(subject, check):
            yield finding
    connection = settings.kafka_connection()
    try:
        if settings.embedded:
            raise SettingsError("no Kafka is named: set ML_KAFKA_BOOTSTRAP, or start one with `penstock dev`")
        cluster = await connection.reachable()
    except PenstockError as error:
        yield problem("broker", str(error))
        yield skipped("everything else", "needs a broker")
        return
    for subject, check in _broker_checks(settings, connection, cluster):
        for finding in await attempt(subject, check):
            yield finding
    models = kafka.ModelCheck(settings, connection)
    for spec in settings.streams:
        async for finding in _examine_stream(settings, connection, cluster, models, spec):
            yield finding


async def attempt(subject: str, check: Check, timeout_s: float = CHECK_TIMEOUT_S) -> list[Finding]:
    """Return what `check` finds; a check that fails, or takes longer than `timeout_s`, is a problem of its own."""
    try:
        async with asyncio.timeout(timeout_s):
            return list(await check())
    except PenstockError as error:
        return [problem(subject, line) for line in str(error).splitlines()]
    except TimeoutError:
        return [problem(subject, f"could not be examined within {timeout_s:g} s")]
    except Exception as error:  # noqa: BLE001  # whatever else is wrong with one thing, the others are looked at
        return [problem(subject, f"could not be examined: {type(error).__name__}: {error}")]


def _local_checks(settings: Settings) -> Iterator[tuple[str, Check]]:
    yield "settings", partial(asyncio.to_thread, local.check_settings, settings)
    yield "learners", partial(asyncio.to_thread, local.check_learners, settings)
    yield "training", partial(asyncio.to_thread, check_training, settings)
    yield "signing key", partial(asyncio.to_thread, local.check_signing_key, settings)
    yield "artifact store", partial(asyncio.to_thread, local.check_store, settings)
    yield "redis", partial(local.check_redis, settings)
    yield "sinks", partial(asyncio.to_thread, local.check_sinks, settings)
    yield "metrics port", partial(local.check_port, settings)


def _broker_checks(settings: Settings, connection: KafkaConnection, cluster: Cluster) -> Iterator[tuple[str, Check]]:
    yield "broker", partial(kafka.check_broker, connection, cluster)
    yield "transactions", partial(kafka.check_transactions, settings, connection, cluster)


async def _examine_stream(
    settings: Settings, connection: KafkaConnection, cluster: Cluster, models: kafka.ModelCheck, spec: StreamSpec
) -> AsyncIterator[Finding]:
    topics = await attempt(f"topics of {spec.name}", partial(kafka.check_topics, connection, spec, cluster))
    for finding in topics:
        yield finding
    if any(finding.status == "problem" for finding in topics):
        yield skipped(f"everything else of {spec.name}", "needs its topics")
        return
    for finding in await attempt(f"models of {spec.name}", partial(models.check, spec)):
        yield finding
    groups = [(role, group, inputs) for role in ROLES for group, inputs in inputs_of(spec, role).items()]
    for role, group, inputs in groups:
        subject = f"{group} of {spec.name}"
        check = partial(kafka.check_progress, settings, connection, cluster, subject, role, group, inputs)
        for finding in await attempt(subject, check):
            yield finding
