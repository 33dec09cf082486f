"""A contestant's processes end with its turn, however that ends; one that fails is told by name."""

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.peers import turns
from benchmarks.peers.contestants import PeerProcess, Running
from benchmarks.peers.course import Course
from benchmarks.peers.outputs import Events, Outputs
from benchmarks.peers.turns import ContestantFailed, Turn, wait_for_answer
from benchmarks.plain import Row

# Its child ignores SIGTERM, as does what came of a framework that forks.
FAMILY = """\
import signal, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
print("started", flush=True)
time.sleep(60)
"""


class Script:
    """A contestant that is a line of Python, and only starts."""

    name = "script"
    versions: Mapping[str, str] = {}

    def __init__(self, code: str) -> None:
        self._code = code

    def start(self, course: Course, turn: str, folder: Path, cpus: frozenset[int]) -> Running:
        return PeerProcess([sys.executable, "-c", self._code], folder, cpus)

    def finished(self, course: Course, turn: str, events: int) -> bool:
        return False

    def histogram_differences(
        self, course: Course, events: Events, outputs: Outputs, rows: Iterable[Row], *, partial: bool
    ) -> list[str]:
        return []


def a_turn(folder: Path, code: str) -> Turn:
    course: Any = None
    return Turn("script-0", Script(code), course, folder, frozenset())


def a_family(running: Running) -> list[psutil.Process]:
    deadline = time.monotonic() + 20
    while not (children := psutil.Process(running.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [psutil.Process(running.pid), *children]


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=5)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_the_whole_family_ends_with_the_turn(tmp_path: Path) -> None:
    with a_turn(tmp_path, FAMILY).running() as running:
        family = a_family(running)
        assert len(family) == 2
    assert gone(family)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_whole_family_ends_when_the_benchmark_is_stopped(tmp_path: Path, stop: type[BaseException]) -> None:
    with pytest.raises(stop), a_turn(tmp_path, FAMILY).running() as running:
        family = a_family(running)
        raise stop
    assert gone(family)


def test_one_that_ends_by_itself_has_failed_and_its_last_words_are_told(tmp_path: Path) -> None:
    turn = a_turn(tmp_path, "raise SystemExit('no licence')")
    with pytest.raises(ContestantFailed, match=r"(?s)^script: ended with 1:\n.*no licence"), turn.running() as running:
        wait_for_answer(running, lambda: False)


def test_one_that_ended_with_zero_has_failed_as_well(tmp_path: Path) -> None:
    with pytest.raises(ContestantFailed, match="script: ended with 0"), a_turn(tmp_path, "").running() as running:
        wait_for_answer(running, lambda: False)


def test_one_that_never_answers_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "ANSWER_S", 0.2)
    turn = a_turn(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(ContestantFailed, match="no prediction within"), turn.running() as running:
        wait_for_answer(running, lambda: False)


def test_no_setting_of_penstock_reaches_a_peer_and_the_common_work_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_KAFKA_BOOTSTRAP", "elsewhere")
    code = "import os, time; print([n for n in os.environ if n[:3] == 'ML_'], os.environ['PYTHONPATH'][-12:])"
    code += "; time.sleep(60)"
    with a_turn(tmp_path, code).running():
        log = tmp_path / "script-0" / "log"
        deadline = time.monotonic() + 20
        while not log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert log.read_text() == "[] peers/common\n"
