"""What a person reads of an experiment: what runs, what is known, the verdict, and why."""

import json
from typing import Any

import msgspec

from app.experiment_report import FIXED_HORIZON, document, lines
from app.experiments import Course
from schemas.events import Deployment
from schemas.experiments import (
    Contrast,
    Experiment,
    ExperimentPlan,
    ExperimentReport,
    GuardrailState,
    ShadowFigures,
    Variant,
    VariantFigures,
)

HOUR_MS = 3_600_000
PLAN = ExperimentPlan(metric="brier", min_samples=1_000, steps=(0.1, 0.5, 1.0))
EXPERIMENT = Experiment(
    experiment_id="r1",
    kind="rollout",
    plan=PLAN,
    salt="flights/r1",
    variants=(
        Variant(name="champion", model_id="m1", buckets=9_000),
        Variant(name="challenger", model_id="m2", buckets=1_000),
    ),
    table=((0, 9_000), (1, 1_000)),
    started_by="me@here",
)


def deployment(revision: int, **more: Any) -> Deployment:
    return Deployment(
        stream="flights",
        revision=revision,
        champion="m1",
        changed_time_ms=revision * 60_000,
        changed_by="me@here",
        correlation_id="",
        **more,
    )


COURSE = Course(EXPERIMENT, (deployment(3, experiment=EXPERIMENT, reason="it is new"),))


def figures(variant: str, **more: Any) -> VariantFigures:
    known: dict[str, Any] = {
        "model_id": "m1",
        "share": 0.9,
        "events": 9_000,
        "errors": 0,
        "call_ms": 0.25,
        "score_psi": None,
        "samples": 8_100,
        "buckets": 7_000,
        "means": {"brier": 0.21, "accuracy": None},
        "f1": 0.5,
        "roc_auc": None,
    }
    return VariantFigures(variant=variant, **(known | more))


REPORT = ExperimentReport(
    stream="flights",
    experiment_id="r1",
    kind="rollout",
    deployment_revision=3,
    epoch=0,
    number=4,
    to_time_ms=0,
    plan=PLAN,
    samples=9_000,
    ripening=1_200,
    variants=(figures("champion"), figures("challenger", model_id="m2", share=0.125, errors=12, means={"brier": 0.2})),
    contrasts=(
        Contrast(
            variant="challenger",
            metric="brier",
            difference=0.01,
            low=-0.002,
            high=0.022,
            p_value=0.04,
            fixed={"welch": 0.00001},
        ),
    ),
    guardrails=(
        GuardrailState(variant="challenger", name="errors", holds=False, value=0.012, limit=0.01, reason="12 of 1,000"),
        GuardrailState(variant="challenger", name="scores", holds=True, value=None, limit=1.0, reason=""),
    ),
    shadows=(ShadowFigures(variant="online", model_id="s1", n=2_000, disagreement=0.0125, mean_distance=0.03),),
    sample_ratio_p=0.4321,
    verdict="broken_guardrail",
    winner="",
    step="roll_back",
    why="errors\x1b of challenger",
)


def test_all_that_is_known_of_a_rollout_is_shown_and_a_terminal_obeys_none_of_it() -> None:
    assert list(lines(COURSE, REPORT, HOUR_MS)) == [
        "rollout r1 of flights, runs: epoch 0",
        "target brier (lower is better), alpha 0.05, margin 0.01, at least 1,000 mature samples of each variant",
        "steps 10%, 50%, 100%, taken by itself",
        "1970-01-01 00:03  r3     champion 90%, challenger 10%  by me@here: it is new",
        "",
        "9,000 mature samples, 1,200 wait for labels that may still come",
        "variant     model  share  events  served  errors  call ms  PSI  samples  buckets  brier  accuracy   F1  AUC",
        "champion    m1       90%   9,000   9,000       0    0.250    -    8,100    7,000   0.21         -  0.5    -",
        "challenger  m2     12.5%   9,000   8,988      12    0.250    -    8,100    7,000    0.2         -  0.5    -",
        "",
        "Difference to the champion: above 0 is better. "
        "The intervals hold at every look at once, of all variants together with 95%.",
        "variant     metric  difference     low    high       p",
        "challenger  brier        +0.01  -0.002  +0.022  0.0400",
        "",
        "fixed horizon: holds for one look at a time chosen before, and for independent events only",
        "variant     metric  test         p",
        "challenger  brier   welch  <0.0001",
        "",
        "variant     guardrail  state   value  limit  why",
        "challenger  errors     broken  0.012   0.01  12 of 1,000",
        "challenger  scores     holds       -      1",
        "",
        "sample ratio, equally many samples in each bucket: p 0.4321, at every look",
        "",
        "shadow  model  events  other label  mean distance of scores",
        "online  s1      2,000        1.25%                     0.03",
        "",
        "verdict: broken_guardrail",
        "next: roll_back",
        "why: errors\\x1b of challenger",
    ]


def test_the_label_of_fixed_horizon_tests_is_only_there_with_them() -> None:
    bare = msgspec.structs.replace(REPORT, contrasts=(msgspec.structs.replace(REPORT.contrasts[0], fixed={}),))
    assert any(FIXED_HORIZON in line for line in lines(COURSE, REPORT, HOUR_MS))
    assert not any(FIXED_HORIZON in line for line in lines(COURSE, bare, HOUR_MS))


def test_an_experiment_that_has_ended_says_how_and_one_without_a_report_why() -> None:
    ended = msgspec.structs.replace(deployment(5, reason="worse"), changed_by="rollout r1")
    shown = list(lines(Course(EXPERIMENT, COURSE.steps, ended), None, HOUR_MS))
    assert shown[0] == "rollout r1 of flights, ended: epoch 0"
    assert shown[-2] == "1970-01-01 00:05  r5     champion m1 stayed  by rollout r1: worse"
    assert shown[-1].startswith("nothing is known of it yet: is a worker with the role learn running")
    assert "still recovering" in shown[-1]


def test_before_the_first_mature_samples_it_is_told_when_they_come_by_event_time() -> None:
    late = msgspec.structs.replace(EXPERIMENT, started_time_ms=24 * HOUR_MS)
    course = Course(late, COURSE.steps)
    begin = "labels may come until 1 h 30 min after an event; "
    expected = f"{begin}the first samples are mature at 1970-01-02 01:30 UTC by event time"
    assert expected in lines(course, None, HOUR_MS * 3 // 2)
    unripe = msgspec.structs.replace(REPORT, samples=0, to_time_ms=25 * HOUR_MS)
    assert expected in lines(course, unripe, HOUR_MS * 3 // 2)
    past = msgspec.structs.replace(unripe, to_time_ms=HOUR_MS)
    assert f"{begin}event time is at 1970-01-01 01:00 UTC, " in "\n".join(lines(course, past, HOUR_MS * 3 // 2))
    assert begin not in "\n".join(lines(course, REPORT, HOUR_MS * 3 // 2))


def test_a_report_that_is_older_than_the_shares_says_so() -> None:
    running = Course(msgspec.structs.replace(EXPERIMENT, epoch=1), COURSE.steps)
    assert list(lines(running, REPORT, HOUR_MS))[-1] == "this report is of epoch 0; the shares have changed since"


def test_a_winner_is_named() -> None:
    won = msgspec.structs.replace(REPORT, verdict="better", winner="challenger", step="none")
    assert list(lines(COURSE, won, HOUR_MS))[-2:] == ["verdict: better (challenger)", "why: errors\\x1b of challenger"]


def test_without_an_experiment_only_the_shadows_are_shown() -> None:
    alone = msgspec.structs.replace(REPORT, experiment_id="", kind="", plan=None)
    assert [line.split() for line in lines(None, alone, HOUR_MS)] == [
        ["shadow", "model", "events", "other", "label", "mean", "distance", "of", "scores"],
        ["online", "s1", "2,000", "1.25%", "0.03"],
    ]


def test_the_document_has_shares_steps_and_the_whole_report() -> None:
    found = json.loads(msgspec.json.encode(document(COURSE, REPORT)))
    assert (found["running"], found["ended"], found["report"]["verdict"]) == (True, None, "broken_guardrail")
    [step] = found["steps"]
    assert step["shares"] == {"champion": 0.9, "challenger": 0.1}
    assert (step["revision"], step["epoch"], step["by"]) == (3, 0, "me@here")
    ended = document(Course(EXPERIMENT, COURSE.steps, deployment(5)), None)
    assert (ended["running"], ended["ended"]["outcome"], ended["report"]) == (False, "champion m1 stayed", None)
    assert document(None, None)["experiment"] is None
