"""Which alerts are over, and the answer of the first five seconds."""

from collections.abc import Callable

import pytest

from app.page.alerts import DAY_MS, MOST_KEPT, MOST_SHOWN
from schemas.event import Event
from tests.drifting import alert_of, column_of, report_of
from tests.viewing import experiment_of
from tests.watching import NOW_MS, Scene, run_of, served, window_of

Ending = Callable[[], Event]


def current(scene: Scene) -> list[str]:
    return [alert.id for alert in scene.board.alerts if alert.current]


@pytest.mark.parametrize(
    ("changes", "still", "ends"),
    [
        (
            {"kind": "drift", "subject": "hour"},
            report_of(1, column_of("hour", severity="low")),
            report_of(2, column_of("hour")),
        ),
        (
            {"kind": "drift", "subject": "prediction score"},
            report_of(1, predictions=(column_of("score", severity="low"),)),
            report_of(2),
        ),
        (
            {"kind": "accuracy", "subject": "m1", "threshold": 0.8},
            window_of(1, accuracy=0.79),
            window_of(2, accuracy=0.81),
        ),
        (
            {"kind": "accuracy", "subject": "m1", "threshold": 0.8},
            window_of(1, mature=False, accuracy=0.9),
            window_of(1, accuracy=0.81),
        ),
        (
            {"kind": "false_positive_rate", "subject": "m1", "threshold": 0.1},
            window_of(1, false_positive_rate=0.2),
            window_of(2, false_positive_rate=0.1),
        ),
        (
            {"kind": "latency", "subject": "m1", "threshold": 50.0},
            window_of(1, latency_p50_ms=60.0),
            window_of(2, latency_p50_ms=40.0),
        ),
        ({"kind": "error_drift", "subject": "m1"}, window_of(1, accuracy=1.0), served("m2", 2)),
        ({"kind": "champion_unusable", "subject": "m1"}, served("m1", 2), served("m2", 3)),
        ({"kind": "candidate", "subject": "m2"}, served("m1", 2), served("m2", 3)),
        (
            {"kind": "training", "subject": "run-0"},
            run_of("ended", NOW_MS, outcome="failed"),
            run_of("ended", NOW_MS, outcome="rejected"),
        ),
        (
            {"kind": "rollout", "subject": "x"},
            served("m1", 2, experiment_of("x", 80, 20)),
            served("m1", 3, experiment_of("y", 80, 20)),
        ),
        ({"kind": "archive", "subject": "archive"}, served("m1", 2), alert_of("b", kind="archive", subject="archive")),
    ],
)
def test_an_alert_is_over_when_what_it_tells_of_has_ended_and_not_before(
    changes: dict[str, object], still: Event, ends: Event
) -> None:
    scene = Scene().tell(served("m1", 1, experiment_of("x", 90, 10)), alert_of("a", **changes))
    assert current(scene.tell(still)) == ["a"]
    assert "a" not in current(scene.tell(ends))


def test_a_window_that_was_well_before_the_alert_does_not_end_it() -> None:
    scene = Scene().tell(served(), window_of(1, accuracy=0.9), ago_ms=90_000)
    assert current(scene.tell(alert_of("a", kind="accuracy", subject="m1", threshold=0.8))) == ["a"]


@pytest.mark.parametrize("kind", ["training", "candidate", "some_later_kind"])
def test_an_alert_that_nothing_ends_is_over_a_day_after_it_was_told(kind: str) -> None:
    alert = alert_of("a", kind=kind)
    assert current(Scene().tell(served(), alert, ago_ms=DAY_MS)) == ["a"]
    assert current(Scene().tell(served(), alert, ago_ms=DAY_MS + 1)) == []


@pytest.mark.parametrize(
    "kind", ["archive", "champion_unusable", "baseline_unusable", "accuracy", "error_drift", "drift"]
)
def test_an_alert_that_something_ends_is_not_over_by_age(kind: str) -> None:
    alert = alert_of("a", kind=kind, subject="m1", severity="critical")
    scene = Scene().tell(served(), alert, ago_ms=3 * DAY_MS)
    state = scene.board.state
    assert (state.level, state.figures.partition("Told")[2]) == (
        "watch",
        " 3 days ago, and nothing says that it is over.",
    )


def test_a_kind_whose_name_only_holds_a_known_one_is_another() -> None:
    scene = Scene().tell(served(), alert_of("a", kind="sink_unusable", subject="ops"))
    assert current(scene) == ["a"]


def test_drift_of_a_model_that_scores_no_more_is_over_and_said_to_be_not_judged() -> None:
    report = report_of(3, column_of("hour", severity="high"), severity="high")
    told = alert_of("a", severity="high", subject="hour", raised_time_ms=report.to_time_ms)
    scene = Scene().tell(served("m1", 1), report, told)
    assert (scene.board.state.level, current(scene)) == ("act", ["a"])
    board = scene.tell(served("m2", 2)).board
    assert (board.state.level, current(scene)) == ("ok", [])
    assert "drift has not been judged since the promotion" in board.state.figures.lower()
    assert board.drift is not None
    assert (board.drift.model_id, board.drift.over) == ("m1", True)
    again = report_of(4, column_of("hour", severity="high"), severity="high", model_id="m2")
    assert (scene.tell(again).board.state.level, current(scene)) == ("watch", [])


def test_a_baseline_that_cannot_be_used_is_good_again_once_a_window_was_judged() -> None:
    scene = Scene().tell(served(), report_of(1), ago_ms=90_000)
    scene.tell(alert_of("a", kind="baseline_unusable", subject="m1"))
    assert current(scene) == ["a"]
    assert current(scene.tell(report_of(2), ago_ms=30_000)) == []


def test_a_severe_alert_that_is_not_over_is_pushed_out_by_no_number_of_mild_ones() -> None:
    scene = Scene().tell(served(), alert_of("a", severity="critical", subject="hour"))
    scene.tell(*[alert_of(f"m{n}", severity="low", subject=f"f{n}") for n in range(2 * MOST_KEPT)])
    scene.tell(*[alert_of(f"s{n}", severity="high", subject="same") for n in range(2 * MOST_KEPT)])
    alerts = scene.board.alerts
    assert (scene.board.state.level, len(alerts), alerts[-1].id) == ("act", MOST_SHOWN, "a")
    assert alerts[0].id == f"s{2 * MOST_KEPT - 1}"


def test_there_is_an_end_to_how_many_severe_alerts_are_kept() -> None:
    scene = Scene().tell(*[alert_of(f"a{n}", severity="high", subject=f"f{n}") for n in range(MOST_KEPT + 5)])
    assert [alert.id for alert in scene.board.alerts] == [f"a{n}" for n in range(MOST_KEPT + 4, 4, -1)]


def test_a_later_alert_of_the_kind_and_subject_takes_the_place_of_the_earlier() -> None:
    scene = Scene().tell(alert_of("a"), alert_of("b"), alert_of("c", subject="hour"), alert_of("b"))
    assert [(alert.id, alert.current) for alert in scene.board.alerts] == [("b", True), ("c", True), ("a", False)]


def test_the_newest_alerts_are_shown_and_tell_when_they_were_told() -> None:
    scene = Scene().tell(*[alert_of(f"a{n}", severity="low", subject=f"f{n}") for n in range(MOST_SHOWN + 5)])
    alerts = scene.board.alerts
    assert (len(alerts), alerts[0].id, alerts[-1].id) == (MOST_SHOWN, f"a{MOST_SHOWN + 4}", "a5")
    assert (alerts[0].raised_time_ms, alerts[0].told_time_ms) == (0, NOW_MS - 60_000)
