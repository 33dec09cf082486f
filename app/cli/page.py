"""`penstock page`."""

import asyncio
import signal

import click

from app.cli.context import Context, pass_context, run, set_up_logging
from app.clock import now_ms
from app.page.audience import Audience
from app.page.following import Following
from app.page.server import PageServer
from app.settings import Settings
from schemas.errors import SettingsError
from stream.connection import KafkaConnection


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), help="Default: page_port; 0 takes any free one.")
@pass_context
def page(context: Context, port: int | None) -> None:
    """Serve the live page of all declared streams until Ctrl-C, beside workers that run elsewhere.

    A worker serves it, too. It reads topics only, and those only while somebody looks.
    """
    settings = context.settings()
    if not settings.streams:
        raise SettingsError("no stream is declared: write a [streams.<name>] table, or run `penstock stream init`")
    set_up_logging(settings.log_level)
    run(_serve(settings, context.connection(settings), settings.page_port if port is None else port))


async def _serve(settings: Settings, connection: KafkaConnection, port: int) -> None:
    following = Following(connection, settings.streams, now_ms, lambda stream: None)
    server = PageServer(Audience(following.run, now_ms), [stream.name for stream in settings.streams])
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    click.echo(f"The page is at {await server.start(settings.page_host, port)} (Ctrl-C ends it).")
    try:
        await ended.wait()
    finally:
        await server.stop()
