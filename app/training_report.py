"""Training runs as a person reads them: a table of them, one with its phases and gates, and how one ended."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from app.text import minute, per_cent, printable, second, table
from app.training_log import phases_of
from schemas.runs import TrainingEvent
from schemas.text import duration


def list_lines(runs: Sequence[TrainingEvent]) -> list[str]:
    """Return a line for each run, of which the newest events are given, below a header; nothing without one."""
    if not runs:
        return []
    rows = [
        (
            event.run_id,
            minute(event.started_time_ms),
            took(event.time_ms - event.started_time_ms),
            str(event.attempt or "-"),
            ", ".join(event.reasons),
            state(event),
            event.model_id or "-",
        )
        for event in runs
    ]
    return table([("run", "began", "took", "attempt", "asked for by", "outcome", "model"), *rows], right=(2, 3))


def state(event: TrainingEvent) -> str:
    """Return the outcome, or what the run is at."""
    if event.outcome is not None:
        return event.outcome
    return event.phase if event.share is None else f"{event.phase} {per_cent(round(event.share, 2))}"


def took(length_ms: int) -> str:
    """Return a length of time, in seconds when it is under a minute."""
    return duration(length_ms) if length_ms >= 60_000 else f"{max(length_ms, 0) / 1000:.0f} s"


def document(events: Sequence[TrainingEvent]) -> dict[str, Any]:
    """Return what is known of one run, all of whose events are given: the newest event, and its phases."""
    phases = [
        {
            "attempt": first.attempt,
            "phase": first.phase,
            "from_time_ms": first.time_ms,
            "message": last.message,
        }
        for first, last in phases_of(events)
    ]
    known: dict[str, Any] = msgspec.to_builtins(events[-1])
    return known | {"outcome": events[-1].outcome, "phases": phases}


def run_lines(events: Sequence[TrainingEvent]) -> Iterator[str]:
    """Yield what is known of one run, all of whose events are given, oldest first."""
    newest = events[-1]
    yield printable(f"{newest.run_id}: {state(newest)}{_attempt(newest, ', ')}")
    count = len(newest.request_ids)
    yield printable(f"asked for by {', '.join(newest.reasons)} ({count} request{'s' if count > 1 else ''})")
    if newest.asked_because:
        yield printable(f"because: {newest.asked_because}")
    yield f"began {second(newest.started_time_ms)}, took {took(newest.time_ms - newest.started_time_ms)}"
    yield ""
    for first, last in phases_of(events):
        said = f"  {last.message}" if last.message and last.outcome is None else ""
        attempt = _attempt(first) or "-"
        yield printable(f"{second(first.time_ms)}  {attempt:<10}  {first.phase:<8}{said}").rstrip()
    if newest.outcome is not None:
        yield ""
        yield from outcome_lines(newest)
        yield from (f"  {name:<24} {value:.6g}" for name, value in sorted(newest.metrics.items()))


def event_line(event: TrainingEvent) -> str:
    """Return what a run is at as one line."""
    said = f"  {event.message}" if event.message else ""
    return printable(f"{second(event.time_ms)}  {event.run_id}{_attempt(event, '  ')}  {state(event)}{said}")


def _attempt(event: TrainingEvent, before: str = "") -> str:
    """Return the number of the attempt in words; nothing while there was none."""
    return f"{before}attempt {event.attempt}" if event.attempt else ""


def outcome_lines(ended: TrainingEvent) -> Iterator[str]:
    """Yield how a run ended: outcome and why, what it read, what each gate said, what was done with the candidate."""
    about = f" model {ended.model_id}" if ended.model_id else ""
    why = f": {ended.message}" if ended.message else ""
    yield printable(f"{ended.outcome}{about}{why}")
    if ended.samples:
        yield (
            f"{ended.samples:,} samples, with event times from {minute(ended.from_time_ms)} "
            f"to {minute(ended.to_time_ms)}"
        )
    if ended.champion:
        yield printable(f"champion: {ended.champion}")
    for gate in ended.gates:
        yield printable(f"  {'passed' if gate.passed else 'FAILED'}  {gate.gate}: {gate.message}")
    if ended.follow_up:
        yield printable(ended.follow_up)
    if ended.model_id:
        yield printable(f"its card: penstock models card {ended.model_id} --stream {ended.stream}")
