"""Where a learner lives: in this process, or, when learning is slow, in one of its own.

Either way its methods are called by name and awaited. A process that has ended is an error that opening the task
again mends: the learner is restored from its checkpoint.
"""

import asyncio
import multiprocessing
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from schemas.errors import RetryableError

Build = Callable[[], Any]
T = TypeVar("T")


class Host(Protocol):
    """Keeps one object, made by `start`, until `close`."""

    async def start(self, build: Build) -> None:
        """Make the object with `build`, which can be pickled; what was there before is gone."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object and return what it returns, or raise what it raises. One call at a time."""

    async def close(self) -> None:
        """Give up the object. Never raises."""


class Here:
    """Keeps the object in this process: for what takes microseconds per sample."""

    def __init__(self) -> None:
        self._object: Any = None

    async def start(self, build: Build) -> None:
        self._object = await asyncio.to_thread(build)  # importing the library takes a second

    async def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._object, method)(*arguments)

    async def close(self) -> None:
        self._object = None


class Apart:
    """Keeps the object in a process of its own, which ends with this one: the event loop here is never held."""

    def __init__(self, ended: str = "the learner's process has ended (exit code {code}); it is started again") -> None:
        """`ended` is what is said when the process has ended by itself."""
        self._said = ended
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._starting: asyncio.Future[None] | None = None
        # Threads of its own: an answer may take long, and others wait for the loop's.
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="learner")

    async def start(self, build: Build) -> None:
        await self.close()
        context = multiprocessing.get_context("spawn")  # a fork would copy the event loop and its connections
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build), daemon=True, name="penstock learner")
        self._starting = self._in_thread(_start, self._process, theirs)
        await asyncio.shield(self._starting)
        await self._answer()

    async def call(self, method: str, *arguments: Any) -> Any:
        if self._pipe is None:
            raise RetryableError("the learner's process was not started")
        try:
            await self._in_thread(self._pipe.send, (method, arguments))
        except OSError as error:
            raise self._ended() from error
        return await self._answer()

    async def close(self) -> None:
        process, pipe, starting = self._process, self._pipe, self._starting
        self._process = self._pipe = self._starting = None
        if starting is not None:
            await asyncio.wait({starting})  # it may have been left half way; only what has started can be killed
        if process is not None and process.pid is not None:
            process.kill()  # this also ends a call that waits in the thread
            await self._in_thread(process.join)
            process.close()
        if pipe is not None:
            pipe.close()

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _answer(self) -> Any:
        assert self._pipe is not None
        try:
            good, answer = await self._in_thread(self._pipe.recv)
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if good:
            return answer
        raise answer

    def _ended(self) -> RetryableError:
        code = self._process.exitcode if self._process is not None else None
        return RetryableError(self._said.format(code=code))


def _start(process: BaseProcess, theirs: Connection) -> None:
    try:
        process.start()
    finally:
        theirs.close()  # so that their end closes with them


def _serve(pipe: Connection, build: Build) -> None:
    """Make the object and answer calls until the other end is closed, as it is when its process dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the worker ends us when it is done
    kept: Any = None
    while True:
        try:
            if kept is None:
                kept, answer = build(), None
            else:
                method, arguments = pipe.recv()
                answer = getattr(kept, method)(*arguments)
            pipe.send((True, answer))
        except (EOFError, OSError):
            return
        except Exception as error:  # noqa: BLE001  # whoever called is told
            pipe.send((False, _portable(error)))
            if kept is None:
                return


def _portable(error: Exception) -> Exception:
    """Return the error, or, when it cannot be sent, one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # foreign errors fail in any way here
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
