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

_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "dev": ("worker", "Run the embedded broker in the foreground and print its address."),
    "demo": ("demo", "Replay a year of real flights: a champion is trained on January and scores the rest, live."),
    "worker": ("worker", "Run the stages of all declared streams until SIGTERM."),
    "page": ("page", "Serve the live page of all declared streams until Ctrl-C, beside workers that run elsewhere."),
    "stream": ("stream", "Declare streams, send them the rows of a file, and look at their topics."),
    "topics": ("topics", "Create and check the topics of all declared streams."),
    "models": ("models", "Register models and choose which one serves, and which ones score beside it."),
    "experiments": (
        "experiments",
        "Let several models serve at once, each some of the entities, and find out which is the best.",
    ),
    "rollouts": ("rollouts", "Put a model in the champion's place step by step, as far as the evidence carries it."),
    "audit": (
        "audit",
        "Show the newest commands and registrations, oldest first: who asked for what, what became of it, and why.",
    ),
    "learners": ("learners", "Look at the models that learn from the stream, and tell them to learn now."),
    "retrain": ("retrain", "Ask for a new model, trained on the stream's newest samples."),
    "runs": ("runs", "Look at training runs: what they are at, and what became of them."),
    "drift": ("drift", "Say what a model's events are measured against, and look at how far they have drifted."),
    "explain": ("explain", "Show why a prediction is what it is: execute its very model again on the logged features."),
    "replay": ("replay", "Run history again through the very code of the stream, and compare with what was served."),
    "views": ("views", "Look after what services look up in Redis: models, experiments, drift."),
    "sinks": ("sinks", "Try where alerts go."),
    "dead-letters": ("dead_letters", "Look at records that could not be used, and send them again."),
    "doctor": (
        "doctor",
        "Look at settings, broker, topics, models, store and workers; say what is wrong and what to do.",
    ),
}
"""The commands, in the order of the help: the module of each, where it is called as the command, and a sentence."""


class Commands(click.Group):
    """Imports a command's module when it is called: a roll-back or the help need not wait for what a worker imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, if there is one."""
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command = getattr(import_module(f"app.cli.{module}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in _COMMANDS.items()])


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
