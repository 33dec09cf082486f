"""What the doctor can see without Kafka: streams, learners, signing key, artifact store, Redis, port."""

import asyncio
import errno
import ipaddress
from typing import Final

import aiohttp

from agents.learn import opener_of
from app.embedded_redis import RedisMissing, redis_server
from app.findings import Finding, ok, problem, warning
from app.registry import LOCAL_KEY, artifact_store
from app.settings import Settings
from app.stages import learner_of
from ml.errors import ModelError
from schemas.streams import LearnerSpec, StreamSpec
from stores.artifacts import Signer, load_or_create_key
from stores.views import RedisViews

_LEAST_KEY_BYTES: Final = 16
_HEALTH_TIMEOUT_S: Final = 5.0


def check_settings(settings: Settings) -> list[Finding]:
    """Say what the settings, all of them valid, mean for safety."""
    names = ", ".join(stream.name for stream in settings.streams)
    found = []
    if names:
        found.append(ok("settings", f"valid; streams: {names}"))
    else:
        remedy = "write a [streams.<name>] table, or run `penstock stream init --csv FILE`"
        found.append(problem("settings", "valid, but they declare no stream", remedy))
    if settings.kafka_security_protocol == "SASL_PLAINTEXT" and settings.kafka_sasl_mechanism == "PLAIN":
        remedy = "set kafka_security_protocol to SASL_SSL"
        found.append(warning("settings", "the Kafka password goes over the network in the clear", remedy))
    if not _is_loopback(settings.metrics_host):
        sentence = (
            f"metrics_host {settings.metrics_host} lets other machines read /metrics and /health, without a login"
        )
        found.append(warning("settings", sentence, "see to it that only your network reaches it"))
    return found


def check_learners(settings: Settings) -> list[Finding]:
    """Open every declared learner as a worker would, but without what it has learnt; the first takes a second."""
    found = []
    for spec in settings.streams:
        for lineage, declared in spec.learners.items():
            subject, learner = f"learner {lineage} of {spec.name}", learner_of(settings, declared)
            if wrong := _learner_problems(spec, learner):
                remedy = f"mend [streams.{spec.name}.learners.{lineage}], or the ML_ONLINE_ settings"
                found += [problem(subject, sentence, remedy) for sentence in wrong]
            else:
                found.append(ok(subject, f"{learner.algorithm} can learn, by the strategy {learner.strategy}"))
    return found


def _learner_problems(spec: StreamSpec, learner: LearnerSpec) -> list[str]:
    """Return what is wrong with a learner whose strategy, batch size and buffer are set."""
    found = []
    batch_size, max_buffer = learner.batch_size or 0, learner.max_buffer or 0
    if learner.strategy in ("mini_batch", "adaptive") and batch_size > max_buffer:
        found.append(f"batch_size {batch_size} is more than max_buffer {max_buffer}: no batch would ever be complete")
    try:
        opener_of(spec, learner)()
    except ModelError as error:
        found.append(str(error))
    return found


def find_signer(settings: Settings) -> Signer | None:
    """Return the signer that a worker here would have; None when it would have to make its key first.

    Raises SettingsError when the key cannot be used.
    """
    if settings.model_signing_key:
        return Signer(settings.model_signing_key.encode())
    return Signer(load_or_create_key(LOCAL_KEY)) if LOCAL_KEY.exists() else None


def check_signing_key(settings: Settings) -> list[Finding]:
    """Say where the key comes from. Raises SettingsError when it cannot be used."""
    if find_signer(settings) is None:
        sentence = f"there is none yet; the first worker or registration here makes {LOCAL_KEY}"
        return [warning("signing key", sentence, "for more than one machine, set ML_MODEL_SIGNING_KEY on all of them")]
    if not settings.model_signing_key:
        return [ok("signing key", f"{LOCAL_KEY}, which only its owner can read; other machines need the same")]
    if len(settings.model_signing_key.encode()) < _LEAST_KEY_BYTES:
        sentence = f"it has fewer than {_LEAST_KEY_BYTES} bytes and may be guessed"
        return [warning("signing key", sentence, "take 32 random bytes, such as `openssl rand -hex 32` prints")]
    return [ok("signing key", "from the settings")]


def check_store(settings: Settings) -> list[Finding]:
    """Write, read and remove a probe. Raises PenstockError when that fails."""
    artifact_store(settings).probe()
    return [ok("artifact store", f"{settings.model_storage_dir} can be written and read")]


async def check_redis(settings: Settings) -> list[Finding]:
    """Write, read and remove a probe in the Redis that is named. Raises PenstockError when that fails.

    Where none is named, say whether there is an embedded one. The password is in nothing that is said.
    """
    if not settings.redis_url:
        try:
            redis_server()
        except RedisMissing as error:
            return [warning("redis", f"the stream goes on without views: {error}")]
        return [ok("redis", "none is named: a worker with the role learn keeps its views in an embedded one")]
    views = RedisViews(settings.redis_url)
    try:
        version = await views.probe()
    finally:
        await views.close()
    return [ok("redis", f"{version} at {views.address} can be written and read")]


def check_sinks(settings: Settings) -> list[Finding]:
    """Say whether each sink has what it needs to deliver. Nothing is sent: `penstock sinks test` does that."""
    if wrong := settings.sink_problems():
        return [problem("sinks", sentence) for sentence in wrong]
    if not settings.sinks:
        return [ok("sinks", "none is declared: alerts stay in their topic")]
    return [
        ok(f"sink {sink.name}", "declared, with its secret; `penstock sinks test` sends an alert")
        for sink in settings.sinks
    ]


async def check_port(settings: Settings) -> list[Finding]:
    """Say whether a worker could listen, or whether one does already."""
    host, port = settings.metrics_host, settings.metrics_port
    if port == 0:
        return [ok("metrics port", "any free one")]
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return [await _who_listens(host, port)]
        sentence = f"metrics_port {port} on {host} cannot be used: {error.strerror}"
        return [problem("metrics port", sentence, "set ML_METRICS_HOST and ML_METRICS_PORT")]
    server.close()
    return [ok("metrics port", f"{port} on {host} is free")]


async def _who_listens(host: str, port: int) -> Finding:
    """Tell a worker from another program, by what `/health` answers."""
    name = "127.0.0.1" if host in ("0.0.0.0", "") else f"[{host}]" if ":" in host else host
    try:
        timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{name}:{port}/health") as answer,
        ):
            ready = bool((await answer.json())["ready"]) and answer.ok
    except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, KeyError):
        remedy = "set ML_METRICS_PORT to another one; 0 takes any free one"
        return warning("metrics port", f"{port} on {host} is taken by a program that is no worker", remedy)
    if ready:
        return ok("metrics port", f"a worker listens on {port} and is ready")
    return warning("metrics port", f"a worker listens on {port}, but is not ready", f"see http://{name}:{port}/health")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
