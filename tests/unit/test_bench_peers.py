"""The arithmetic of the peers' benchmark, and what it asks of contestants."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from benchmarks import environments
from benchmarks.comparison import steady
from benchmarks.peers import bench, report
from benchmarks.peers.contestants import find
from benchmarks.peers.figures import Taken, speed_goals, summary
from benchmarks.peers.latency import Latency, Pace, latency_of
from benchmarks.peers.pacer import PROBES, prepared
from benchmarks.peers.throughput import Speed

RATIO = "p99 at 1,000 events/s at most 1.2 x aiokafka_loop"
MOST = "p99 at 10,000 events/s at most 25 ms"


def speed(eps: float, *, partial: bool = False) -> Speed:
    return Speed(1000, eps, 1e6 / eps, peak_mb=100.0, startup_s=1.0, total_s=2.0, total_cpu_s=1.5, partial=partial)


def answers(rate: int, p99_ms: float | None) -> Latency:
    return Latency(rate, 1, p99_ms is None, p99_ms, p99_ms, p99_ms, 0.1)


def result(**turns: Taken) -> dict[str, Any]:
    return summary(turns, {name: {"msgspec": "1"} for name in turns})


def test_the_steady_part_ignores_a_slow_start_and_a_slow_end() -> None:
    times_ms = np.array([120_000, *range(60_000, 60_998), 0])
    assert steady(times_ms) == (800, 60_099, 60_899)
    with pytest.raises(ValueError, match="too few"):
        steady(np.array([5, 5, 5]))


def test_ratios_compare_turns_of_the_same_round() -> None:
    """The machine was half as fast in the second round: medians of rates would say 100 : 60."""
    ours, theirs = [speed(eps) for eps in (200, 100, 90)], [speed(eps) for eps in (100, 50, 60)]
    found = result(penstock=Taken(ours, []), aiokafka_loop=Taken(theirs, []))
    assert found["ratios"]["aiokafka"] == 2.0
    assert found["ratios"]["quix"] is None
    assert found["contestants"]["penstock"]["eps"] == 100
    assert found["contestants"]["aiokafka_loop"]["eps_spread"] == [50, 100]


def test_a_contestant_that_was_stopped_once_is_partial() -> None:
    found = result(faust_event=Taken([speed(1), speed(2, partial=True)], []))
    assert found["contestants"]["faust_event"]["partial"] is True


def test_latency_goals_are_of_one_rate_and_of_one_way_to_deliver() -> None:
    ours = [answers(1_000, 12.0), answers(10_000, 30.0), answers(1_000, 8.0)]
    theirs = [answers(1_000, 10.0), answers(10_000, 1.0), answers(1_000, 5.0)]
    quicker = [answers(1_000, 5.0), answers(10_000, 20.0), answers(1_000, 6.0)]
    turns = {"penstock": Taken([], ours), "penstock_at_least_once": Taken([], quicker)}
    goals = result(**turns, aiokafka_loop=Taken([], theirs))["goals"]
    assert goals[f"exactly once: {RATIO}"] == {"figure": pytest.approx((1.2 + 1.6) / 2), "met": False}
    assert goals[f"at least once: {RATIO}"] == {"figure": pytest.approx((0.5 + 1.2) / 2), "met": True}
    assert goals[f"exactly once: {MOST}"] == {"figure": 30.0, "met": False}
    assert goals[f"at least once: {MOST}"] == {"figure": 20.0, "met": True}


def test_who_fell_behind_has_no_latency_and_no_ratio() -> None:
    ours = [answers(1_000, 12.0), answers(1_000, 8.0)]
    theirs = [answers(1_000, None), answers(1_000, 5.0)]
    found = result(penstock=Taken([], ours), aiokafka_loop=Taken([], theirs))
    latency = found["contestants"]["aiokafka_loop"]["latency"]["1000"]
    assert latency == {"p50_ms": None, "p99_ms": None, "max_ms": None, "late_ms": 0.1, "note": "fell behind"}
    assert found["goals"][f"exactly once: {RATIO}"] == {"figure": None, "met": None}


def test_goals_tell_what_is_met_and_what_was_not_measured() -> None:
    found = speed_goals({"aiokafka": 0.95, "bytewax": 1.49, "quix": None, "faust": 51.0})
    assert [goal["met"] for goal in found.values()] == [True, False, None, True]


def test_a_goal_at_a_rate_at_which_penstock_fell_behind_is_missed() -> None:
    found = result(penstock=Taken([], [answers(1_000, 5.0), answers(10_000, None)]))
    assert found["goals"][f"exactly once: {MOST}"] == {"figure": None, "met": False}
    assert found["goals"][f"exactly once: {RATIO}"] == {"figure": None, "met": None}


def test_warm_up_and_probes_do_not_count() -> None:
    pace = Pace(rate=100, seconds=2.0, seed=1, booster=xgboost.Booster())
    assert pace.events == PROBES + 500 + 200
    sent_ms = np.zeros(pace.events)
    sent_ms[PROBES:] = 5_000 + 10 * np.arange(700)
    taken_ms = np.where(np.arange(pace.events) < PROBES + 500, 900.0, 4.0)
    taken_ms[-1] = 14.0
    found = latency_of(pace, sent_ms, taken_ms, fell_behind=False)
    assert (found.events, found.p50_ms, found.max_ms) == (200, 4.0, 14.0)
    assert found.late_ms == 0.0
    behind = latency_of(pace, sent_ms, np.full(pace.events, np.nan), fell_behind=True)
    assert (behind.p50_ms, behind.p99_ms, behind.max_ms) == (None,) * 3


def test_a_producer_that_is_late_says_so() -> None:
    pace = Pace(rate=100, seconds=1.0, seed=1, booster=xgboost.Booster())
    sent_ms = np.zeros(pace.events)
    sent_ms[PROBES:] = 10 * np.arange(600)
    sent_ms[-50:] += 30
    found = latency_of(pace, sent_ms, np.ones(pace.events), fell_behind=False)
    assert found.late_ms == 30.0


def test_prepared_events_lack_only_their_time() -> None:
    for _, head, tail in prepared(3, seed=1):
        assert head.endswith(b'"event_time_ms":')
        assert tail.startswith(b',"features":')


def a_folder(parent: Path, name: str, requirements: str = "") -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / "main.py").touch()
    (folder / "requirements.txt").write_text(requirements)
    return folder


def test_contestants_are_penstock_and_whoever_has_a_folder(tmp_path: Path) -> None:
    for name in ("quix", "zebra", "aiokafka_loop"):
        a_folder(tmp_path, name)
    (tmp_path / "common").mkdir()
    asked: list[Path] = []

    def python_of(folder: Path) -> Path:
        asked.append(folder)
        return Path(sys.executable)

    names = [each.name for each in find(tmp_path, None, python_of)]
    assert names == ["penstock", "penstock_at_least_once", "aiokafka_loop", "quix", "zebra"]
    asked.clear()
    assert [each.name for each in find(tmp_path, ["quix", "penstock"], python_of)] == ["penstock", "quix"]
    assert asked == [tmp_path / "quix"]
    with pytest.raises(KeyError, match="nobody"):
        find(tmp_path, ["nobody"], python_of)


def test_asking_for_nobody_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run(argparse.Namespace(only="nobody"), peers=tmp_path) == 2
    assert "no contestant 'nobody'" in capsys.readouterr().err


def test_an_environment_is_made_once_for_the_same_requirements(tmp_path: Path) -> None:
    folder, cache = a_folder(tmp_path, "nothing"), tmp_path / "cache"
    python = environments.python_of(folder, cache)
    made_ns = python.parent.stat().st_mtime_ns
    assert python.exists()
    assert environments.python_of(folder, cache) == python
    assert python.parent.stat().st_mtime_ns == made_ns
    assert [each.name for each in cache.iterdir()] == [python.parents[1].name]
    assert python.parents[1].name.startswith("nothing-")


def test_pins_are_read_without_comments_and_extras(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "some", "# why\nquixstreams==3.1  # so\nfaust-streaming[fast]==0.15.3\nnumpy\n")
    assert environments.pins(folder) == {"quixstreams": "3.1", "faust-streaming": "0.15.3"}


def some_result() -> dict[str, Any]:
    slow = Taken([speed(50, partial=True)], [answers(1_000, None), answers(10_000, None)])
    quick = Taken([speed(5_000)], [answers(1_000, 4.0), answers(10_000, 9.0)])
    where = {"cpu": "a processor", "cores": 2, "python": "3.11.7"}
    return result(faust_event=slow, penstock=quick, aiokafka_loop=quick) | {"machine": where, "events": 1_000_000}


def test_the_table_has_a_row_for_each_with_the_fastest_first() -> None:
    lines = report.table(some_result()).splitlines()
    assert lines[2].startswith("| penstock | 5,000 | 5,000 … 5,000 | 200.0 | 100 | 1.0 | 4.0 / 4.0 | 9.0 / 9.0 |")
    assert lines[4].startswith("| faust_event (stopped early) | 50 |")
    assert "| fell behind | fell behind |" in lines[4]
    assert "| exactly once: at least 50 x faust_event | 100.00 | yes |" in lines
    assert "| exactly once: at least 5 x quix |  | not measured |" in lines
    told = "1,000,000 events; 1 turns, 1 of latency with a producer late by 0.1 ms (p99); a processor, 2 cores, Python "
    assert lines[-1].startswith(told)


def test_the_table_replaces_what_stands_between_its_markers_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_table(some_result(), page)
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n| ")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    report.write_table(some_result(), page)
    assert page.read_text() == text


def test_the_picture_names_everybody() -> None:
    svg = report.plot(some_result())
    assert svg == report.plot(some_result())
    assert b"penstock" in svg
    assert b"fell behind" in svg
