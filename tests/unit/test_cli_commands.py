"""The list of commands: each is there, says what its own help says, and costs nothing until it is called."""

import subprocess
import sys

import click
import pytest

from app.cli.main import cli

CONTEXT = click.Context(cli)
LISTED = """
import sys
from click.testing import CliRunner
from app.cli.main import cli
print(CliRunner().invoke(cli, ["--help"], terminal_width=300).output)
print(*(name for name in sys.modules if name.startswith(("app.cli.", "agents", "ml", "xgboost", "river"))))
"""


@pytest.fixture(scope="module")
def listed() -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", LISTED], capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.parametrize("name", cli.list_commands(CONTEXT))
def test_the_help_has_the_first_sentence_of_each_command(listed: list[str], name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    assert command is not None
    assert [name, *command.get_short_help_str(limit=1_000).split()] in [line.split() for line in listed]


def test_the_help_imports_no_command(listed: list[str]) -> None:
    assert sorted(listed[-1].split()) == ["app.cli.context", "app.cli.main"]
