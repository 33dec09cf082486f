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
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from agents.train.faults import told
from agents.train.job import Failed, Job, Made, Said

log = logging.getLogger("penstock.train")

Say = Callable[[Said], None]
Target = Callable[[Job, Say], None]
"""Does a job and says what it is at, and last what came of it; can be pickled."""

_LAST_NICENESS: Final = 19


def do(job: Job, say: Say) -> None:
    """Make the run. Its libraries are only loaded here, in the run's own process."""
    from agents.train.run import run_job

    run_job(job, say)


async def run_apart(job: Job, target: Target = do) -> AsyncGenerator[Said, None]:
    """Do `job` in a process of its own, and yield what it says; the last is always Made or Failed.

    A process that cannot be started, or ends without a last word, is a failure that may pass. To be closed by the
    caller, perhaps in the middle: then the process is killed, with all that it started. Nothing here takes the event
    loop more than a millisecond.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy the event loop and its connections
    ours, theirs = context.Pipe()
    # To us it is a daemon, so that it is ended and not waited for, should this process end without closing it.
    process = context.Process(target=_serve, args=(theirs, job, target), daemon=True, name=f"penstock {job.run_id}")
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="train") as threads:  # by then it has nothing to do
        in_thread = partial(asyncio.get_running_loop().run_in_executor, threads)
        ended = False
        starting = asyncio.ensure_future(in_thread(_start, process, theirs))
        try:
            await asyncio.shield(starting)
            while (said := await in_thread(_receive, ours)) is not None:
                yield said
                if isinstance(said, Made | Failed):
                    return
            await in_thread(wait, [process.sentinel])
            ended = True
            await _end(process, in_thread)
            yield Failed(message=f"the process of the run has ended (exit code {process.exitcode})", again=True)
        except OSError as error:
            yield Failed(message=f"the process of the run cannot be started: {error}", again=True)
        finally:
            await asyncio.wait({starting})  # only what has started can be killed
            if process.pid is not None and not ended:
                await _end(process, in_thread)
            process.close()
            ours.close()


async def _end(process: BaseProcess, in_thread: Callable[..., Awaitable[object]]) -> None:
    """Kill the process, which also ends a call that waits for it, and its group.

    To be called once: when the process has been waited for, its number may be another's.
    """
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # it may not have come to its group yet
    await in_thread(process.join)


def _start(process: BaseProcess, theirs: Connection) -> None:
    try:
        process.start()
    finally:
        theirs.close()  # so that their end closes with them


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
    _step_back(job.resources.threads)
    threading.Thread(target=_end_with, args=(pipe,), name="worker-watch", daemon=True).start()
    turn = threading.Lock()

    def say(said: Said) -> None:
        with turn:
            pipe.send(said)

    target(job, say)


def _step_back(threads: int) -> None:
    """Let everybody else have the processor first, and libraries that are loaded from now on use so many threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # not Linux, or it is forbidden here
        os.nice(_LAST_NICENESS)


def _end_with(pipe: Connection) -> None:
    """End this process and what it started when the worker's end of the pipe is gone."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os.killpg(0, signal.SIGKILL)
