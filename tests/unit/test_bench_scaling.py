"""The scaling benchmarks' arithmetic: what is used per event, what one more worker or stream adds, what compresses."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.capacity import Shape, documents, draw, expected_scores, train
from benchmarks.capacity_page import bytes_table, main, with_table
from benchmarks.many_streams import per_stream, wrong
from benchmarks.plain import Row
from benchmarks.topic_bytes import log_bytes, per_event
from benchmarks.usage import Sample, Usage, cpu_at, footprint
from benchmarks.worker_turns import BROKER, Turn, summary, turn_of


def _rows(count: int) -> list[Row]:
    """Predictions that were appended one per millisecond from second 1,000 on."""
    return [Row(b"key", b"{}", 0, number, 1_000_000 + number) for number in range(count)]


def _usage(**cores: float) -> Usage:
    """What processes use that are busy by so much of a core from second 1,000 on."""
    usage = Usage({})
    for name, share in cores.items():
        usage.samples[name] = [Sample(1_000 + t, share * t, 50_000_000 + 1_000_000 * t) for t in range(10)]
    return usage


def test_processor_time_is_linear_between_samples_and_constant_outside_them() -> None:
    samples = [Sample(10.0, 1.0, 0), Sample(12.0, 2.0, 0), Sample(13.0, 2.0, 0)]
    assert [cpu_at(samples, t) for t in (9.0, 10.0, 11.0, 12.5, 13.0, 99.0)] == [1.0, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_a_process_is_sampled_while_the_block_runs() -> None:
    began = time.time()
    with Usage({"me": os.getpid()}, every_s=0.01) as usage:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
    assert usage.cpu_s("me", began, time.time()) == pytest.approx(0.2, abs=0.1)
    assert usage.peak_mb("me") > 10
    assert footprint(os.getpid())["threads"] >= 1


def test_a_child_counts_and_goes_on_counting_when_it_has_ended() -> None:
    """The child uses half a second of processor time, the parent next to none."""
    busy = "import time\nwhile time.process_time() < 0.5: pass\ntime.sleep(1.5)"  # long enough to be found
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}]); sys.stdin.read()"
    began = time.time()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        with Usage({"parent": parent.pid}) as usage:
            time.sleep(4.0)
        assert parent.stdin is not None
        parent.stdin.close()
    assert 0.45 < usage.cpu_s("parent", began, time.time()) < 1.5
    assert usage.peak_mb("parent") > 8


def test_a_turn_counts_the_processor_time_of_all_workers_between_the_tenths() -> None:
    turn = turn_of(_rows(5_000), _usage(one=1.0, two=0.5, **{BROKER: 0.25}), "pinned", [3_000, 2_000])
    assert turn == Turn(2, "pinned", 1_000, 1_500.0, 250.0, 1.75, [59.0, 59.0], 1.2)


def test_without_a_broker_of_our_own_its_time_is_not_known() -> None:
    turn = turn_of(_rows(5_000), _usage(one=1.0), "pinned", [5_000])
    assert (turn.broker_cpu_us, turn.cores) == (None, 1.0)


def test_a_turn_of_one_instant_has_no_rate() -> None:
    with pytest.raises(ValueError, match="too few"):
        turn_of([_rows(1)[0]] * 100, _usage(one=1.0), "pinned", [100])


def test_the_summary_is_of_medians_and_in_terms_of_the_fewest_workers() -> None:
    rates = {1: (90, 100, 400), 2: (150, 170, 160)}
    turns = [Turn(n, "pinned", eps, eps / 10, 2.0, 1.0, [7.0], 1.0) for n, of_it in rates.items() for eps in of_it]
    found = summary(turns)
    assert found["pinned-1"] == {
        "eps": 100,
        "times": 1.0,
        "cpu_us": 10.0,
        "broker_cpu_us": 2.0,
        "cores": 1.0,
        "peak_mb": 7.0,
    }
    assert (found["pinned-2"]["eps"], found["pinned-2"]["times"]) == (160, 1.6)


def test_each_kind_of_wrong_output_is_named() -> None:
    expected = {"a": 0.1, "b": 0.2, "c": 0.3}
    assert wrong(expected, [("c", 0.3), ("a", 0.1), ("b", 0.2)]) == []
    assert wrong(expected, [("a", 0.1), ("a", 0.1), ("b", 0.9), ("z", 0.2)]) == [
        "1 not scored",
        "1 never sent",
        "1 scored differently",
        "1 scored twice",
    ]


def test_what_one_more_stream_costs_is_the_slope_between_neighbours() -> None:
    base = dict.fromkeys(("threads", "sockets", "idle_cpu_percent", "cpu_us", "startup_s"), 1.0)
    steps = [base | {"streams": n, "rss_mb": mb, "idle_broker_cpu_percent": None} for n, mb in ((11, 120), (1, 100))]
    (found,) = per_stream(steps)
    assert (found["from"], found["to"], found["rss_mb"], found["threads"]) == (1, 11, 2.0, 0.0)
    assert "idle_broker_cpu_percent" not in found


def test_the_bytes_of_a_topic_are_those_of_all_its_partitions_and_segments(tmp_path: Path) -> None:
    files = {"s.features-0/1.log": 10, "s.features-1/1.log": 20, "s.features.dead-0/1.log": 5, "t.features-0/1.log": 99}
    files |= {"s.features-1/2.log": 7, "s.features-1/2.index": 1_000}
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert log_bytes(tmp_path, "s") == {"features": 37, "features.dead": 5}


def test_bytes_per_event_are_what_came_since_the_largest_first() -> None:
    assert per_event({"models": 50}, {"labels": 10, "models": 50, "features": 90}, 2) == {
        "features": 45.0,
        "labels": 5.0,
    }


@pytest.mark.parametrize(("text", "shape"), [("10x100", Shape(10, 100)), ("50xlogistic", Shape(50, 0))])
def test_a_shape_is_written_as_it_is_read(text: str, shape: Shape) -> None:
    assert Shape.parse(text) == shape
    assert str(shape) == text


@pytest.mark.parametrize("shape", [Shape(5, 0), Shape(6, 3)])
def test_a_model_of_a_shape_scores_the_events_of_its_shape(shape: Shape) -> None:
    values = draw(500, shape.features, 1)
    scores = expected_scores(train(shape, values, 1), values)
    assert len(scores) == len(list(documents(values, shape.names))) == 500
    assert len(set(scores.values())) > 10


def test_a_table_stands_between_its_marks_however_often_it_is_written() -> None:
    result = {"bytes_per_event": {"none": {"features": 1250.0, "labels": 3.5}, "zstd": {"features": 90.0}}}
    text = bytes_table(result)
    page = with_table("# Page\n<!-- bytes:begin -->\nold\n<!-- bytes:end -->\nMore.\n", "bytes", text)
    assert page == (
        "# Page\n<!-- bytes:begin -->\n"
        "| topic | bytes, none | bytes, zstd |\n| --- | --- | --- |\n"
        "| `<s>.features` | 1,250 | 90 |\n| `<s>.labels` | 3.5 | 0 |\n| all | 1,254 | 90 |\n"
        "<!-- bytes:end -->\nMore.\n"
    )
    assert with_table(page, "bytes", text) == page
    with pytest.raises(ValueError, match="streams:begin"):
        with_table(page, "streams", text)


RESULTS = {
    "capacity": {
        "shapes": [
            {
                "features": 10,
                "trees": 0,
                "event_bytes": 230,
                "cpu_us": 12.5,
                "broker_cpu_us": 5.5,
                "broker_all_us": None,
                "model_memory_mb": 0.8,
            }
        ]
    },
    "scaling": {"summary": summary([Turn(2, "pinned", 90_000, 11.0, 4.0, 1.5, [330.0], 1.0)]), "turns": []},
    "streams": {"steps": [dict.fromkeys(("roles", "streams", "startup_s", "stop_s", "rss_mb", "sockets"), 2)]},
}
RESULTS["streams"]["steps"][0] |= dict.fromkeys(("idle_cpu_percent", "idle_broker_cpu_percent", "cpu_us"), 3)
RESULTS["streams"]["steps"][0] |= dict.fromkeys(("broker_cpu_us", "commits_per_s", "p50_ms", "p99_ms", "scrape_ms"), 4)


def test_the_page_takes_the_tables_of_all_files(tmp_path: Path) -> None:
    page, files = tmp_path / "page.md", []
    page.write_text("".join(f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in RESULTS))
    for name, result in RESULTS.items():
        files.append(str(tmp_path / f"{name}-of-today.json"))
        Path(files[-1]).write_text(json.dumps(result))
    assert main(str(page), *files) == 0
    rows = [line for line in page.read_text().splitlines() if line.startswith("|") and "---" not in line]
    assert rows[1] == "| 10 | logistic regression | 230 | 12.5 | 80,000 | 5.5 | – | 0.8 |"
    assert rows[3] == "| pinned, 2 | 90,000 | 1 | 11 | 4 | 1.5 | 330 |"
    assert rows[5] == f"|{' 2 |' * 6}{' 3 |' * 3}{' 4 |' * 5}"


def test_a_file_of_another_benchmark_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, file = tmp_path / "page.md", tmp_path / "other.json"
    page.write_text("as it was")
    file.write_text("{}")
    assert main(str(page), str(file)) == 2
    assert page.read_text() == "as it was"
    assert "other.json is of no benchmark" in capsys.readouterr().err
