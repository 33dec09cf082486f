"""Requests to train anew, and the one run that answers them: a pure fold.

A request ends in one run, or is skipped. One run is at work at a time; what comes meanwhile waits together for the next
one. All of it is small and is the stage's checkpoint.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from agents.train.job import Kept
from schemas.events import ModelVersion, RetrainRequest
from schemas.runs import BECAUSE
from schemas.streams import MINUTE_MS
from schemas.training import Reason, TrainingSpec

DAY_MS: Final = 24 * 60 * MINUTE_MS
MOST_INTERRUPTIONS: Final = 20  # of a run, by workers that end properly and by rebalances
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

    `attempt` counts those that have begun, without the `interruptions`: those whose worker was taken away properly.
    `kept_sha256` and `kept_bytes` name unfinished work in the artifact store, and `kept_before` the older of which some
    may still be there.
    """

    run_id: str
    requests: tuple[Asked, ...]
    started_time_ms: int
    stop_offset: int
    champion: ModelVersion | None
    attempt: int = 0
    interruptions: int = 0
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
    counting, skips = _sifted(queue, rules)
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
    """Take the newest attempt back: it was interrupted for a reason that is not the run's. That is counted."""
    run = _run_of(queue)
    return _with_run(queue, attempt=run.attempt - 1, interruptions=run.interruptions + 1)


def given_up(run: Run, rules: TrainingSpec, now_ms: int) -> str:
    """Return why the run has no other attempt, in a sentence; an empty text if it has."""
    if run.attempt >= rules.attempts:
        return f"the worker ended in the middle of attempt {run.attempt}"
    limit_minutes = rules.max_minutes * rules.attempts
    late = now_ms - run.started_time_ms > limit_minutes * MINUTE_MS
    if run.interruptions < MOST_INTERRUPTIONS and not (run.interruptions and late):
        return ""
    began = f" and it began more than {limit_minutes} minutes ago (training.max_minutes × training.attempts);"
    often = "once" if run.interruptions == 1 else f"{run.interruptions} times"
    return (
        f"its worker was taken away {often} in the middle of it{began if late else ';'} see the log "
        "for what stops the workers with the role train, or moves the stream between them"
    )


def kept(queue: Queue, found: Kept) -> Queue:
    """Remember unfinished work, to go on from in the next attempt."""
    return _with_run(queue, kept_sha256=found.sha256, kept_bytes=found.size_bytes, kept_before=found.before)


def expected(queue: Queue, rules: TrainingSpec) -> tuple[Asked, ...]:
    """Return what waits and will become the next run, as far as that is known while another may be at work."""
    return _sifted(queue if queue.run is None else ended(queue, rules, 0), rules)[0]


def gives_way(queue: Queue, rules: TrainingSpec) -> bool:
    """Whether what waits lets an experiment end first, beside which its candidate could not be rolled out.

    A request by hand begins at once: who asked is there to see what comes of it.
    """
    counting = expected(queue, rules)
    return rules.approve == "rollout" and bool(counting) and all(asked.reason != "manual" for asked in counting)


def ended(queue: Queue, rules: TrainingSpec, seen_ms: int) -> Queue:
    """Answer the run's requests. Whatever it came to, the cool-down begins at the newest of them that is not by hand.

    `seen_ms` is the time of the stream that its samples told, 0 if it read none: when that is later, it counts.
    """
    run = _run_of(queue)
    newest_ms = max((seen_ms, *_stream_times(run.requests)))
    blocked_until_ms = newest_ms + rules.cooldown_minutes * MINUTE_MS if newest_ms else 0
    queue = _answered(queue, run.request_ids)
    return msgspec.structs.replace(queue, run=None, blocked_until_ms=max(queue.blocked_until_ms, blocked_until_ms))


def _sifted(queue: Queue, rules: TrainingSpec) -> tuple[tuple[Asked, ...], list[Skip]]:
    """Return what waits and counts by now, and what does not."""
    newest_ms = max(_stream_times(queue.waiting), default=0)
    found = [(asked, _why_not(asked, queue, rules) or _why_too_old(asked, newest_ms, rules)) for asked in queue.waiting]
    return tuple(asked for asked, why in found if not why), [Skip(asked, why) for asked, why in found if why]


def _stream_times(requests: Sequence[Asked]) -> list[int]:
    """Return the times of the stream in requests; those by hand have a person's."""
    return [asked.time_ms for asked in requests if asked.reason != "manual"]


def _why_too_old(asked: Asked, newest_ms: int, rules: TrainingSpec) -> str:
    """Return why a request is of a past that others have left behind, in a sentence; an empty text if it is not."""
    if asked.reason == "manual" or asked.time_ms >= newest_ms - max(rules.cooldown_minutes * MINUTE_MS, DAY_MS):
        return ""
    return (
        f"it is of {_utc(asked.time_ms)}, and the newest that waits is of {_utc(newest_ms)}: what it saw is long past"
    )


def _why_not(asked: Asked, queue: Queue, rules: TrainingSpec) -> str:
    """Return why a request becomes no run, in a sentence; an empty text if it does."""
    if asked.reason == "manual":
        return ""
    if asked.reason not in rules.reasons:
        return f"training.reasons does not have {asked.reason}"
    if asked.time_ms < queue.blocked_until_ms:
        return (
            f"it is of {_utc(asked.time_ms)}, and after the last run requests count again from "
            f"{_utc(queue.blocked_until_ms)} on (training.cooldown_minutes is {rules.cooldown_minutes})"
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
