"""Penstock from outside: its commands and worker processes, as an operator would run them."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.plain import until
from tests.command_line import free_port
from tests.kafka.server import on_cpus

_PENSTOCK: Final = str(Path(sys.executable).with_name("penstock"))
_COMMAND_TIMEOUT_S: Final = 120.0
_READY_TIMEOUT_S: Final = 90.0
_DRAIN_TIMEOUT_S: Final = 60.0


class Penstock:
    """One deployment: a folder with penstock.toml, artifacts and logs, and the cluster it works on.

    Workers that still run at the end of its block are killed.
    """

    def __init__(self, folder: Path, bootstrap: str, config: str, **settings: object) -> None:
        self.folder = folder
        self.bootstrap = bootstrap
        (folder / "penstock.toml").write_text(config, encoding="utf-8")
        self._settings = {"kafka_bootstrap": bootstrap, "model_storage_dir": folder / "artifacts"} | settings
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def run(self, *arguments: str) -> Any:
        """Run `penstock ARGUMENTS --json` and return what it says; a failure raises with its words."""
        command = [_PENSTOCK, *arguments, "--json"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment({}),
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def worker(self, name: str, *roles: str, cpus: Collection[int] = (), **settings: object) -> "Worker":
        """Start a worker process with these roles (all, when none is named), pinned to `cpus`."""
        arguments = [word for role in roles for word in ("--role", role)]
        return self.start(name, [_PENSTOCK, "worker", *arguments], cpus, **settings)

    def start(self, name: str, command: Sequence[str], cpus: Collection[int] = (), **settings: object) -> "Worker":
        """Start a process that is a worker, pinned to `cpus`."""
        port = free_port()
        log = self.folder / f"{name}.log"
        with log.open("ab") as output, on_cpus(cpus):
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment(settings | {"metrics_port": port}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._processes.append(process)
        return Worker(name, process, port, log)

    def deploy(self, stream: str, model_file: Path, baseline_data: Path | None = None) -> str:
        """Register the model, with a baseline if there is data for one, make it the champion, and return its id."""
        words = ["--baseline-data", str(baseline_data)] if baseline_data else []
        model_id: str = self.run("models", "register", "--stream", stream, "--file", str(model_file), *words)[
            "model_id"
        ]
        control = self.worker("control", "learn")
        try:
            control.wait_until_ready()
            self.run("models", "promote", model_id, "--stream", stream)
        finally:
            control.end()
        return model_id

    def _environment(self, settings: dict[str, object]) -> dict[str, str]:
        """Return the environment without the caller's own settings of Penstock."""
        own = {f"ML_{name.upper()}": str(value) for name, value in (self._settings | settings).items()}
        return {name: value for name, value in os.environ.items() if not name.startswith("ML_")} | own


class Worker:
    """One worker process, its log and its pages."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._pages = f"http://127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def ready(self) -> bool:
        """Whether /health says so."""
        try:
            with urllib.request.urlopen(f"{self._pages}/health", timeout=2):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def wait_until_ready(self) -> None:
        """Wait for /health; raise with the log's end when the process ends instead or takes over 90 s."""
        try:
            until(lambda: self.exit_code is not None or self.ready(), f"{self.name} to be ready", _READY_TIMEOUT_S)
        except TimeoutError as late:
            raise RuntimeError(f"{late}:\n{self.log_end()}") from late
        self.check()

    def tasks(self) -> set[str]:
        """Return the names of the partition tasks that run on it, as /health says; none when that cannot be had."""
        try:
            with urllib.request.urlopen(f"{self._pages}/health", timeout=2) as answer:
                report = json.load(answer)
        except urllib.error.HTTPError as unready:
            with unready:
                report = json.load(unready)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return set()
        return {name for name, state in report["tasks"].items() if state == "running"}

    def check(self) -> None:
        """Raise with the log's end when the process has ended."""
        if self.exit_code is not None:
            raise RuntimeError(f"{self.name} ended with {self.exit_code}:\n{self.log_end()}")

    def log_end(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all its label sets that have `labels`; 0 when it cannot be had."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(value for found, value in self._samples(name) if all(label in found for label in wanted))

    def buckets(self, name: str) -> dict[float, int]:
        """Return how many observations of a histogram without labels were at most so many seconds, by bound."""
        return {float(labels.split('"')[1]): int(value) for labels, value in self._samples(f"{name}_bucket")}

    def _samples(self, name: str) -> list[tuple[str, float]]:
        """Return labels and value of each line of /metrics about `name`; none when the page cannot be had."""
        try:
            with urllib.request.urlopen(f"{self._pages}/metrics", timeout=5) as answer:
                text: str = answer.read().decode()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return []
        lines = re.findall(rf"^{re.escape(name)}(\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return [(labels, float(value)) for labels, value in lines]

    def send(self, which: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(which)

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Ask it to drain and end (SIGTERM); return its exit code. Killed, and -9, when it takes over 60 s."""
        self._process.terminate()
        try:
            return self._process.wait(_DRAIN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL
