"""A real Redis server for tests: the one of the embedded Redis, but on a port, with a password, and easy to kill."""

import os
import signal
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

from app.embedded_redis import redis_server
from tests.command_line import free_port


class RedisServer:
    """One server on 127.0.0.1 that keeps nothing; `start` and `kill` may alternate, on the same port."""

    def __init__(self, password: str = "") -> None:
        self.port = free_port()
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--requirepass", self._password]
        self._process = subprocess.Popen([redis_server(), *options], stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < give_up, "Redis does not start"
                time.sleep(0.01)

    def kill(self) -> None:
        """End it as kill -9 does; what it held is lost."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self._process
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        assert self._process
        os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
