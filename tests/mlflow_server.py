"""A real MLflow server for tests: `mlflow server` on a free port, with SQLite and a folder in `root`."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.command_line import free_port

_START_S: Final = 90
_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


class MlflowServer:
    """One server on 127.0.0.1; it keeps what is written for as long as `root` is there."""

    def __init__(self, root: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        kept = ["--backend-store-uri", f"sqlite:///{self._root}/mlflow.db"]
        files = ["--artifacts-destination", str(self._root / "artifacts")]
        with (self._root / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options, *kept, *files],
                cwd=self._root,
                env=os.environ | _ENVIRONMENT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        give_up = time.monotonic() + _START_S
        while not self._answers():
            said = (self._root / "server.log").read_text(errors="replace")
            assert self._process.poll() is None, f"MLflow ended: {said}"
            assert time.monotonic() < give_up, f"MLflow does not start: {said}"
            time.sleep(0.1)

    def pause(self) -> None:
        """Let it accept connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and the processes that it started."""
        self._signal(signal.SIGKILL)
        assert self._process
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        os.killpg(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
