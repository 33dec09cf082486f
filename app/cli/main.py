"""The command group, and the translation of errors into sentences and exit codes."""

import logging
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from aiokafka.errors import KafkaError

from app.cli.context import Context
from app.text import printable_lines
from schemas.errors import FatalError, PenstockError, RetryableError

_COMMANDS: Final[Mapping[str, str]] = {
    "dev": "worker",
    "demo": "demo",
    "worker": "worker",
    "page": "page",
    "stream": "stream",
    "topics": "topics",
    "models": "models",
    "experiments": "experiments",
    "rollouts": "rollouts",
    "audit": "audit",
    "learners": "learners",
    "retrain": "retrain",
    "runs": "runs",
    "drift": "drift",
    "explain": "explain",
    "replay": "replay",
    "views": "views",
    "sinks": "sinks",
    "dead-letters": "dead_letters",
    "doctor": "doctor",
}
"""The commands, in the order of the help, and the module of each: where it is called as the command."""


class Commands(click.Group):
    """Imports a command's module when it is called: a roll-back need not wait for what a worker imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, if there is one."""
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"app.cli.{_COMMANDS[cmd_name]}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The settings file; default: ML_CONFIG, else penstock.toml where you are.",
)
@click.version_option(package_name="penstock")
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Keep machine-learning models alive inside Kafka."""
    context.obj = Context(config)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a command says itself what went wrong


def main() -> None:
    """Run the command line; never show a traceback for what a person can mend."""
    try:
        sys.exit(
            cli(prog_name="penstock", standalone_mode=False)
        )  # click returns the code of an Exit, and otherwise None
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except PenstockError as error:
        click.echo(f"penstock: {printable_lines(str(error))}", err=True)
        sys.exit(exit_code(error))
    except KafkaError as error:
        click.echo(f"penstock: Kafka refused or did not answer: {printable_lines(str(error))}", err=True)
        sys.exit(2)


def exit_code(error: PenstockError) -> int:
    """Return 2 for what the user must set right or start first, 1 for a refusal, or what the error says."""
    if isinstance(error, FatalError):
        return error.exit_code
    return 2 if isinstance(error, RetryableError) else 1
