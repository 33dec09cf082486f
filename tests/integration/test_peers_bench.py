"""The peers' benchmark on Apache Kafka: it measures contestants that are right, and stops at one that is not."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.peers import bench, latency
from tests.kafka.server import KafkaServer, RunningKafka

PEERS = Path(bench.__file__).parent
BARE = "aiokafka_loop"
SPOILER = f"""\
import runpy
import work

class Spoilt(work.Work):
    def score(self, values, *places):
        spoilt, *others = super().score(values, *places) or [b""]
        return [spoilt.replace(b'"score":0.', b'"score":0.0'), *others] if spoilt else []

work.Work = Spoilt
runpy.run_path({str(PEERS / BARE / "main.py")!r}, run_name="__main__")
"""


def here(_: Path) -> Path:
    """The present environment has all that a bare loop wants."""
    return Path(sys.executable)


@pytest.fixture
def arguments(
    kafka: KafkaServer | RunningKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., argparse.Namespace]:
    """Make arguments for a short run on the Kafka of the tests, as the command line would."""
    monkeypatch.setenv("ML_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setattr(latency, "WARM_UP_S", 1.0)

    def make(*words: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        bench.add_command(parser.add_subparsers())
        short = ["--events=20000", "--runs=1", "--latency-runs=1", "--latency-seconds=2", "--warm-up-seconds=1"]
        return parser.parse_args(["peers", *short, "--json", str(tmp_path / "result.json"), *words])

    return make


def test_a_short_run_measures_penstock_beside_a_bare_loop(
    arguments: Callable[..., argparse.Namespace], tmp_path: Path
) -> None:
    words = ["--only", f"penstock,{BARE}", "--rates", "200"]
    assert bench.run(arguments(*words), python_of=here) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["ratios"]["aiokafka"] > 0
    for name, low_mb in (("penstock", 100), (BARE, 40)):
        figures = result["contestants"][name]
        assert 1_000 < figures["eps"] < 2_000_000
        assert 0 <= figures["cpu_us"] < 2_000
        assert low_mb < figures["peak_mb"] < 2_000
        assert 0.1 < figures["startup_s"] < 90
        assert figures["partial"] is False
        (turn,) = result["runs"][name]["latency"]
        assert turn["events"] == 400
        if not turn["fell_behind"]:  # as it may where many tests share a machine
            assert 0 < turn["p50_ms"] <= turn["p99_ms"] <= turn["max_ms"]


def test_a_contestant_that_spoils_a_score_ends_the_run_by_name_and_without_a_result(
    arguments: Callable[..., argparse.Namespace], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiler = tmp_path / "peers" / "spoiler"
    spoiler.mkdir(parents=True)
    (spoiler / "main.py").write_text(SPOILER)
    (spoiler / "requirements.txt").touch()
    assert bench.run(arguments("--only", "spoiler", "--rates"), spoiler.parent, here) == 1
    told = capsys.readouterr().err
    assert told.startswith("Outputs differ. spoiler: ")
    assert "scored differently" in told
    assert not (tmp_path / "result.json").exists()
