"""`penstock doctor`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

import click

from app.cli.context import Context, json_option, pass_context, run
from app.doctor import examine
from app.findings import Finding, problem
from app.settings import Settings
from app.text import printable_lines
from schemas.errors import SettingsError

_COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": "bright_black"}


@click.command()
@json_option
@pass_context
def doctor(context: Context) -> None:
    """Look at settings, broker, topics, models, store and workers; say what is wrong and what to do.

    Exit code 0: there is no problem, perhaps a warning; 1: there is one; 2: the settings cannot be used, so nothing
    else was looked at.
    """
    show = _show_nothing if context.as_json else _show
    try:
        settings = context.settings()
    except SettingsError as error:
        findings = [problem("settings", line) for line in str(error).splitlines()]
        for finding in findings:
            show(finding)
        exit_code = error.exit_code
    else:
        findings = run(_collect(settings, show))
        exit_code = int(any(finding.status == "problem" for finding in findings))
    context.write([asdict(finding) for finding in findings], lambda: _summary(findings))
    raise click.exceptions.Exit(exit_code)


async def _collect(settings: Settings, show: Callable[[Finding], None]) -> list[Finding]:
    findings = []
    async for finding in examine(settings):
        show(finding)
        findings.append(finding)
    return findings


def _show(finding: Finding) -> None:
    status = click.style(f"{finding.status:<8}", fg=_COLOURS[finding.status])
    click.echo(f"{status} {printable_lines(f'{finding.subject}: {finding.sentence}')}")
    if finding.remedy:
        click.echo(f"         → {printable_lines(finding.remedy)}")


def _show_nothing(_: Finding) -> None:
    """Keep the output to one JSON document."""


def _summary(findings: list[Finding]) -> str:
    counts = Counter(finding.status for finding in findings)
    return f"\n{counts['problem']} problem(s), {counts['warning']} warning(s), {counts['ok']} ok"
