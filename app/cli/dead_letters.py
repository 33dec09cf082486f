"""`penstock dead-letters list|replay`."""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import click
import msgspec

from app.cli.context import Context, json_option, pass_context, run, stream_option, whoami
from app.cli.types import PlaceType
from app.clock import now_ms
from app.dead_letter_replay import Outcome, Replay
from app.dead_letters import TOPIC_NAMES, Lane, Letter, Overview, Place, TopicName, look
from app.text import printable

_HEAD_BYTES: Final = 100
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
F = TypeVar("F", bound=Callable[..., Any])


def selection(command: F) -> F:
    """Add the options that choose letters."""
    place = click.option("--offset", "places", multiple=True, type=PlaceType(), help="Only this original; repeatable.")
    reason = click.option("--reason", "reasons", multiple=True, help="Only those with this reason; repeatable.")
    return reason(place(command))


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at records that could not be used, and send them again."""


@dead_letters.command("list")
@stream_option
@click.option("--topic", type=click.Choice(TOPIC_NAMES), help="Only those of this topic; default: of all.")
@selection
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=0), help="How many to show.")
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
    """Show the newest dead letters that wait, and count all of them by reason.

    Each is named by the partition:offset of its original, which --offset takes. --json has all that was kept of it.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    lanes = [Lane.of(spec.name, name) for name in ([topic] if topic else TOPIC_NAMES)]
    found = [run(look(connection, lane, reasons, places, limit)) for lane in lanes]
    context.write([_document(overview) for overview in found], lambda: "\n".join(_list_lines(found, now_ms())))


@dead_letters.command("replay")
@stream_option
@click.option("--topic", type=click.Choice(TOPIC_NAMES), default="features", show_default=True, help="Whose.")
@selection
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@json_option
@pass_context
def replay_command(
    context: Context,
    stream_name: str | None,
    topic: TopicName,
    reasons: tuple[str, ...],
    places: tuple[Place, ...],
    dry_run: bool,
) -> None:
    """Send the originals of dead letters back to their topic, each once, if they would be accepted now.

    An event or a label goes to the partition where its key belongs. What was kept only in part, or would come straight
    back, stays and is told. Whether the model can score an event, or the join still waits for a label, is not known
    beforehand. Without transactions (ML_DELIVERY=at_least_once), one that is cut short may send some twice.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    lane = Lane.of(spec.name, topic)
    transactions = settings.delivery == "exactly_once"
    replay = Replay(
        connection=connection,
        lane=lane,
        spec=spec,
        max_event_bytes=settings.max_event_bytes,
        by=whoami(),
        clock_ms=now_ms,
        transactional_id=f"{settings.kafka_group_prefix}-replay.{lane.dead}" if transactions else None,
        reasons=reasons,
        places=places,
    )
    outcome = run(replay.rehearse() if dry_run else replay.run())
    document = {
        "topic": lane.topic,
        "dry_run": dry_run,
        "sent": outcome.sent,
        "kept": [
            {"offset": _place(kept.place), "count": kept.count, "reason": kept.reason, "message": kept.example}
            for kept in outcome.kept.values()
        ],
    }
    context.write(document, lambda: "\n".join(_replay_lines(outcome, lane, dry_run)))


def _document(overview: Overview) -> dict[str, Any]:
    return {
        "topic": overview.lane.topic,
        "unreadable": overview.unreadable,
        "reasons": [
            {
                "reason": count.reason,
                "waiting": count.waiting,
                "replayed": count.replayed,
                "oldest_time_ms": count.oldest_ms,
                "newest_time_ms": count.newest_ms,
            }
            for count in overview.counts
        ],
        "newest": [{"key": _key(letter), **msgspec.to_builtins(letter.event)} for letter in overview.newest],
    }


def _list_lines(found: list[Overview], now: int) -> Iterator[str]:
    for overview in found:
        for letter in overview.newest:
            yield from _letter_lines(letter, now)
    if not any(overview.counts for overview in found):
        yield "There is no dead letter."
        return
    yield f"{'topic':<24} {'reason':<18} {'waiting':>9} {'replayed':>9}  {'oldest':>12} {'newest':>12}"
    for overview in found:
        for c in overview.counts:
            times = [f"{ago(now - t) if t is not None else '':>12}" for t in (c.oldest_ms, c.newest_ms)]
            line = f"{overview.lane.topic:<24} {printable(c.reason):<18} {c.waiting:>9,} {c.replayed:>9,}  "
            yield line + " ".join(times)
        if overview.unreadable:
            yield f"{overview.lane.dead} has {overview.unreadable:,} records that are no dead letters."


def _letter_lines(letter: Letter, now: int) -> Iterator[str]:
    event, head = letter.event, letter.original[:_HEAD_BYTES]
    more = "…" if event.size_bytes > len(head) else ""
    yield (
        f"{printable(event.topic)} {_place((event.partition, event.offset))}  {ago(now - event.dead_time_ms)}  "
        f"{printable(event.reason)}  {event.size_bytes:,} B  key {printable(_key(letter) or '(none)')}"
    )
    yield f"    {printable(event.message)}"
    yield f"    {printable(head.decode(errors='replace'))}{more}"
    yield ""


def _replay_lines(outcome: Outcome, lane: Lane, dry_run: bool) -> Iterator[str]:
    if not (outcome.sent or outcome.kept):
        yield "No dead letter waits."
    for reason, count in outcome.sent.items():
        yield f"{'would be sent' if dry_run else 'sent':<14} {count:>9,}  {printable(reason)}"
    for kept in outcome.kept.values():
        yield (
            f"{'kept':<14} {kept.count:>9,}  {printable(kept.reason)}, such as {_place(kept.place)}: "
            f"{printable(kept.example)}"
        )
    if outcome.sent and not dry_run:
        yield f"Those that are refused again come back as new dead letters of {lane.topic}."


def _key(letter: Letter) -> str | None:
    return None if letter.key is None else letter.key.decode(errors="replace")


def _place(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


def ago(age_ms: int) -> str:
    """Return an age in words, in its largest whole unit."""
    for unit, size_ms in _UNITS:
        if age_ms >= size_ms:
            return f"{age_ms // size_ms} {unit} ago"
    return "just now"
