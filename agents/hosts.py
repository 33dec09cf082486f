"""Where a learner lives: in this process, or, when learning is slow, in one of its own.

Either way its methods are called by name and awaited. A process that has ended is an error that opening the task
again mends: the learner is restored from its checkpoint.
"""

import asyncio
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from schemas.errors import RetryableError

Build = Callable[[], Any]


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

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    async def start(self, build: Build) -> None:
        await self.close()
        context = multiprocessing.get_context("spawn")  # a fork would copy the event loop and its connections
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build), daemon=True, name="penstock learner")
        await asyncio.to_thread(self._process.start)
        theirs.close()  # so that their end closes with them
        await self._answer()

    async def call(self, method: str, *arguments: Any) -> Any:
        if self._pipe is None:
            raise RetryableError("the learner's process was not started")
        try:
            await asyncio.to_thread(self._pipe.send, (method, arguments))
        except OSError as error:
            raise self._ended() from error
        return await self._answer()

    async def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.join)
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    async def _answer(self) -> Any:
        assert self._pipe is not None
        try:
            good, answer = await asyncio.to_thread(self._pipe.recv)
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if good:
            return answer
        raise answer

    def _ended(self) -> RetryableError:
        code = self._process.exitcode if self._process is not None else None
        return RetryableError(f"the learner's process has ended (exit code {code}); it is started again")


def _serve(pipe: Connection, build: Build) -> None:
    """Make the object and answer calls until the other end is closed, as it is when its process dies."""
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
            pipe.send((False, error))
            if kept is None:
                return
