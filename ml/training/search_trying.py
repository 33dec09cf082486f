"""Trying parameters: one after the other here, or several at a time in processes that end with this one."""

import math
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait

from ml.training.protocol import Stopped, TrainingImpossible, Unwatched, Watch
from ml.training.search_space import Value

Evaluate = Callable[[Mapping[str, Value], Watch], float]
Begin = Callable[[], tuple[int, dict[str, Value]] | None]
IsBehind = Callable[[int, int, float], bool]
End = Callable[[int, float | None, bool, str], None]

_REPORTS = 50


@dataclass(frozen=True, slots=True)
class _Report:
    """The loss of a running trial after `step` rounds; the answer is whether to give it up."""

    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class _Tried:
    """What became of a trial."""

    loss: float | None = None
    pruned: bool = False
    message: str = ""


class _Reporting(Unwatched):
    """Reports the loss of a fit, at most 50 times and at rounds that all fits of its length have in common.

    The first tenth says little about the end, and after the last round there is nothing to give up: neither is
    reported. Where several fits make one trial, only rounds that are beyond all earlier ones are.
    """

    def __init__(self, is_behind: Callable[[int, float], bool]) -> None:
        self._is_behind = is_behind
        self._reached = 0

    def progress(self, done: int, of: int, loss: float | None = None) -> None:
        """Raise Stopped when the trial should be given up."""
        step = done - done % max(1, -(-of // _REPORTS))
        ended = done >= of
        if loss is None or math.isnan(loss) or step <= self._reached or step * 10 < of or ended:
            return
        self._reached = step
        if self._is_behind(step, loss):
            raise Stopped(f"after {step} of {of} rounds, the loss {loss:g} is above the median of the other trials")


def try_here(begin: Begin, is_behind: IsBehind, end: End, evaluate: Evaluate) -> None:
    """Try one after the other, in this thread."""
    while (begun := begin()) is not None:
        index, parameters = begun
        tried = _try(evaluate, parameters, partial(is_behind, index))
        end(index, tried.loss, tried.pruned, tried.message)


def try_in_processes(processes: int, begin: Begin, is_behind: IsBehind, end: End, evaluate: Evaluate) -> None:
    """Try as many at a time as there are processes. Raises what `evaluate` did, and ChildProcessError if one died."""
    with _workers(processes, evaluate) as idle:
        busy: dict[Connection, int] = {}
        while True:
            while idle and (begun := begin()) is not None:
                connection = idle.pop()
                busy[connection], parameters = begun
                connection.send(parameters)
            if not busy:
                return
            for connection in _ready(busy):
                said = _heard(connection)
                if isinstance(said, _Report):
                    connection.send(is_behind(busy[connection], said.step, said.loss))
                    continue
                end(busy.pop(connection), said.loss, said.pruned, said.message)
                idle.append(connection)


def _ready(busy: Iterable[Connection]) -> list[Connection]:
    """Wait until somebody says something, or dies; return all who did."""
    return [connection for connection in wait(list(busy)) if isinstance(connection, Connection)]


@contextmanager
def _workers(processes: int, evaluate: Evaluate) -> Iterator[list[Connection]]:
    """Start processes that try what is sent to them; at the end they are killed, whatever they are at."""
    spawn = multiprocessing.get_context("spawn")
    started, connections = [], []
    try:
        for _ in range(processes):
            ours, theirs = spawn.Pipe()
            connections.append(ours)
            process = spawn.Process(target=_work, args=(theirs, evaluate), name="penstock-trial", daemon=True)
            process.start()
            theirs.close()  # so that we notice when the process dies
            started.append(process)
        yield list(connections)
    finally:
        for process in started:
            process.kill()
            process.join()
            process.close()
        for connection in connections:
            connection.close()


def _heard(connection: Connection) -> _Report | _Tried:
    try:
        said = connection.recv()
    except EOFError:
        raise ChildProcessError(
            "a process of the search died in the middle of a trial; is there too little memory?"
        ) from None
    if isinstance(said, Exception):
        raise said
    assert isinstance(said, _Report | _Tried)
    return said


def _work(connection: Connection, evaluate: Evaluate) -> None:
    """Try what comes until whoever sends it is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def is_behind(step: int, loss: float) -> bool:
        connection.send(_Report(step, loss))
        return bool(connection.recv())

    with suppress(EOFError, BrokenPipeError):  # nobody is there any more
        while True:
            parameters = connection.recv()
            try:
                tried: _Tried | Exception = _try(evaluate, parameters, is_behind)
            except Exception as error:  # noqa: BLE001  # it is raised where the search was called
                tried = _sendable(error)
            connection.send(tried)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    """Return the error, or one with its words where pickle would lose it on the way."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # any class may fail in a way of its own
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _try(evaluate: Evaluate, parameters: Mapping[str, Value], is_behind: Callable[[int, float], bool]) -> _Tried:
    try:
        return _Tried(loss=float(evaluate(parameters, _Reporting(is_behind))))
    except Stopped:
        return _Tried(pruned=True)
    except TrainingImpossible as error:
        return _Tried(message=str(error))
