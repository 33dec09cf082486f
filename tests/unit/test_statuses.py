"""Which versions change their status with the routing, and what a person may move."""

from typing import Any

import msgspec
import pytest

from agents.routes import Routes
from agents.statuses import Change, changed, changes_with, moved
from schemas.errors import PenstockError
from schemas.events import Command, ModelVersion
from schemas.streams import StreamSpec
from tests.support import experiment_of, version_of

SPEC = StreamSpec(name="flights", features=("a", "b"))
STATUSES: dict[str, Any] = {"new": "draft", "tried": "testing", "ready": "staging", "live": "production"}


def _find(model_id: str) -> ModelVersion | None:
    if model_id == "gone":
        return None
    status = STATUSES.get(model_id, "archived")
    return msgspec.structs.replace(version_of(SPEC, model_id), status=status, pruned=model_id == "lost")


def _command(action: Any, model_id: str = "", status: Any = None, reason: str = "") -> Command:
    return Command(
        stream="flights",
        action=action,
        model_id=model_id,
        issued_by="ada",
        issued_time_ms=1,
        correlation_id="c",
        status=status,
        reason=reason,
    )


def test_a_promotion_keeps_the_champion_before_ready_and_archives_the_one_before_that() -> None:
    before, after = Routes("live", previous="ready"), Routes("new", previous="live")
    assert changes_with(_command("promote", "new"), before, after, _find) == [
        Change("new", "production", "promoted"),
        Change("live", "staging", "replaced by new: ready for a roll-back"),
        Change("ready", "archived", "it was the champion two promotions ago"),
    ]


def test_a_reason_that_somebody_gave_stands_with_the_new_champion() -> None:
    [change, *_] = changes_with(_command("promote", "new", reason="it wins"), Routes("live"), Routes("new"), _find)
    assert change == Change("new", "production", "it wins")


def test_a_roll_back_says_so_of_the_one_that_it_takes_away() -> None:
    command = _command("rollback", reason="too many alarms")
    assert changes_with(command, Routes("live", previous="old"), Routes("old", previous="ready"), _find) == [
        Change("old", "production", "too many alarms"),
        Change("live", "staging", "rolled back: too many alarms"),
    ]


def test_what_was_the_champion_before_is_not_archived_while_it_is_routed() -> None:
    before, after = Routes("live", ("ready",), previous="ready"), Routes("new", ("ready",), previous="live")
    assert [change.model_id for change in changes_with(_command("promote"), before, after, _find)] == ["new", "live"]


@pytest.mark.parametrize(
    "after", [Routes("live", ("new", "ready")), Routes("live", experiment=experiment_of("live", "new", "tried"))]
)
def test_what_is_tried_leaves_draft_and_nothing_else_changes(after: Routes) -> None:
    [change] = changes_with(_command("shadow"), Routes("live"), after, _find)
    assert (change.model_id, change.status) == ("new", "testing")


def test_what_nobody_registered_changes_no_status() -> None:
    assert changes_with(_command("unshadow"), Routes("live", ("gone", "x")), Routes("live", ("gone",)), _find) == []


def test_a_change_says_who_when_and_why_and_is_counted() -> None:
    version = msgspec.structs.replace(version_of(SPEC, "m1"), changes=3)
    after = changed(version, Change("m1", "staging", "better"), "ada", 70)
    assert after == msgspec.structs.replace(
        version, status="staging", changes=4, changed_by="ada", changed_time_ms=70, reason="better"
    )


ROUTES = Routes("live", ("tried",), experiment=experiment_of("live", "ready"))


@pytest.mark.parametrize(
    ("model_id", "status"),
    [("new", "staging"), ("new", "testing"), ("new", "archived"), ("old", "staging"), ("tried", "staging")],
)
def test_a_person_may_move_a_model(model_id: str, status: str) -> None:
    change = moved(_command("move", model_id, status, "why"), ROUTES, _find)
    assert change == Change(model_id, status, "why")  # type: ignore[arg-type]


def test_a_model_that_has_the_status_already_is_not_changed_again() -> None:
    assert moved(_command("move", "new", "draft"), ROUTES, _find) is None
    assert moved(_command("move", "live", "production"), ROUTES, _find) is None


@pytest.mark.parametrize(
    ("model_id", "status", "sentence"),
    [
        ("new", None, "a command to move must name a status"),
        ("", "staging", "a command to move must name a model"),
        ("gone", "staging", "no model 'gone' is registered in stream 'flights'"),
        ("new", "production", "a model gets into production when it serves: penstock models promote new"),
        ("live", "archived", "model live is the champion; it leaves production when another one is promoted"),
        ("tried", "archived", "model tried is in use as champion, shadow or variant, so it cannot be archived"),
        ("tried", "draft", "so it cannot be a draft again"),
        ("ready", "archived", "model ready is in use"),
        ("old", "draft", "model old cannot go from archived to draft, only to staging"),
        ("old", "testing", "model old cannot go from archived to testing, only to staging"),
        ("lost", "staging", "model lost was pruned: its file was deleted, so it stays archived"),
    ],
)
def test_what_may_not_be_moved_is_refused_in_one_sentence(model_id: str, status: str | None, sentence: str) -> None:
    with pytest.raises(PenstockError, match=sentence):
        moved(_command("move", model_id, status), ROUTES, _find)


def test_what_a_roll_back_would_bring_back_is_not_archived() -> None:
    with pytest.raises(PenstockError, match="model ready would be brought back by a roll-back, so it cannot be"):
        moved(_command("move", "ready", "archived"), Routes("live", (), previous="ready"), _find)


def test_what_is_staged_cannot_be_a_draft_again() -> None:
    with pytest.raises(PenstockError, match="cannot go from staging to draft, only to archived or testing"):
        moved(_command("move", "ready", "draft"), Routes("live"), _find)
