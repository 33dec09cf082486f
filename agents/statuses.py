"""The rules of statuses: which versions change theirs with the routing, and what a person may move. Pure functions."""

from typing import Final, NamedTuple

import msgspec

from agents.registry import ALLOWED
from agents.routes import Find, Routes, registered
from schemas.errors import PenstockError
from schemas.events import Command, ModelVersion, Status

_SAID: Final = {"draft": "a draft again", "archived": "archived"}
_WHY: Final = {
    "promote": "promoted",
    "rollback": "brought back by a roll-back",
    "succeed": "took the place of the routed version of its lineage",
    "shadow": "scores beside the champion",
    "start": "is tried beside the champion",
}


class Change(NamedTuple):
    """A version gets another status, for a reason."""

    model_id: str
    status: Status
    reason: str


def moved(command: Command, routes: Routes, find: Find) -> Change | None:
    """Return the change that a move asks for; None when the version has that status already.

    Raises PenstockError with the reason when it may not be.
    """
    version = registered(command, command.model_id, find)
    model_id, old, new = version.model_id, version.status, command.status
    if new is None:
        raise PenstockError("a command to move must name a status")
    if new == old:
        return None
    if new == "production":
        raise PenstockError(f"a model gets into production when it serves: penstock models promote {model_id}")
    if old == "production":
        raise PenstockError(f"model {model_id} is the champion; it leaves production when another one is promoted")
    if new in ("draft", "archived") and model_id in routes.routed:
        raise PenstockError(
            f"model {model_id} is in use as champion, shadow or variant, so it cannot be {_SAID[new]}: "
            "unshadow it, or stop the experiment first"
        )
    if new == "archived" and model_id == routes.previous:
        raise PenstockError(
            f"model {model_id} would be brought back by a roll-back, so it cannot be archived: promote another first"
        )
    if version.pruned:
        raise PenstockError(f"model {model_id} was pruned: its file was deleted, so it stays archived")
    if new not in ALLOWED[old] or (old == "archived" and new != "staging"):
        may = sorted(set(ALLOWED[old]) - {"production"}) if old != "archived" else ["staging"]
        raise PenstockError(f"model {model_id} cannot go from {old} to {new}, only to {' or '.join(may)}")
    return Change(model_id, new, command.reason)


def changes_with(command: Command, before: Routes, after: Routes, find: Find) -> list[Change]:
    """Return the changes that go with a routing: the champion is in production and no other version is.

    The one before stays ready for a roll-back, and the one before that is archived. What is tried leaves draft.
    """
    changes = []
    if after.champion is not None and after.champion != before.champion:
        changes.append(Change(after.champion, "production", command.reason or _WHY[command.action]))
        if before.champion is not None:
            changes.append(Change(before.champion, "staging", _reason_to_leave(command, after.champion)))
        if before.previous and before.previous not in (*after.routed, after.previous):
            changes.append(Change(before.previous, "archived", "it was the champion two promotions ago"))
    for model_id in after.routed[1:]:
        version = find(model_id)
        if version is not None and version.status == "draft":
            changes.append(Change(model_id, "testing", _WHY[command.action]))
    return [change for change in changes if _differs(change, find)]


def changed(version: ModelVersion, change: Change, by: str, now_ms: int) -> ModelVersion:
    """Return the version with its new status, and one more change."""
    return msgspec.structs.replace(
        version,
        status=change.status,
        changes=version.changes + 1,
        changed_by=by,
        changed_time_ms=now_ms,
        reason=change.reason,
    )


def _reason_to_leave(command: Command, successor: str) -> str:
    if command.action == "rollback":
        return f"rolled back: {command.reason or f'{successor} serves again'}"
    return f"replaced by {successor}: ready for a roll-back"


def _differs(change: Change, find: Find) -> bool:
    version = find(change.model_id)
    return version is not None and version.status != change.status
