"""Requests to train anew, and the one run that answers them: a pure fold.

A request ends in one run, or is skipped. One run is at work at a time; what comes meanwhile waits together for the next
one. All of it is small and is the stage's checkpoint.
"""

import hashlib
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from agents.train.job import Kept
from schemas.events import ModelVersion, RetrainRequest
from schemas.runs import BECAUSE
from schemas.streams import MINUTE_MS
from schemas.training import Reason, TrainingSpec

REMEMBERED: Final = 500  # answered requests, by their ids: without transactions one may come again


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of a request: who asks for it, why, also in a person's own words, and at what time of the stream."""

    id: str
    reason: Reason
    time_ms: int
    by: str
    because: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run at work, as it was frozen when it began: every attempt reads the same samples at the same date.

    `attempt` counts those that have begun. `kept_sha256` and `kept_bytes` name unfinished work in the artifact store,
    and `kept_before` the older of which some may still be there.
    """

    run_id: str
    requests: tuple[Asked, ...]
    started_time_ms: int
    stop_offset: int
    champion: ModelVersion | None
    attempt: int = 0
    kept_sha256: str = ""
    kept_bytes: int = 0
    kept_before: tuple[str, ...] = ()

    @property
    def unfinished(self) -> Kept | None:
        """What the next attempt goes on from, if there is something."""
        if not self.kept_sha256:
            return None
        return Kept(sha256=self.kept_sha256, size_bytes=self.kept_bytes, before=self.kept_before)

    @property
    def request_ids(self) -> tuple[str, ...]:
        """The requests that it answers, oldest first."""
        return tuple(asked.id for asked in self.requests)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What they were given for, each once."""
        return tuple(dict.fromkeys(asked.reason for asked in self.requests))

    @property
    def requested_by(self) -> str:
        """Who asked, each once."""
        return ", ".join(dict.fromkeys(asked.by for asked in self.requests if asked.by))

    @property
    def asked_because(self) -> str:
        """What people gave for a reason in their own words, each once."""
        return "; ".join(dict.fromkeys(asked.because for asked in self.requests if asked.because))


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests are. Before `blocked_until_ms` of the stream's time none counts but those by hand."""

    run: Run | None = None
    waiting: tuple[Asked, ...] = ()
    blocked_until_ms: int = 0
    answered: tuple[str, ...] = ()


class Skip(NamedTuple):
    """A request that becomes no run, and why."""

    asked: Asked
    why: str


def run_id_of(stream: str, request_id: str) -> str:
    """Return the id of the run whose first request this is: a replay repeats it."""
    return "run-" + hashlib.sha256("\n".join(("run", stream, request_id)).encode()).hexdigest()[:16]


def received(queue: Queue, request: RetrainRequest, rules: TrainingSpec) -> tuple[Queue, Skip | None]:
    """Let a request wait, or skip it. One that was received before changes nothing: the very same queue is returned."""
    running = queue.run.request_ids if queue.run is not None else ()
    if request.id in running or request.id in queue.answered or any(request.id == a.id for a in queue.waiting):
        return queue, None
    asked = Asked(
        id=request.id,
        reason=request.reason,
        time_ms=request.requested_time_ms,
        by=request.requested_by,
        because=str(request.evidence.get(BECAUSE) or ""),
    )
    if why := _why_not(asked, queue, rules):
        return _answered(queue, (asked.id,)), Skip(asked, why)
    return msgspec.structs.replace(queue, waiting=(*queue.waiting, asked)), None


def begun(
    queue: Queue, stream: str, rules: TrainingSpec, *, stop_offset: int, champion: ModelVersion | None, now_ms: int
) -> tuple[Queue, list[Skip]]:
    """Make one run of all that waits and counts by now; the others are skipped. None may be at work."""
    assert queue.run is None
    skips = [Skip(asked, why) for asked in queue.waiting if (why := _why_not(asked, queue, rules))]
    skipped = {skip.asked.id for skip in skips}
    counting = tuple(asked for asked in queue.waiting if asked.id not in skipped)
    run = None
    if counting:
        run = Run(
            run_id=run_id_of(stream, counting[0].id),
            requests=counting,
            started_time_ms=now_ms,
            stop_offset=stop_offset,
            champion=champion,
        )
    queue = _answered(queue, tuple(skip.asked.id for skip in skips))
    return msgspec.structs.replace(queue, run=run, waiting=()), skips


def tried(queue: Queue) -> Queue:
    """Count one more attempt of the run: before it begins, so that one that takes the worker along counts, too."""
    return _with_run(queue, attempt=_run_of(queue).attempt + 1)


def excused(queue: Queue) -> Queue:
    """Take the newest attempt back: it was interrupted for a reason that is not the run's."""
    return _with_run(queue, attempt=_run_of(queue).attempt - 1)


def kept(queue: Queue, found: Kept) -> Queue:
    """Remember unfinished work, to go on from in the next attempt."""
    return _with_run(queue, kept_sha256=found.sha256, kept_bytes=found.size_bytes, kept_before=found.before)


def gives_way(queue: Queue, rules: TrainingSpec) -> bool:
    """Whether what waits lets an experiment end first, beside which its candidate could not be rolled out.

    A request by hand begins at once: who asked is there to see what comes of it.
    """
    return rules.approve == "rollout" and all(asked.reason != "manual" for asked in queue.waiting)


def ended(queue: Queue, rules: TrainingSpec, to_time_ms: int) -> Queue:
    """Answer the run's requests. It has read samples up to `to_time_ms` of event time; 0 if none."""
    blocked_until_ms = queue.blocked_until_ms
    if to_time_ms:
        blocked_until_ms = max(blocked_until_ms, to_time_ms + rules.cooldown_minutes * MINUTE_MS)
    queue = _answered(queue, _run_of(queue).request_ids)
    return msgspec.structs.replace(queue, run=None, blocked_until_ms=blocked_until_ms)


def _why_not(asked: Asked, queue: Queue, rules: TrainingSpec) -> str:
    """Return why a request becomes no run, in a sentence; an empty text if it does."""
    if asked.reason == "manual":
        return ""
    if asked.reason not in rules.reasons:
        return f"training.reasons does not have {asked.reason}"
    if asked.time_ms < queue.blocked_until_ms:
        return (
            f"it is of {_utc(asked.time_ms)}, and after the last run none counts before "
            f"{_utc(queue.blocked_until_ms)} (training.cooldown_minutes is {rules.cooldown_minutes})"
        )
    return ""


def _answered(queue: Queue, request_ids: tuple[str, ...]) -> Queue:
    return msgspec.structs.replace(queue, answered=(*queue.answered, *request_ids)[-REMEMBERED:])


def _run_of(queue: Queue) -> Run:
    assert queue.run is not None, "no run is at work"
    return queue.run


def _with_run(queue: Queue, **changes: str | int | tuple[str, ...]) -> Queue:
    return msgspec.structs.replace(queue, run=msgspec.structs.replace(_run_of(queue), **changes))


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
