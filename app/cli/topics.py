"""`penstock topics apply|check`."""

import click

from app.cli.context import Context, json_option, pass_context, run
from app.settings import Settings
from schemas.errors import PenstockError
from stream import admin
from topics import TopicSpec, topics_of


@click.group()
def topics() -> None:
    """Create and check the topics of all declared streams."""


@topics.command()
@json_option
@pass_context
def apply(context: Context) -> None:
    """Create what is missing and set what can be set safely; refuse the rest with what to do."""
    settings = context.settings()
    outcomes = run(admin.apply(context.connection(settings), wanted(settings)))
    document = [{"topic": o.topic, "action": o.action, "detail": o.detail} for o in outcomes]
    context.write(document, lambda: "\n".join(f"{o.action:<10} {o.topic:<32} {o.detail}" for o in outcomes))
    if any(outcome.action == "refused" for outcome in outcomes):
        raise PenstockError("not every topic is as declared; see above")


@topics.command()
@json_option
@pass_context
def check(context: Context) -> None:
    """Say what is not as declared, and what to do about it; exit code 1 when there is anything."""
    settings = context.settings()
    problems = run(admin.check(context.connection(settings), wanted(settings)))
    context.write({"problems": problems}, lambda: "\n".join(problems) or "Every topic is as declared.")
    if problems:
        raise click.exceptions.Exit(1)


def wanted(settings: Settings) -> list[TopicSpec]:
    """Return the topics of all declared streams."""
    return [spec for stream in settings.streams for spec in topics_of(stream)]
