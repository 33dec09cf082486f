"""Training runs in a real MLflow server, and in what only looks like one."""

import http.server
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stores.tracking import TrackedRun, TrackingFailed, track
from tests.command_line import CANARY, free_port
from tests.mlflow_server import MlflowServer

RUN = TrackedRun(
    run_id="flights-7",
    name="flights 7",
    parameters={"trainer": "xgboost", "eta": 0.05, "max_depth": 6, "monotone": None},
    metrics={"test.roc_auc": 0.71, "test.brier": 0.21, "test.broken": float("nan")},
    artifacts={"card.md": b"# Flights", "plots/roc.svg": b"<svg/>", "model.ubj": bytes(range(256)) * 500},
    tags={"penstock.stream": "flights"},
    start_ms=1_700_000_000_000,
    end_ms=1_700_000_060_000,
)


def ask(server: MlflowServer, path: str, **given: Any) -> Any:
    """What the server's own interface says."""
    request = urllib.request.Request(
        f"{server.uri}/api/2.0/mlflow/{path}", json.dumps(given).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def runs_of(server: MlflowServer, experiment: str) -> list[Any]:
    with urllib.request.urlopen(
        f"{server.uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name={experiment}", timeout=30
    ) as answer:
        experiment_id = json.load(answer)["experiment"]["experiment_id"]
    runs: list[Any] = ask(server, "runs/search", experiment_ids=[experiment_id]).get("runs", [])
    return runs


def file_of(server: MlflowServer, run: Any, name: str) -> bytes:
    with urllib.request.urlopen(
        f"{server.uri}/get-artifact?run_uuid={run['info']['run_id']}&path={name}", timeout=30
    ) as answer:
        content: bytes = answer.read()
    return content


@contextmanager
def listener() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_run_is_there_with_all_that_belongs_to_it(mlflow_server: MlflowServer, unique: str) -> None:
    link = track(mlflow_server.uri, unique, RUN)
    [run] = runs_of(mlflow_server, unique)
    info, data = run["info"], run["data"]
    assert link == f"{mlflow_server.uri}/#/experiments/{info['experiment_id']}/runs/{info['run_id']}"
    assert (info["run_name"], info["status"]) == ("flights 7", "FINISHED")
    assert (info["start_time"], info["end_time"]) == (RUN.start_ms, RUN.end_ms)
    parameters = {parameter["key"]: parameter["value"] for parameter in data["params"]}
    assert parameters == {"trainer": "xgboost", "eta": "0.05", "max_depth": "6", "monotone": "None"}
    assert {metric["key"]: metric["value"] for metric in data["metrics"]} == {"test.roc_auc": 0.71, "test.brier": 0.21}
    tags = {tag["key"]: tag["value"] for tag in data["tags"]}
    assert (tags["penstock.run_id"], tags["penstock.stream"]) == ("flights-7", "flights")
    for name, content in RUN.artifacts.items():
        assert file_of(mlflow_server, run, name) == content


def test_a_run_that_is_written_again_stays_one_run_and_is_completed(mlflow_server: MlflowServer, unique: str) -> None:
    experiment_id = ask(mlflow_server, "experiments/create", name=unique)["experiment_id"]
    begun = [{"key": "penstock.run_id", "value": RUN.run_id}]
    ask(mlflow_server, "runs/create", experiment_id=experiment_id, start_time=RUN.start_ms, tags=begun)
    many = replace(RUN, parameters={f"parameter_{number}": number for number in range(250)})
    assert track(mlflow_server.uri, unique, many) == track(mlflow_server.uri, unique, many)
    track(mlflow_server.uri, unique, replace(RUN, run_id="flights-8"))
    [second, first] = sorted(runs_of(mlflow_server, unique), key=lambda run: len(run["data"]["params"]))
    assert (len(second["data"]["params"]), len(first["data"]["params"])) == (4, 250)
    assert first["info"]["status"] == "FINISHED"
    assert file_of(mlflow_server, first, "card.md") == b"# Flights"


def test_two_first_runs_of_an_experiment_may_come_at_once(mlflow_server: MlflowServer, unique: str) -> None:
    runs = [replace(RUN, run_id=f"flights-{number}", artifacts={}) for number in range(2)]
    with ThreadPoolExecutor(2) as threads:
        links = list(threads.map(lambda run: track(mlflow_server.uri, unique, run), runs))
    assert len(set(links)) == len(runs_of(mlflow_server, unique)) == 2


def test_a_login_is_used_and_never_shown(mlflow_server: MlflowServer, unique: str) -> None:
    uri = mlflow_server.uri.replace("http://", f"http://somebody:{CANARY}@")
    link = track(uri, unique, replace(RUN, artifacts={}))
    assert link.startswith(f"{mlflow_server.uri}/#/")
    nobody = f"http://somebody:{CANARY}@127.0.0.1:{free_port()}"
    with pytest.raises(TrackingFailed, match=r"MLflow at http://127.0.0.1:\d+ failed: nothing answers") as caught:
        track(nobody, unique, RUN)
    assert CANARY not in str(caught.value)


def test_an_experiment_that_was_deleted_is_said_so(mlflow_server: MlflowServer, unique: str) -> None:
    experiment_id = ask(mlflow_server, "experiments/create", name=unique)["experiment_id"]
    ask(mlflow_server, "experiments/delete", experiment_id=experiment_id)
    with pytest.raises(TrackingFailed, match="active"):
        track(mlflow_server.uri, unique, RUN)


def test_a_server_that_takes_the_connection_and_says_nothing_costs_no_more_than_the_time_given(unique: str) -> None:
    with listener() as port:
        began = time.monotonic()
        with pytest.raises(TrackingFailed, match=rf"MLflow at http://127.0.0.1:{port} did not take the run within 3 s"):
            track(f"http://127.0.0.1:{port}", unique, RUN, timeout_s=3)
        assert time.monotonic() - began < 4
    assert multiprocessing.active_children() == []


def test_a_server_that_stops_answering_in_the_middle_costs_no_more_either(
    mlflow_server: MlflowServer, unique: str
) -> None:
    mlflow_server.pause()
    try:
        with pytest.raises(TrackingFailed, match="did not take the run within 3 s"):
            track(mlflow_server.uri, unique, RUN, timeout_s=3)
    finally:
        mlflow_server.resume()
    track(mlflow_server.uri, unique, RUN)
    assert len(runs_of(mlflow_server, unique)) == 1


def test_a_server_that_is_no_mlflow_is_said_so(unique: str) -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(TrackingFailed, match=r"failed: MlflowException: .*404"):
            track(f"http://127.0.0.1:{server.server_port}", unique, RUN)
        server.shutdown()


@pytest.mark.parametrize("uri", ["nonsense://x", f"http://[{CANARY}"])
def test_an_address_that_is_none_is_said_so(uri: str, unique: str) -> None:
    with pytest.raises(TrackingFailed) as caught:
        track(uri, unique, RUN)
    assert CANARY not in str(caught.value)


def test_a_server_without_tls_is_not_called_silent(mlflow_server: MlflowServer, unique: str) -> None:
    with pytest.raises(TrackingFailed, match="SSL"):
        track(mlflow_server.uri.replace("http:", "https:"), unique, RUN)


def test_files_that_do_not_fit_on_the_disk_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unique: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "full"))
    with pytest.raises(TrackingFailed, match="could not be prepared for MLflow"):
        track("http://127.0.0.1:9", unique, RUN)


def test_without_the_extra_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch, unique: str) -> None:
    monkeypatch.setattr("stores.tracking.find_spec", lambda name: None)
    with pytest.raises(TrackingFailed, match=r"pip install 'penstock\[mlflow\]'"):
        track("http://127.0.0.1:9", unique, RUN)


def test_whoever_tracks_does_not_load_mlflow_and_its_process_ends_with_it(unique: str, tmp_path: Path) -> None:
    with listener() as port:
        program = tmp_path / "tracking.py"
        program.write_text(
            "import multiprocessing, os, sys, threading, time\n"
            "from stores.tracking import TrackedRun, track\n"
            "def leave():\n"
            "    while not multiprocessing.active_children():\n"
            "        time.sleep(0.01)\n"
            "    [child] = multiprocessing.active_children()\n"
            "    print(child.pid, 'mlflow' in sys.modules, flush=True)\n"
            "    os._exit(9)\n"
            "if __name__ == '__main__':\n"
            "    threading.Thread(target=leave).start()\n"
            "    what = dict(parameters={}, metrics={}, artifacts={}, start_ms=0, end_ms=0)\n"
            f"    track('http://127.0.0.1:{port}', 'x', TrackedRun(run_id='a', name='a', **what))\n"
        )
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        ended = subprocess.run(
            [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    process_id, loaded = ended.stdout.split()
    assert loaded == "False"
    give_up = time.monotonic() + 10
    while Path(f"/proc/{process_id}/cmdline").exists() and Path(f"/proc/{process_id}/cmdline").read_bytes():
        assert time.monotonic() < give_up
        time.sleep(0.05)
