"""Which alerts are over, and the answer of the first five seconds."""

from collections.abc import Callable

import pytest

from app.page.alerts import MOST_ALERTS, OVER_MS
from app.page.state import STALLED_MS
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


def test_an_alert_is_over_a_day_after_it_was_told() -> None:
    assert current(Scene().tell(alert_of("a"), ago_ms=OVER_MS)) == ["a"]
    assert current(Scene().tell(alert_of("a"), ago_ms=OVER_MS + 1)) == []


def test_a_later_alert_of_the_kind_and_subject_takes_the_place_of_the_earlier() -> None:
    scene = Scene().tell(alert_of("a"), alert_of("b"), alert_of("c", subject="hour"), alert_of("b"))
    assert [(alert.id, alert.current) for alert in scene.board.alerts] == [("b", True), ("c", True), ("a", False)]


def test_the_newest_alerts_are_kept_and_tell_when_they_were_told() -> None:
    scene = Scene().tell(*[alert_of(f"a{number}", subject=f"f{number}") for number in range(MOST_ALERTS + 5)])
    alerts = scene.board.alerts
    assert (len(alerts), alerts[0].id, alerts[-1].id) == (MOST_ALERTS, f"a{MOST_ALERTS + 4}", "a5")
    assert (alerts[0].raised_time_ms, alerts[0].told_time_ms) == (0, NOW_MS - 60_000)


def state_of(scene: Scene) -> tuple[str, str]:
    return scene.board.state.level, scene.board.state.sentence


def test_without_a_champion_somebody_must_promote_one() -> None:
    level, sentence = state_of(Scene())
    assert level == "act"
    assert "`penstock models promote MODEL_ID --stream flights`" in sentence


def test_a_stream_that_is_well_says_how_well() -> None:
    scene = Scene().tell(served(), window_of(1, roc_auc=0.71234), report_of(1))
    assert state_of(scene) == (
        "ok",
        "All is well: m1 serves, and no events come in, its AUC is 0.712, nothing has drifted.",
    )
    for second in range(3):
        scene.look(second, 1_000 * second, 1_000 * second, 4.0)
    assert state_of(scene)[1].startswith("All is well: m1 answers 1,000 events/s within 4 ms (p99), its AUC is 0.712")


def test_events_that_wait_without_an_answer_are_something_to_act_on() -> None:
    scene = Scene().tell(served())
    for second in range(STALLED_MS // 1_000 + 1):
        assert state_of(scene.look(second, 105, 100))[0] == ("act" if second * 1_000 >= STALLED_MS else "ok")
    assert "5 events wait, and none has been answered for 10 s" in state_of(scene)[1]


def test_a_stream_that_falls_behind_is_to_be_watched() -> None:
    scene = Scene().tell(served()).look(0, 30_000, 0)
    assert state_of(scene)[0] == "ok"  # how many are answered is not known yet
    level, sentence = state_of(scene.look(1, 32_000, 100))
    assert (level, sentence[:60]) == ("watch", "31,900 events wait, and 100 a second are answered: more work")


@pytest.mark.parametrize(
    ("severity", "level"), [("critical", "act"), ("high", "act"), ("medium", "watch"), ("low", "ok")]
)
def test_the_severity_of_an_alert_that_is_not_over_is_the_level(severity: str, level: str) -> None:
    assert state_of(Scene().tell(served(), alert_of("a", severity=severity)))[0] == level
    assert state_of(Scene().tell(served(), alert_of("a", severity=severity), ago_ms=OVER_MS + 1))[0] == "ok"


def test_the_worst_is_told_with_what_to_do_and_how_much_else_there_is() -> None:
    scene = Scene().tell(
        served(),
        alert_of("a", severity="medium", subject="hour"),
        alert_of(
            "b",
            severity="high",
            message="model m1, window 3 (10 events, 2013-02-19T22:30:00Z to 2013-02-26T11:10:00Z): 1 of 8 columns",
            recommendation="look at where distance comes from",
        ),
        alert_of("c", severity="low", subject="day"),
    )
    sentence = "1 of 8 columns. Look at where distance comes from. There is 1 more to look at."
    assert state_of(scene) == ("act", sentence)


def test_drift_of_which_no_alert_tells_is_to_be_watched() -> None:
    report = report_of(1, severity="medium", recommendation="consider retraining")
    scene = Scene().tell(served(), report)
    assert state_of(scene) == ("watch", "Drift is medium in the newest window: Consider retraining.")


def test_a_long_message_is_cut() -> None:
    scene = Scene().tell(served(), alert_of("a", kind="training", message="x" * 5_000, recommendation="wait"))
    assert len(state_of(scene)[1]) < 300
