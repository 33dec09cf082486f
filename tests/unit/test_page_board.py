"""What the page shows of a stream's records: models, drift, dead letters, the timeline, experiments, training."""

import msgspec
import pytest

from app.page.board import StreamFold
from app.page.document import WindowFigure
from app.page.drift import MOST_COLUMNS
from app.page.letters import EXAMPLES, MOST_LETTERS
from app.page.models import MOST_VARIANTS, WINDOWS
from app.page.timeline import MOMENTS
from app.page.versions import MOST_VERSIONS, Versions
from ml.evaluation.proportion import wilson_interval
from schemas.events import Alert, DeadLetter
from schemas.experiments import Contrast, ExperimentPlan, VariantFigures
from tests.drifting import column_of, report_of
from tests.support import Entry, version_of
from tests.viewing import experiment_of, told_of
from tests.watching import NOW_MS, SPEC, Scene, audit_of, letter_of, run_of, served, window_of


def test_a_stream_of_which_nothing_is_known_has_an_empty_board() -> None:
    board = Scene().board
    assert (board.name, board.task, board.models.champion, board.drift) == ("flights", "binary", None, None)
    assert (board.alerts, board.timeline, board.experiment, board.training) == ((), (), None, None)


def test_what_is_no_event_is_passed_over() -> None:
    fold = StreamFold(SPEC)
    fold.take(Alert, [Entry(0, b"{"), Entry(1, None), Entry(2, b'{"id": 3}')])
    assert fold.board(NOW_MS).alerts == ()


def test_the_champion_serves_since_it_was_promoted_whatever_came_beside_it() -> None:
    version = msgspec.structs.replace(version_of(SPEC, "m2"), version="1.2.0")
    online = msgspec.structs.replace(version_of(SPEC, "online@5"), lineage="online")
    scene = Scene().tell(version, online, served("m1", 1), served("m2", 2), served("m2", 3, shadows=("online@5", "m1")))
    models = scene.board.models
    assert models.champion is not None
    assert (models.champion.model_id, models.champion.version, models.champion.algorithm) == ("m2", "1.2.0", "sum")
    assert models.champion.since_time_ms == 2_000
    assert [(other.variant, other.model_id, other.role) for other in models.others] == [
        ("online", "online@5", "shadow"),
        ("m1", "m1", "shadow"),
    ]


def test_a_better_look_at_a_window_replaces_the_first_and_the_oldest_go() -> None:
    scene = Scene()
    for number in range(WINDOWS + 5):
        scene.tell(window_of(number, mature=False, roc_auc=0.5))
        scene.tell(window_of(number, roc_auc=0.7, roc_auc_low=0.6, roc_auc_high=0.8))
    models = scene.board.models
    figures = models.windows["champion"]
    assert models.figure == "roc_auc"
    assert (len(figures), figures[0].to_time_ms) == (WINDOWS, 6_000)
    assert figures[-1] == WindowFigure(to_time_ms=1_000 * (WINDOWS + 5), value=0.7, low=0.6, high=0.8, n=100)


def test_without_any_auc_the_figure_is_the_accuracy_with_wilsons_interval() -> None:
    models = Scene().tell(window_of(0, accuracy=0.9)).board.models
    (figure,) = models.windows["champion"]
    assert models.figure == "accuracy"
    assert (figure.low, figure.high) == (pytest.approx(0.8256, abs=1e-4), pytest.approx(0.9448, abs=1e-4))


def test_wilsons_interval_stays_between_0_and_1() -> None:
    assert wilson_interval(0.5, 0) == (0.0, 1.0)
    assert wilson_interval(0.0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson_interval(1.0, 10) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))


def test_the_delay_of_labels_is_that_of_the_newest_mature_window() -> None:
    scene = Scene().tell(
        window_of(1, label_delay_p50_ms=10.0, label_delay_p95_ms=20.0),
        window_of(2, mature=False, label_delay_p50_ms=1.0, label_delay_p95_ms=2.0),
    )
    labels = scene.fold.board(NOW_MS, pending=7).labels
    assert (labels.delay_p50_ms, labels.delay_p95_ms, labels.pending) == (10.0, 20.0, 7)


def test_drift_shows_the_newest_window_worst_column_first_with_the_psi_of_earlier_ones() -> None:
    first = report_of(0, column_of("distance", psi=0.11111), column_of("hour", psi=None))
    newest = report_of(
        1,
        column_of("distance", severity="low", psi=0.2),
        column_of("hour", severity="high", psi=0.9, current=(0.123456, 0.876544)),
        column_of("day", severity="critical", judged=False, psi=3.0),
        severity="high",
        recommendation="retrain",
    )
    drift = Scene().tell(first, newest).board.drift
    assert drift is not None
    assert (drift.severity, drift.number, drift.recommendation) == ("high", 1, "retrain")
    assert [(column.name, column.severity) for column in drift.columns] == [
        ("hour", "high"),
        ("distance", "low"),
        ("prediction score", "none"),
        ("day", "none"),
    ]
    assert drift.columns[0].current == (0.1235, 0.8765)
    assert [column.history for column in drift.columns[:2]] == [(None, 0.9), (0.1111, 0.2)]


def test_dead_letters_are_counted_by_reason_and_the_newest_are_shown() -> None:
    scene = Scene().tell(*[letter_of(offset, b"x" * 1_000) for offset in range(20)])
    scene.tell(letter_of(20, b"\xff<script>", reason="invalid_field"))
    letters = scene.board.dead_letters
    assert (letters.count, letters.reasons) == (21, {"malformed_json": 20, "invalid_field": 1})
    assert [letter.offset for letter in letters.examples] == list(range(20, 20 - EXAMPLES, -1))
    assert letters.examples[0].original == "\ufffd<script>"
    assert len(letters.examples[1].original) == 400


def test_a_letter_whose_original_was_sent_again_waits_no_more_and_one_written_twice_waits_once() -> None:
    scene = Scene().tell(letter_of(1), letter_of(2), letter_of(2), letter_of(1, stage="replay"))
    assert [letter.offset for letter in scene.board.dead_letters.examples] == [2]
    assert (scene.board.dead_letters.count, scene.board.dead_letters.at_least) == (1, False)


def test_where_older_letters_were_not_read_receipts_of_those_count_for_nothing() -> None:
    scene = Scene()
    scene.fold.pass_over(DeadLetter)
    scene.tell(letter_of(900), *[letter_of(offset, stage="replay") for offset in range(100)])
    assert (scene.board.dead_letters.count, scene.board.dead_letters.at_least) == (1, True)


def test_an_original_that_nobody_can_decode_does_not_harm() -> None:
    assert Scene().tell(letter_of(1, original_base64="%")).board.dead_letters.examples[0].original == ""


def test_of_very_many_dead_letters_only_the_newest_are_kept() -> None:
    fold = StreamFold(SPEC)
    value = msgspec.json.encode(letter_of(0))
    fold.take(DeadLetter, [Entry(n, value.replace(b'"offset":0', b'"offset":%d' % n)) for n in range(MOST_LETTERS + 9)])
    letters = fold.board(NOW_MS).dead_letters
    assert (letters.count, letters.at_least, sum(letters.reasons.values())) == (MOST_LETTERS, True, MOST_LETTERS)


def test_the_timeline_tells_what_happened_newest_first_and_why() -> None:
    scene = Scene().tell(
        audit_of("register", 1, reason="version 1.1.0: made by training run run-1"),
        audit_of("promote", 3, asked_reason="it is better"),
        audit_of("rollback", 4, outcome="refused", reason="there is no previous champion", model_id=""),
        audit_of("start", 5, model_id="", experiment_id="x", reason="experiment x runs"),
        run_of("waiting", 2),
        run_of("read", 2, share=0.5),
        run_of("ended", 6, outcome="failed", message="the store was away"),
        run_of("read", 7, "run-2"),
    )
    assert [(moment.what, moment.title, moment.detail) for moment in scene.board.timeline] == [
        ("training", "training run-2 began", "asked for: drift"),
        ("training", "training run-1 failed", "the store was away (asked for: drift)"),
        ("experiment", "experiment x runs", "ada"),
        ("refused", "rollback was refused", "there is no previous champion (ada)"),
        ("promoted", "model m1 took part in promote", "ada: it is better"),
        ("registered", "model m1 is registered", "version 1.1.0: made by training run run-1 (ada)"),
    ]


def test_routine_comes_last_and_pushes_nothing_out_of_the_timeline() -> None:
    snapshots = [
        audit_of(action, n, issued_by="learner online", reason=f"{action} {n}")
        for n in range(10, 10 + MOMENTS)
        for action in ("register", "succeed")
    ]
    skipped = [
        run_of(phase, n, f"run-{n}", outcome=outcome, message=message)
        for n in range(10, 11 + MOMENTS)
        for phase, outcome, message in (("waiting", None, ""), ("ended", "skipped", f"too soon {n}"))
    ]
    refused = audit_of("succeed", 500, issued_by="learner online", outcome="refused", reason="rolled back")
    scene = Scene().tell(audit_of("promote", 3), *snapshots, *skipped, refused)
    last, times = 9 + MOMENTS, "times in what this page has read"
    assert [(moment.time_ms, moment.title, moment.detail) for moment in scene.board.timeline] == [
        (500, "succeed m1 was refused", "rolled back (learner online)"),
        (3, "model m1 took part in promote", "ada"),
        (
            last + 1,
            f"training run-{last + 1} skipped",
            f"too soon {last + 1} (asked for: drift), {MOMENTS + 1} {times}",
        ),
        (last, "model m1 is registered", f"register {last} (learner online), {MOMENTS} {times}"),
        (last, f"succeed {last}", f"learner online, {MOMENTS} {times}"),
    ]


def test_training_shows_what_the_run_that_spoke_last_is_at() -> None:
    training = Scene().tell(run_of("fit", 1, share=0.25, message="tree 25"), run_of("fit", 2, share=0.5)).board.training
    assert training is not None
    assert (training.run_id, training.phase, training.share, training.time_ms) == ("run-1", "fit", 0.5, 2)


def test_an_experiment_shows_its_arms_and_goes_when_it_has_ended() -> None:
    running = experiment_of("x", 80, 20)
    scene = Scene().tell(served("m1", 1, running))
    before = scene.board.experiment
    assert before is not None
    assert [(arm.variant, arm.share, arm.samples) for arm in before.arms] == [("champion", 0.8, 0), ("v1", 0.2, 0)]
    figures = [
        VariantFigures(
            variant=name,
            model_id=model,
            share=share,
            events=9,
            errors=0,
            call_ms=None,
            score_psi=None,
            samples=8,
            buckets=7,
            means={"accuracy": mean, "brier": 0.1},
            f1=None,
            roc_auc=None,
        )
        for name, model, share, mean in (("champion", "m1", 0.8, 0.7), ("v1", "m2", 0.2, 0.75))
    ]
    contrast = Contrast(variant="v1", metric="accuracy", difference=0.05, low=0.01, high=0.09, p_value=0.01)
    plan = ExperimentPlan(metric="accuracy")
    told = told_of("x", 1, variants=tuple(figures), contrasts=(contrast,), plan=plan, verdict="better", why="it is")
    shown = scene.tell(told, told_of("", 2)).board.experiment
    assert shown is not None
    assert (shown.id, shown.metric, shown.verdict, shown.why) == ("x", "accuracy", "better", "it is")
    assert [(arm.mean, arm.difference, arm.low, arm.high) for arm in shown.arms] == [
        (0.7, None, None, None),
        (0.75, 0.05, 0.01, 0.09),
    ]
    assert [other.role for other in scene.board.models.others] == ["challenger"]
    assert scene.tell(served("m1", 2)).board.experiment is None


def test_the_figure_to_be_told_is_of_the_newest_mature_window_with_a_value_of_the_model_that_serves() -> None:
    scene = Scene().tell(served("m1", 1), window_of(1, roc_auc=0.6), window_of(2, roc_auc=0.7), window_of(3))
    models = scene.tell(window_of(4, mature=False, roc_auc=0.9)).board.models
    assert models.newest["champion"].value == 0.7
    assert [figure.mature for figure in models.windows["champion"]] == [True, True, True, False]
    assert scene.tell(served("m2", 2)).board.models.newest == {}


def test_what_is_said_of_a_snapshot_goes_for_later_ones_of_its_lineage_and_not_for_earlier_ones() -> None:
    scene = Scene()
    for offset in (5, 10, 15):
        scene.tell(msgspec.structs.replace(version_of(SPEC, f"online@{offset}"), lineage="online"))
    scene.tell(served("online@10", 2), window_of(1, model_id="online@10", roc_auc=0.7))
    assert scene.tell(served("online@15", 3)).board.models.newest["champion"].value == 0.7
    assert scene.tell(served("online@5", 4)).board.models.newest == {}


def test_of_many_variants_those_that_score_now_are_shown() -> None:
    scene = Scene().tell(served("m1", 1, shadows=("s8",)))
    figures = [msgspec.structs.replace(window_of(1).variants[0], variant=f"s{n}", model_id=f"s{n}") for n in range(9)]
    champion = window_of(1)
    windows = scene.tell(
        msgspec.structs.replace(champion, variants=(*figures, *champion.variants))
    ).board.models.windows
    assert len(windows) == MOST_VARIANTS
    assert list(windows)[:2] == ["champion", "s8"]


def test_of_very_many_columns_the_worst_are_shown() -> None:
    columns = [column_of(f"c{n}", severity="low", psi=n / 100) for n in range(MOST_COLUMNS + 9)]
    drift = Scene().tell(report_of(1, *columns)).board.drift
    assert drift is not None
    assert (len(drift.columns), drift.columns[0].name) == (MOST_COLUMNS, f"c{MOST_COLUMNS + 8}")


def test_a_champion_whose_promotion_was_not_read_serves_since_before_that() -> None:
    assert [
        scene.board.models.champion.since_before  # type: ignore[union-attr]
        for scene in (
            Scene().tell(served("m1", 1)),
            Scene().tell(served("m1", 7)),
            Scene().tell(served(), served("m2", 2)),
        )
    ] == [False, True, False]


def test_a_learner_that_registers_for_ever_fills_no_memory_and_what_is_routed_stays_known() -> None:
    versions = Versions()
    first, other = version_of(SPEC, "online@0"), version_of(SPEC, "m1")
    versions.keep({"online@3"})
    versions.take(other)
    for offset in range(2 * MOST_VERSIONS):
        versions.take(msgspec.structs.replace(first, model_id=f"online@{offset}", lineage="online", version="1.0.0"))
    assert len(versions) == MOST_VERSIONS + 1
    known = ("m1", "online@3", f"online@{2 * MOST_VERSIONS - 1}", "online@4")
    assert [bool(versions.of(model_id).algorithm) for model_id in known] == [True, True, True, False]


def test_the_champion_and_the_one_before_it_stay_known_whatever_a_learner_registers() -> None:
    snapshot = msgspec.structs.replace(version_of(SPEC, "online@0"), lineage="online", version="1.0.0")
    scene = Scene().tell(snapshot, served("online@0", 2))
    for offset in range(1, MOST_VERSIONS + 9):
        scene.tell(msgspec.structs.replace(snapshot, model_id=f"online@{offset}"))
    champion = scene.board.models.champion
    assert champion is not None
    assert champion.version == "1.0.0"
