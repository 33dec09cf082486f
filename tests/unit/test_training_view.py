"""A run while one watches: bars on a terminal, lines elsewhere, and what a record says is never obeyed."""

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from app.training_report import list_lines, outcome_lines, run_lines
from app.training_view import Bars, Lines, view_on
from schemas.runs import GateResult, TrainingEvent

EVENT = TrainingEvent(
    stream="s",
    run_id="run-1",
    request_ids=("a",),
    reasons=("drift",),
    attempt=1,
    phase="fit",
    time_ms=5_000,
    started_time_ms=1_000,
)
ESCAPE = "\x1b[31m[red]\n"


def _event(**changes: Any) -> TrainingEvent:
    return msgspec.structs.replace(EVENT, **changes)


def _shown(events: list[TrainingEvent], *, terminal: bool) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, color_system=None)
    with view_on(console) as view:
        assert isinstance(view, Bars if terminal else Lines)
        for event in events:
            view.show(event)
        view.say(f"a sentence {ESCAPE}")
    return out.getvalue().splitlines()


def test_a_line_is_said_for_each_phase_and_for_each_quarter_of_one() -> None:
    shares = [_event(share=share) for share in (0.0, 0.1, 0.3, 0.31, 0.8, 1.0)]
    lines = _shown([_event(phase="read", message="reads"), *shares, _event(attempt=2)], terminal=False)
    assert [line.removeprefix("1970-01-01 00:00:05  run-1  ") for line in lines[:-1]] == [
        "attempt 1  read  reads",
        "attempt 1  fit 0%",
        "attempt 1  fit 30%",
        "attempt 1  fit 80%",
        "attempt 1  fit 100%",
        "attempt 2  fit",
    ]


def test_a_run_that_waits_has_no_attempt_yet() -> None:
    waiting = _event(phase="waiting", attempt=0, message="it waits for the end of run-0")
    assert _shown([waiting], terminal=False)[0] == "1970-01-01 00:00:05  run-1  waiting  it waits for the end of run-0"
    assert list_lines([waiting])[1].split() == ["run-1", "1970-01-01", "00:00", "4", "s", "-", "drift", "waiting", "-"]


def test_a_terminal_has_a_bar_for_each_phase_of_each_attempt() -> None:
    events = [
        _event(phase="read", message="1,000 samples"),
        _event(share=0.5),
        _event(share=0.75, message="round 75 [bold]"),
        _event(attempt=2, phase="read"),
        _event(attempt=2, phase="ended", outcome="accepted"),
    ]
    shown = _shown(events, terminal=True)
    assert sum(line.endswith("run-1, asked for by drift") for line in shown) == 1
    last = [line for line in shown if "━" in line][-3:]
    assert [line.partition(" ━")[0].rpartition("\x1b[2K")[2].rstrip() for line in last] == [
        "reading samples",
        "fitting",
        "reading samples (attempt 2)",
    ]
    assert "round 75 [bold]" in last[1]
    assert all("━" * 20 in line for line in last)
    assert not any("accepted" in line for line in shown)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_record_says_is_shown_and_not_obeyed(terminal: bool) -> None:
    shown = _shown([_event(message=ESCAPE), _event(phase="read", run_id=ESCAPE)], terminal=terminal)
    assert not any("\x1b[31m" in line for line in shown)
    assert any("\\x1b[31m[red]\\n" in line for line in shown)


def test_a_report_obeys_nothing_either() -> None:
    gate = GateResult(gate=ESCAPE, passed=False, message=ESCAPE)
    ended = _event(phase="ended", outcome="rejected", message=ESCAPE, follow_up=ESCAPE, champion=ESCAPE, gates=(gate,))
    for lines in (outcome_lines(ended), run_lines([EVENT, ended]), list_lines([_event(run_id=ESCAPE)])):
        assert "\x1b" not in "".join(lines)


def test_a_run_tells_why_a_person_asked_for_it() -> None:
    assert "because: a hurricane came" in list(run_lines([_event(asked_because="a hurricane came")]))
    assert not any(line.startswith("because") for line in run_lines([EVENT]))


def test_an_outcome_tells_what_was_read_and_how_the_card_is_seen() -> None:
    ended = _event(phase="ended", outcome="accepted", model_id="m2", samples=12_345, to_time_ms=86_400_000)
    assert list(outcome_lines(ended)) == [
        "accepted model m2",
        "12,345 samples, with event times from 1970-01-01 00:00 to 1970-01-02 00:00",
        "its card: penstock models card m2 --stream s",
    ]
