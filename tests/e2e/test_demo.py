"""The demo as a newcomer runs it: nothing given, everything counted."""

import json
import subprocess
import sys
from pathlib import Path

EVENTS = 8_000  # the second half has the fault, and at least one drift window


def test_the_demo_answers_every_event_once_on_the_embedded_broker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "demo", f"--events={EVENTS}", "--headless", "--json=demo.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((tmp_path / "demo.json").read_text())
    assert said["events"] == EVENTS
    assert said["predictions"] + said["dead_letters"] == EVENTS
    assert said["dead_letters"] == said["bad_events"] > 0
    assert said["duplicates"] == 0
    assert said["labels"] > 0
    assert said["samples"] + said["labels_unmatched"] + said["labels_waiting"] == said["labels"]
    assert said["samples"] > said["labels"] - said["bad_events"] - 1
    trained = [run for run in said["runs"] if run["outcome"] in ("accepted", "rejected")]
    assert said["model_versions"] == 1 + said["samples"] // 500 + len(trained)
    assert said["retrains"] == sum(run["outcome"] != "skipped" for run in said["runs"])
    assert said["promotions"] == 0, "in a month no rollout comes to its end"
    assert [month["month"] for month in said["auc_by_month"]] == ["Feb"]
    assert 0.5 < said["auc"]["static"] < 0.76
    assert said["windows"] == said["samples"] // 2_000
    assert 0.5 < said["auc"]["champion"] < 0.76
    assert said["auc"]["online"] is not None
    assert 0.6 < said["champion_auc"] < 0.76
    assert said["drift_counted"] == said["predictions"]
    assert said["drift_windows"] == 3
    assert said["drift_alerts"] >= 1
    assert "distance_miles" in said["drifted_features"]
    assert not {"month", "weekday"} & set(said["drifted_features"])
    fault = said["fault"]
    assert 1_000 < fault["events"] < EVENTS / 2
    assert (fault["windows_before"] >= 1, fault["named_before"], fault["named_since"] >= 1) == (True, 0, True)
    assert fault["largest_before"]["deviations"] < 0.1 < 0.3 < fault["largest_since"]["deviations"]
    assert "distance_miles" in fault["alert"]
    assert "distance_miles is named in" in done.stdout
    assert said["explained"] == {"n": 1_000, "identical": 1_000}
    assert "1,000 of 1,000 random predictions, executed again by their models" in done.stdout
    assert said["latency_ms"]["p50"] > 0
    assert said["throughput_eps"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.json"], "the demo leaves nothing behind"
