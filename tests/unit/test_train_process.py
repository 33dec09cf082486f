"""The process of a training run: it says what it does, stands back, and never outlives whoever wants it."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from agents.train import process
from agents.train.job import Failed, Kept, Made, Progress, Said
from agents.train.process import Target, run_apart
from tests.training import crash, describe, is_beating, job_of, linger, made_of, raise_error, talk


async def words_of(target: Target, training_dir: str = "") -> list[Said]:
    async with aclosing(run_apart(job_of(training_dir), target)) as words:
        return [said async for said in words]


async def test_what_a_run_says_arrives_in_order_and_its_last_word_ends_it() -> None:
    said = await words_of(talk)
    assert said == [Progress(phase="fit", share=0.5), Kept(sha256="0" * 64, size_bytes=3), made_of(job_of())]
    assert isinstance(said[-1], Made)


async def test_a_process_that_ends_without_a_last_word_is_a_failure_that_is_tried_again() -> None:
    assert await words_of(crash) == [
        Progress(phase="fit"),
        Failed(message="the process of the run has ended (exit code 3); see the worker's log", again=True),
    ]


async def test_a_process_that_raises_is_a_failure_too(capfd: pytest.CaptureFixture[str]) -> None:
    [said] = await words_of(raise_error)
    assert said == Failed(message="the process of the run has ended (exit code 1); see the worker's log", again=True)
    assert "nobody thought of this" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an idle class")
async def test_a_run_has_the_processor_when_nobody_else_wants_it_and_the_threads_that_it_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    [said] = await words_of(describe)
    assert said == Failed(message=f"{os.SCHED_IDLE} {['1', '1', '1']} True", again=False)
    assert (os.environ["OMP_NUM_THREADS"], os.environ.get("MKL_NUM_THREADS")) == ("7", None)


async def test_a_run_that_is_given_up_ends_with_all_that_it_started(tmp_path: Path) -> None:
    async with aclosing(run_apart(job_of(str(tmp_path)), linger)) as words:
        pid = int((await anext(words)).message)
        assert is_beating(tmp_path / "beat")
    assert not is_running(pid)
    assert not is_beating(tmp_path / "beat")


async def test_a_run_that_is_killed_takes_along_what_it_started_and_is_tried_again(tmp_path: Path) -> None:
    async with aclosing(run_apart(job_of(str(tmp_path)), linger)) as words:
        os.kill(int((await anext(words)).message), signal.SIGKILL)
        said = await anext(words)
        assert isinstance(said, Failed)
        assert (said.again, "exit code -9" in said.message) == (True, True)
        assert not is_beating(tmp_path / "beat")


async def test_a_run_pays_no_attention_to_a_signal_that_is_meant_for_the_worker(tmp_path: Path) -> None:
    async with aclosing(run_apart(job_of(str(tmp_path)), linger)) as words:
        pid = int((await anext(words)).message)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        await asyncio.sleep(0.1)
        assert is_running(pid)


async def test_a_caller_that_is_cancelled_twice_waits_for_nothing_and_the_run_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = process._kill
    monkeypatch.setattr(process, "_kill", lambda run: threading.Timer(0.7, kill, [run]).start())
    said = asyncio.Queue[Said]()

    async def follow() -> None:
        async with aclosing(run_apart(job_of(str(tmp_path)), linger)) as words:
            async for word in words:
                said.put_nowait(word)

    following = asyncio.create_task(follow())
    pid = int((await said.get()).message)
    begun = time.monotonic()
    for _ in range(2):
        following.cancel()
        await asyncio.sleep(0.05)
    assert following.cancelled()
    assert time.monotonic() - begun < 0.5
    await ends(pid)
    assert not is_beating(tmp_path / "beat")


def test_an_interpreter_that_ends_in_the_middle_of_a_run_ends_it_and_does_not_wait_for_it(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from agents.train.process import run_apart\n"
        "from tests.training import job_of, linger\n"
        "if __name__ == '__main__':\n"
        "    words = run_apart(job_of(sys.argv[1]), linger)\n"
        "    print(asyncio.new_event_loop().run_until_complete(anext(words)).message)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert not is_running(int(ended.stdout))
    assert not is_beating(tmp_path / "beat")


def test_a_run_does_not_outlive_a_worker_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from agents.train.process import run_apart\n"
        "from tests.training import job_of, linger\n"
        "async def main():\n"
        "    async for said in run_apart(job_of(sys.argv[1]), linger):\n"
        "        print(said.message, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    with worker.stdout:
        pid = int(worker.stdout.readline())
        assert is_beating(tmp_path / "beat")
        worker.kill()
        worker.wait()
    asyncio.run(ends(pid))
    assert not is_beating(tmp_path / "beat")


async def ends(pid: int) -> None:
    """Wait until the process has ended, for a while."""
    for _ in range(250):
        if not is_running(pid):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it runs still")


def is_running(pid: int) -> bool:
    """Whether there is a process with this number that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may end while it is looked at
        return False
