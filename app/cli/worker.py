"""`penstock dev` and `penstock worker`."""

import signal
import threading

import click

from app.cli.context import Context, json_option, pass_context, run, set_up_logging
from app.embedded import EmbeddedBroker
from app.roles import ROLES, RoleName
from app.worker import run_worker


@click.command()
@json_option
@pass_context
def dev(context: Context) -> None:
    """Run the embedded broker in the foreground and print its address.

    It is for a first look and for tests: it keeps about 5 MB per partition and forgets everything when it ends.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedBroker() as broker:
        context.write(
            {"bootstrap": broker.bootstrap},
            lambda: (
                f"The embedded broker answers at {broker.bootstrap}. It keeps about 5 MB per partition and forgets "
                f"everything when it ends (Ctrl-C).\nexport ML_KAFKA_BOOTSTRAP={broker.bootstrap}"
            ),
        )
        stop.wait()


@click.command()
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), help="Repeatable; default: all roles.")
@pass_context
def worker(context: Context, roles: tuple[RoleName, ...]) -> None:
    """Run the stages of all declared streams until SIGTERM."""
    settings = context.settings()
    set_up_logging(settings.log_level)
    run(run_worker(settings, context.connection(settings), roles or ROLES))
