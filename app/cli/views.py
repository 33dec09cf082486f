"""`penstock views rebuild`."""

from collections.abc import Sequence
from dataclasses import asdict

import click

from app.cli.context import Context, json_option, pass_context, run
from app.clock import now_ms
from app.settings import Settings
from app.views import rebuild
from schemas.errors import SettingsError
from schemas.streams import StreamSpec
from stores.views import Changes, RedisViews
from stream.connection import KafkaConnection


@click.group()
def views() -> None:
    """Look after what services look up in Redis: models, experiments, drift."""


@views.command("rebuild")
@click.option("--stream", "stream_name", help="The stream; without it, all that are declared.")
@json_option
@pass_context
def rebuild_command(context: Context, stream_name: str | None) -> None:
    """Write all views anew from the logs, and remove keys that do not belong. It needs no worker.

    Workers do the same by themselves; nothing that decides anything reads Redis. Assignments go, too: they are written
    when somebody asks for them.
    """
    settings = context.settings()
    named = stream_name is not None or not settings.streams
    specs = [context.stream(settings, stream_name)] if named else settings.streams
    if not settings.redis_url:
        raise SettingsError(
            "no Redis is named: set ML_REDIS_URL; the embedded one belongs to its worker, which fills it"
        )
    address, done = run(_rebuild(context.connection(settings), settings, specs))
    context.write(
        [{"stream": stream} | asdict(changes) for stream, changes in done.items()],
        lambda: "\n".join(
            f"{stream}: {changes.written:,} keys are in Redis at {address}; {changes.removed:,} that did not belong "
            "were removed"
            for stream, changes in done.items()
        ),
    )


async def _rebuild(
    connection: KafkaConnection, settings: Settings, specs: Sequence[StreamSpec]
) -> tuple[str, dict[str, Changes]]:
    redis = RedisViews(settings.redis_url)
    try:
        return redis.address, {spec.name: await rebuild(connection, spec, redis, now_ms()) for spec in specs}
    finally:
        await redis.close()
