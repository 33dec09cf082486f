"""`penstock dead-letters list|replay`."""

import base64
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.dead_letters import TOPIC_NAMES, Lane, Letter, Place, ReasonCount, TopicName, dead_letter_reader
from app.models import require_topics
from app.replay import Outcome, Replay
from app.settings import Settings
from app.worker import now_ms
from schemas.streams import StreamSpec
from stream.connection import KafkaConnection

_HEAD_BYTES = 160
_PLACE = re.compile(r"(\d{1,9}):(\d{1,18})")
F = TypeVar("F", bound=Callable[..., Any])


class _PlaceType(click.ParamType[Place]):
    """An original's partition and offset, as `list` prints them."""

    name = "P:O"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        match = _PLACE.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is not the partition and offset of an original, such as 3:1204", param, ctx)
        return int(match[1]), int(match[2])


def _selection(command: F) -> F:
    """Add the options that choose letters."""
    command = click.option(
        "--offset", "places", multiple=True, type=_PlaceType(), help="Only the one of this original; repeatable."
    )(command)
    return click.option("--reason", "reasons", multiple=True, help="Only those with this reason; repeatable.")(command)


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at records that could not be used, and send them again."""


@dead_letters.command("list")
@stream_option
@click.option("--topic", type=click.Choice(TOPIC_NAMES), help="Only those of this topic; default: all.")
@_selection
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=0), help="How many to show in full.")
@json_option
@pass_context
def list_command(
    context: Context,
    stream_name: str | None,
    topic: TopicName | None,
    reasons: tuple[str, ...],
    places: tuple[Place, ...],
    limit: int,
) -> None:
    """Count the dead letters by reason and show the newest ones that wait.

    Each is shown with its original's partition:offset (which --offset takes), reason, age, size and key, what is
    wrong, and how the original begins. With --json it is the whole letter.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    lanes = [Lane.of(spec.name, name) for name in ([topic] if topic else TOPIC_NAMES)]
    found = run(_look(context.connection(settings), spec, lanes, reasons, places, limit))
    counts = [{"topic": lane.topic, **_count_row(count)} for lane, counts, _ in found for count in counts]
    newest = sorted(
        (letter for _, _, letters in found for letter in letters), key=lambda letter: letter.event.dead_time_ms
    )[-limit or len(counts) * limit :]
    context.write(
        {"counts": counts, "letters": [_letter_row(letter) for letter in newest]},
        lambda: "\n".join(_list_lines(found, newest)),
    )
