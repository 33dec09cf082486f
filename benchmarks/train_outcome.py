"""What came of requests to train: whether each has its one outcome, and every run its one model, the right one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from schemas.events import AuditEvent, Command, ModelVersion
from schemas.runs import TrainingEvent

_WITH_MODEL: Final = ("accepted", "rejected")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was counted. `problems` are sentences; without one, all is right."""

    requests: int
    outcomes: Mapping[str, int]
    registered: int
    commands: int
    attempts: int
    problems: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether every request ended once, and every run registered what it should."""
        return not self.problems and self.requests > 0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "requests": self.requests,
            "runs": sum(self.outcomes.values()),
            "outcomes": dict(self.outcomes),
            "registered": self.registered,
            "commands": self.commands,
            "most_attempts": self.attempts,
            "problems": list(self.problems),
        }


def outcome_of(
    asked: Sequence[str],
    ended: Sequence[TrainingEvent],
    models: Sequence[bytes],
    audit: Sequence[bytes],
    commands: Sequence[bytes],
) -> Outcome:
    """Compare the requests with the ends of runs, and those with what is registered, audited and asked of control."""
    versions = [msgspec.json.decode(value, type=ModelVersion) for value in models]
    made = [version for version in versions if version.run_id and not version.changes]
    registrations = Counter(
        event.correlation_id
        for value in audit
        if (event := msgspec.json.decode(value, type=AuditEvent)).action == "register"
    )
    asking = Counter(
        command.correlation_id
        for value in commands
        if (command := msgspec.json.decode(value, type=Command)).issued_by == "train"
    )
    problems = _of_requests(asked, ended) + _of_runs(ended, made, registrations)
    problems += [f"command {name} was sent {count} times" for name, count in asking.items() if count > 1]
    if len({version.sha256 for version in made}) > 1:
        problems.append(f"the same samples gave {len({version.sha256 for version in made})} different models")
    return Outcome(
        requests=len(asked),
        outcomes=Counter(event.outcome or "none" for event in ended),
        registered=len(made),
        commands=len(asking),
        attempts=max((event.attempt for event in ended), default=0),
        problems=tuple(problems),
    )


def _of_requests(asked: Sequence[str], ended: Sequence[TrainingEvent]) -> list[str]:
    ends = Counter(request for event in ended for request in event.request_ids)
    found = [f"request {request} ended {ends[request]} times" for request in asked if ends[request] != 1]
    return found + [f"request {request} was never asked" for request in ends.keys() - set(asked)]


def _of_runs(ended: Sequence[TrainingEvent], made: Sequence[ModelVersion], audited: Mapping[str, int]) -> list[str]:
    """Return a sentence for each run with more or fewer models and registrations than its outcome says."""
    registered = Counter(version.run_id for version in made)
    found = []
    for event in ended:
        wanted = int(event.outcome in _WITH_MODEL)
        if event.outcome in ("failed", "skipped"):
            found.append(f"run {event.run_id} was {event.outcome}: {event.message}")
        if (registered[event.run_id], audited.get(event.run_id, 0)) != (wanted, wanted):
            found.append(
                f"run {event.run_id} was {event.outcome}, with {registered[event.run_id]} models and "
                f"{audited.get(event.run_id, 0)} registrations"
            )
    runs = {event.run_id for event in ended}
    return found + [f"run {run} registered a model and never ended" for run in registered.keys() - runs]
