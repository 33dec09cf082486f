"""The demo as a newcomer runs it: nothing given, everything counted."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
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
    assert said["samples"] + said["labels_unmatched"] + said["labels_pending"] == said["labels"]
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
    assert "live page: http://127.0.0.1:" in done.stdout
    assert said["latency_ms"]["p50"] > 0
    assert said["throughput_eps"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.json"], "the demo leaves nothing behind"


class Terminal:
    """A terminal of 80 columns that remembers what was written on it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._written = b""
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def text(self) -> str:
        return self._written.decode(errors="replace")

    def _read(self) -> None:
        try:
            while part := os.read(self._ours, 65_536):
                self._written += part
        except OSError:  # how Linux says that the other end was closed
            os.close(self._ours)


def until(holds: Callable[[], object], timeout_s: float) -> bool:
    """Wait for it; return whether it came true in time."""
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(holds())


def test_on_a_terminal_the_page_stays_until_ctrl_c(tmp_path: Path) -> None:
    terminal = Terminal()
    command = [sys.executable, "-m", "app.cli", "demo", "--events=500", "--no-browser", "--json=demo.json"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    demo = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=terminal.theirs, stdout=terminal.theirs, stderr=terminal.theirs
    )
    os.close(terminal.theirs)
    try:
        assert until(lambda: "until Ctrl-C" in terminal.text or demo.poll() is not None, 120), terminal.text
        assert demo.poll() is None, terminal.text
        assert json.loads((tmp_path / "demo.json").read_text())["predictions"] > 0
        address = re.findall(r"The page stays at (http://127\.0\.0\.1:\d+/)", terminal.text)[0]
        with urllib.request.urlopen(address, timeout=10) as page:
            assert b"<html" in page.read()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0, terminal.text
    finally:
        demo.kill()
        demo.wait()
