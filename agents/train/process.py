"""The process of a run: apart from the stream, after it in the queue for the processor, and never longer than it.

It is the first of a process group of its own. Whoever ends it ends the whole group, and so does the process itself when
the other end of its pipe is gone, however the worker ended. So nothing that a run started outlives the run.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Final

from agents.train.faults import told
from agents.train.job import Failed, Job, Made, Said

log = logging.getLogger("penstock.train")

Say = Callable[[Said], None]
Target = Callable[[Job, Say], None]
"""Does a job and says what it is at, and last what came of it; can be pickled."""

_LAST_NICENESS: Final = 19
_READ_AT_IMPORT: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # by numpy and its kind
_spawning = threading.Lock()  # the environment is everybody's


def do(job: Job, say: Say) -> None:
    """Make the run. Its libraries are only loaded here, in the run's own process."""
    from agents.train.run import run_job

    run_job(job, say)


async def run_apart(job: Job, target: Target = do) -> AsyncGenerator[Said, None]:
    """Do `job` in a process of its own, and yield what it says; the last is always Made or Failed.

    A process that cannot be started, or ends without a last word, is a failure that may pass. To be closed by the
    caller, perhaps in the middle: then the process is killed, with all that it started, however often the caller is
    cancelled while it waits for that. Nothing here takes the event loop more than a millisecond.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy the event loop and its connections
    ours, theirs = context.Pipe()
    # Should this process end without closing it, it is waited for as a daemon is; so it is killed before that.
    process = context.Process(target=_serve, args=(theirs, job, target), daemon=True, name=f"penstock {job.run_id}")
    at_exit = Finalize(None, _kill, args=(process,), exitpriority=0)
    threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="train")
    in_thread = partial(asyncio.get_running_loop().run_in_executor, threads)
    starting = asyncio.ensure_future(in_thread(_start, process, theirs, job.resources.threads))
    ended = False

    async def clear() -> None:
        await asyncio.wait({starting})  # only what has started can be killed
        if not ended:
            _kill(process)
            at_exit.cancel()
            if process.pid is not None:
                await in_thread(process.join)
        process.close()
        ours.close()
        threads.shutdown(wait=False)

    try:
        await asyncio.shield(starting)
        while (said := await in_thread(_receive, ours)) is not None:
            yield said
            if isinstance(said, Made | Failed):
                return
        await in_thread(wait, [process.sentinel])
        _kill(process)
        at_exit.cancel()
        ended = True
        await in_thread(process.join)
        why = f"the process of the run has ended (exit code {process.exitcode}); see the worker's log"
        yield Failed(message=why, again=True)
    except OSError as error:
        yield Failed(message=f"the process of the run cannot be started: {error}", again=True)
    finally:
        await asyncio.shield(asyncio.ensure_future(clear()))


def _kill(process: BaseProcess) -> None:
    """Kill the process, if it has started, which also ends a call that waits for it, and its group.

    Not to be called any more when the process has been waited for: its number may be another's.
    """
    if process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # it may not have come to its group yet


def _start(process: BaseProcess, theirs: Connection, threads: int) -> None:
    """Start the process, from its first moment behind everybody else and with so many threads in its libraries."""
    try:
        with _spawning, _environment(dict.fromkeys(_READ_AT_IMPORT, str(threads))):
            process.start()
        assert process.pid is not None
        _set_back(process.pid)
    finally:
        theirs.close()  # so that their end closes with them


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Let processes that are started meanwhile have these variables."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _set_back(pid: int) -> None:
    """Let everybody else have the processor before this process, and before the threads that it starts from now on."""
    with contextlib.suppress(ProcessLookupError):  # it is over already
        try:
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        except (AttributeError, OSError):  # not Linux, or it is forbidden here
            os.setpriority(os.PRIO_PROCESS, pid, _LAST_NICENESS)


def _receive(pipe: Connection) -> Said | None:
    """Return the next word, None after the last. What cannot be read is a failure like any other."""
    try:
        said: Said = pipe.recv()
    except (EOFError, OSError):
        return None
    except Exception as error:  # noqa: BLE001  # unpickling fails in any way
        return Failed(message=f"the run's words cannot be read ({told(error)})", again=False)
    return said


def _serve(pipe: Connection, job: Job, target: Target) -> None:
    """Do the job; the main function of the process."""
    os.setsid()
    multiprocessing.current_process().daemon = False  # a search starts processes of its own
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a signal to all means the worker, which ends us when it is done
    threading.Thread(target=_end_with, args=(pipe,), name="worker-watch", daemon=True).start()
    turn = threading.Lock()

    def say(said: Said) -> None:
        with turn:
            pipe.send(said)

    target(job, say)


def _end_with(pipe: Connection) -> None:
    """End this process and what it started when the worker's end of the pipe is gone."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os.killpg(0, signal.SIGKILL)
