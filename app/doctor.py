"""The doctor: looks at everything a stream needs and says what is wrong and what to do. Changes nothing.

What fails is a finding, never the end of the examination; what needs something that is not there is skipped.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Final

from agents.shelf import ModelShelf
from app import kafka_checks, local_checks
from app.findings import Finding, problem, skipped
from app.registry import model_opener
from app.settings import Settings
from app.worker import ROLES
from schemas.errors import PenstockError
from schemas.streams import StreamSpec
from stores.artifacts import Signer
from stream.connection import Cluster, KafkaConnection

CHECK_TIMEOUT_S: Final = 30.0


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yield every finding, as soon as it is there. Raises nothing."""
    for finding in local_checks.check_settings(settings):
        yield finding
    for subject, check in (
        ("signing key", asyncio.to_thread(local_checks.check_signing_key, settings)),
        ("artifact store", local_checks.check_store(settings)),
        ("metrics port", local_checks.check_port(settings)),
    ):
        for finding in await attempt(subject, check):
            yield finding
    async for finding in _examine_kafka(settings):
        yield finding


async def attempt(
    subject: str, check: Awaitable[Iterable[Finding]], timeout_s: float = CHECK_TIMEOUT_S
) -> list[Finding]:
    """Return what `check` finds; a check that fails, or takes longer than `timeout_s`, is a problem of its own."""
    try:
        async with asyncio.timeout(timeout_s):
            return list(await check)
    except PenstockError as error:
        return [problem(subject, line) for line in str(error).splitlines()]
    except TimeoutError:
        return [problem(subject, f"could not be examined within {timeout_s:g} s")]
    except Exception as error:  # noqa: BLE001  # whatever else is wrong with one thing, the others are looked at
        return [problem(subject, f"could not be examined: {type(error).__name__}: {error}")]


async def _examine_kafka(settings: Settings) -> AsyncIterator[Finding]:
    if settings.embedded:
        remedy = "set ML_KAFKA_BOOTSTRAP, or start the embedded broker with `penstock dev`"
        yield problem("broker", "no Kafka is named", remedy)
        yield skipped("the rest", "needs a broker")
        return
    connection = settings.kafka_connection()
    try:
        cluster = await connection.reachable()
    except PenstockError as error:
        yield problem("broker", str(error))
        yield skipped("the rest", "needs a broker")
        return
    for subject, check in (
        ("broker", kafka_checks.check_broker(connection, cluster)),
        ("transactions", kafka_checks.check_transactions(settings, connection, cluster)),
    ):
        for finding in await attempt(subject, check):
            yield finding
    shelf = ModelShelf(model_opener(settings), settings.model_memory_bytes)
