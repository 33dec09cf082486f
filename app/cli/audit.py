"""`penstock audit`."""

from collections.abc import Iterator, Sequence

import click
import msgspec

from app.cli.asking import WHO_MAY
from app.cli.context import Context, json_option, pass_context, run, stream_option
from app.commands import newest_audit
from app.text import printable, second
from schemas.events import AuditEvent


@click.command(epilog=WHO_MAY)
@stream_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many to show.")
@json_option
@pass_context
def audit(context: Context, stream_name: str | None, limit: int) -> None:
    """Show the newest commands and registrations, oldest first: who asked for what, what became of it, and why.

    "asked because" is the reason that the sender gave.
    """
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    found = run(newest_audit(context.connection(settings), spec, limit))
    context.write(msgspec.to_builtins(found), lambda: "\n".join(audit_lines(found)) or "Nothing was audited yet.")


def audit_lines(events: Sequence[AuditEvent]) -> Iterator[str]:
    """Yield one line for each event: when, the revision then, outcome, action, about what, who, and both reasons."""
    for event in events:
        about = " ".join(filter(None, (event.experiment_id, event.model_id)))
        given = f"; asked because: {event.asked_reason}" if event.asked_reason else ""
        yield printable(
            f"{second(event.decided_time_ms)}  r{event.revision:<5} {event.outcome:<8} {event.action:<9} {about or '-'}"
            f"  by {event.issued_by}: {event.reason}{given}"
        )
