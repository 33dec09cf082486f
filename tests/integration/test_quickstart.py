"""The quick start, done as it is written: from a CSV file to predictions, and to the alert about what went wrong."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.embedded import EmbeddedBroker
from tests.command_line import PROGRAM, Ended, Penstock, eventually, without_settings
from tests.documents import blocks, lines_of_commands

PAGE = "docs/quickstart.md"
ANYWHERE = {"ML_METRICS_PORT": "0", "ML_PAGE_PORT": "0"}


def test_a_newcomer_comes_from_a_csv_file_to_predictions_and_an_alert(penstock: Penstock, tmp_path: Path) -> None:
    [make_files] = blocks(PAGE, "python")
    exec(compile(make_files, PAGE, "exec"), {})
    said: dict[str, list[str]] = {}
    with EmbeddedBroker() as broker:
        environ = {"ML_KAFKA_BOOTSTRAP": broker.bootstrap} | ANYWHERE
        with worker(tmp_path, environ) as start_worker:
            for words in lines_of_commands(PAGE, "penstock"):
                if words == ["dev"]:
                    continue
                if words == ["worker"]:
                    start_worker()
                    continue
                words = [said["models train"][-2] if word == "MODEL_ID" else word for word in words]
                command = " ".join(words[:2])
                said[command] = done(penstock, words, environ).out.splitlines()
                check(command, said[command], tmp_path)
    assert {"models promote", "stream send", "stream tail", "drift show", "doctor", "audit"} <= said.keys()
    alerts = {(alert["kind"], alert["severity"], alert["subject"]) for alert in map(json.loads, said["stream tail"])}
    assert ("drift", "critical", "amount") in alerts
    assert f"* {said['models train'][-2]}" in " ".join(" ".join(said["models list"]).split())


def done(penstock: Penstock, words: list[str], environ: dict[str, str]) -> Ended:
    """Run a command, and one that looks at the stream as often as it takes until there is something to see."""
    if words[:2] not in (["stream", "tail"], ["drift", "show"]):
        ended = penstock(*words, **environ)
        assert ended.code == 0, ended
        return ended
    awaited = '"critical"' if "alerts" in words else ""

    def look() -> Ended | None:
        ended = penstock(*words, **environ)
        return ended if ended.code == 0 and ended.out and awaited in ended.out else None

    found = eventually(look)
    assert isinstance(found, Ended)
    return found


def check(command: str, lines: list[str], folder: Path) -> None:
    """What the page shows of a command is what it prints, but for the figures."""
    if command == "stream init":
        shown, written = blocks(PAGE, "toml")[0], (folder / "penstock.toml").read_text(encoding="utf-8")
        assert without_figures(shown) == without_figures(written)
    elif command == "models train":
        [shown] = [block for block in blocks(PAGE, "text") if "\nTrained on" in block]
        assert [without_figures(line) for line in lines] == [without_figures(line) for line in shown.splitlines()]
    else:
        assert lines, command


def without_figures(text: str) -> str:
    return re.sub(r"payments-\d+T\d+-[0-9a-f]+", "MODEL_ID", re.sub(r"(?<![\w-])[+-]?\d[\d,.:%-]*(?![\w-])", "#", text))


@contextmanager
def worker(folder: Path, environ: dict[str, str]) -> Iterator[Callable[[], None]]:
    """Give what starts the worker in a process of its own; it must end well."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (folder / "worker.log").open("wb") as log:
            started.append(
                subprocess.Popen([PROGRAM, "worker"], cwd=folder, env=without_settings() | environ, stderr=log)
            )

    try:
        yield start
    finally:
        for process in started:
            process.terminate()
            assert process.wait(30) == 0, (folder / "worker.log").read_text()
