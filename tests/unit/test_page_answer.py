"""The answer of the first five seconds: whether the models are well; if not, what is worst and what to do."""

import pytest

from app.page.flow import Look
from tests.drifting import alert_of, column_of, report_of
from tests.support import version_of
from tests.watching import NOW_MS, SPEC, Scene, served, window_of


def answer_of(scene: Scene) -> tuple[str, str, str]:
    state = scene.board.state
    return state.level, state.sentence, state.figures


def flowing(scene: Scene, eps: int = 50, seconds: int = 3) -> Scene:
    for second in range(seconds):
        scene.look(second, eps * second, eps * second, 4.0)
    return scene


def test_without_a_champion_somebody_must_promote_one_or_train_the_first() -> None:
    level, sentence, _ = answer_of(Scene())
    assert (level, "`penstock models train --csv FILE --stream flights`" in sentence) == ("act", True)
    level, sentence, _ = answer_of(Scene().tell(version_of(SPEC, "m1")))
    assert (level, "`penstock models promote MODEL_ID --stream flights`" in sentence) == ("act", True)


def test_a_stream_that_is_well_says_so_in_words_that_stay_and_how_well_beside_them() -> None:
    scene = Scene().tell(served(), window_of(1, roc_auc=0.71234), report_of(1))
    assert answer_of(scene) == ("ok", "All is well: m1 serves.", "AUC 0.712, nothing has drifted.")
    words = answer_of(flowing(scene, eps=1_000))
    assert words == (
        "ok",
        "All is well: m1 serves.",
        "1,000 events/s within 4 ms (p99), AUC 0.712, nothing has drifted.",
    )


def test_of_rates_nothing_is_said_before_they_are_known_and_seldom_events_are_no_zero() -> None:
    scene = Scene().tell(served())
    assert answer_of(scene.look(0, 10, 10))[2] == ""
    assert answer_of(scene.look(1, 10, 10))[2] == "No events come in."
    assert answer_of(scene.look(5, 11, 11, 3.0))[2] == "0.2 events/s within 3 ms (p99)."
    scene.look(8, 11, 11)
    assert answer_of(scene.look(12, 11, 11))[2] == "No event for 7 s."


def test_the_words_stay_while_only_figures_change() -> None:
    well, behind, stuck = (Scene().tell(served()) for _ in range(3))
    said: dict[str, set[str]] = {"well": set(), "behind": set(), "stuck": set()}
    for second in range(2, 30):
        said["well"].add(answer_of(well.look(second, second**2, second**2, float(second)))[1])
        said["behind"].add(answer_of(behind.look(second, 100_000 + 99 * second, 9 * second))[1])
        said["stuck"].add(answer_of(stuck.look(second, 100 + 7 * second, 100))[1])
    assert {name: len(sentences) for name, sentences in said.items()} == {"well": 1, "behind": 2, "stuck": 3}


def test_events_that_wait_without_an_answer_are_something_to_act_on() -> None:
    scene = Scene().tell(served())
    for second in range(11):
        assert answer_of(scene.look(second, 105, 100))[0] == ("act" if second >= 10 else "ok")
    _, sentence, figures = answer_of(scene)
    assert sentence == "Events wait, and none is answered: is a worker with the role score running?"
    assert figures == "5 events wait, none answered for 10 s."


def test_a_partition_that_stands_still_while_others_go_on_is_named() -> None:
    scene = Scene().tell(served())
    for second in range(12):
        ends = dict.fromkeys(range(16), 60 * second)
        look = Look(time_ms=NOW_MS + 1_000 * second, ends=ends, answered=ends | {3: 0}, latencies_ms=[5.0])
        scene.fold.look(look)
    level, sentence, _ = answer_of(scene)
    assert (level, sentence[:60]) == ("act", "Partition 3 of flights.features stands still, and the others")
    assert "more workers" not in sentence


def test_a_stream_that_falls_behind_is_to_be_watched() -> None:
    scene = Scene().tell(served()).look(0, 30_000, 0)
    assert answer_of(scene)[0] == "ok"  # how many are answered is not known yet
    level, sentence, figures = answer_of(scene.look(1, 32_000, 100))
    assert (level, sentence.partition(": ")[2]) == ("watch", "more workers, or a smaller model.")
    assert figures == "31,900 events wait, 100 events/s are answered."


def test_as_many_events_as_come_in_a_few_seconds_are_no_backlog() -> None:
    scene = Scene().tell(served()).look(0, 13_000, 0)
    assert answer_of(scene.look(1, 15_000, 100))[0] == "ok"


def test_a_feed_that_came_and_comes_no_more_is_to_be_watched() -> None:
    scene = flowing(Scene().tell(served()), seconds=20)
    for second in range(20, 40):
        scene.look(second, 950, 950)
    assert answer_of(scene) == (
        "watch",
        "Events came, and come no more: does what sends them still run?",
        "None for 20 s.",
    )


@pytest.mark.parametrize(
    ("severity", "level"), [("critical", "act"), ("high", "act"), ("medium", "watch"), ("low", "ok")]
)
def test_the_severity_of_an_alert_that_is_not_over_is_the_level(severity: str, level: str) -> None:
    assert answer_of(Scene().tell(served(), alert_of("a", severity=severity)))[0] == level


def test_the_worst_is_told_with_what_to_do_and_how_much_else_there_is() -> None:
    scene = Scene().tell(
        served(),
        alert_of("a", severity="medium", subject="hour"),
        alert_of(
            "b",
            severity="high",
            subject="distance",
            message="model m1, window 3: 1 of 8 columns have drifted",
            recommendation="look at where distance comes from",
        ),
        alert_of("c", severity="low", subject="day"),
    )
    assert answer_of(scene) == (
        "act",
        "Column distance has drifted. Look at where distance comes from.",
        "Model m1, window 3: 1 of 8 columns have drifted. There is 1 more to look at.",
    )


def test_what_is_to_be_acted_on_comes_before_what_is_to_be_watched() -> None:
    scene = Scene().tell(served(), alert_of("a", severity="high", subject="hour", recommendation="look"))
    for second in range(2):
        scene.look(second, 30_000 + second, second)
    assert answer_of(scene)[:2] == ("act", "Column hour has drifted. Look.")


def test_drift_of_which_no_alert_tells_is_to_be_watched_though_a_mild_one_does() -> None:
    report = report_of(1, column_of("hour", severity="low"), severity="medium", recommendation="consider retraining")
    watched = ("watch", "Drift is medium in the newest window. Consider retraining.")
    scene = Scene().tell(served(), report)
    assert answer_of(scene)[:2] == watched
    raised = report.to_time_ms
    assert answer_of(scene.tell(alert_of("a", severity="low", subject="hour", raised_time_ms=raised)))[:2] == watched
    scene.tell(alert_of("b", severity="medium", subject="day", recommendation="wait", raised_time_ms=raised))
    assert answer_of(scene)[:2] == ("watch", "Column day has drifted. Wait.")


def test_the_figures_of_a_model_that_serves_no_more_are_not_told_of_the_one_that_does() -> None:
    scene = Scene().tell(served("m1", 1), window_of(1, model_id="m1", roc_auc=0.91))
    assert "AUC 0.910" in answer_of(scene)[2]
    board = scene.tell(served("m2", 2)).board
    assert ("AUC" in board.state.figures, dict(board.models.newest)) == (False, {})
    board = scene.tell(window_of(2, model_id="m2", roc_auc=0.7)).board
    assert ("AUC 0.700" in board.state.figures, board.models.newest["champion"].value) == (True, 0.7)


def test_a_long_message_is_cut() -> None:
    scene = Scene().tell(served(), alert_of("a", kind="training", message="x" * 5_000, recommendation="y" * 5_000))
    _, sentence, figures = answer_of(scene)
    assert max(len(sentence), len(figures)) < 350
