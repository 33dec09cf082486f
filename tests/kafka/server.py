"""A real Apache Kafka of one node (KRaft) for tests and benchmarks: loopback only, fresh data, free ports.

`python -m tests.kafka.server` runs one in the foreground and prints its address.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafka.jars import class_path, java

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 30.0
# Below the range that the kernel hands out to clients: nobody takes the port while a broker is down for a restart.
_PORTS: Final = range(20_000, 32_000)
_CLUSTER_ID: Final = "cGVuc3RvY2stdGVzdHMtMQ"

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=16777216
"""


@dataclass(frozen=True)
class RunningKafka:
    """A Kafka that somebody else runs: it can be used, but not restarted."""

    bootstrap: str


class KafkaServer:
    """One Kafka process of its own: a context manager, ready to use inside the `with`, gone after it.

    `bootstrap` is its address, the same over restarts, as is the data. `cpus` pins it to those cores. Its log
    is `folder / "server.log"`. Two thirds of its heap are for what is young, so that it seldom stops to collect;
    the `collector` of the JVM called Shenandoah does not stop it, and takes more of the processor.
    Starting takes about 4 s, a restart 3 s.
    Raises KafkaUnavailable when there is no Java or no way to get Kafka.
    """

    def __init__(self, *, heap_mb: int = 768, collector: str = "Serial", cpus: Collection[int] = ()) -> None:
        self._command = [java(), f"-Xmx{heap_mb}m", f"-Xmn{heap_mb * 2 // 3}m"]
        self._command += [f"-XX:+Use{collector}GC", "-XX:+ExitOnOutOfMemoryError"]
        self._command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", class_path()]
        self._cpus = frozenset(cpus)
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-kafka-"))
        port, controller_port = _free_ports(2)
        self.bootstrap = f"127.0.0.1:{port}"
        self._properties = self.folder / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(port=port, controller_port=controller_port, data=self.folder / "data"), encoding="utf-8"
        )

    def start(self) -> None:
        """Start the process and return when it takes part in its cluster of one."""
        assert self._process is None, "this Kafka runs already"
        if not (self.folder / "data").exists():
            self._format()
        with (self.folder / "server.log").open("ab") as log, on_cpus(self._cpus):
            command = [*self._command, "kafka.Kafka", str(self._properties)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait_until_ready(time.monotonic() + _START_TIMEOUT_S)

    def stop(self) -> None:
        """Shut down in good order (SIGTERM); kill what has not ended after 30 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a power cut would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start again, at the same address with the same data."""
        self.stop()
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Freeze the process (SIGSTOP) inside the `with`: connections stay open and nothing answers."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        try:
            os.waitpid(process.pid, os.WUNTRACED)  # it may answer once more until it has stopped
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop and remove all data."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "this Kafka does not run"
        return self._process

    def _end(self, how: signal.Signals) -> None:
        process = self._running()
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a paused process would not see the signal
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def _format(self) -> None:
        command = [*self._command, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(self._properties)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_START_TIMEOUT_S, check=False)
        if done.returncode:
            raise RuntimeError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")

    def _wait_until_ready(self, deadline: float) -> None:
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
        while not _has_broker(client):
            if self._running().poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"Kafka did not start within {_START_TIMEOUT_S:.0f} s:\n{log[-4000:]}")


@contextmanager
def kafka(
    environ: Mapping[str, str], cpus: Collection[int] = (), heap_mb: int = 768, collector: str = "Serial"
) -> Iterator[KafkaServer | RunningKafka]:
    """Give the Kafka that `ML_KAFKA_BOOTSTRAP` in `environ` names, else a server of one's own on `cpus`."""
    bootstrap = environ.get("ML_KAFKA_BOOTSTRAP")
    if bootstrap:
        yield RunningKafka(bootstrap)
        return
    with KafkaServer(heap_mb=heap_mb, collector=collector, cpus=cpus) as server:
        yield server


def _has_broker(client: AdminClient) -> bool:
    try:
        return bool(client.list_topics(timeout=0.5).brokers)
    except KafkaException:
        return False


def _free_ports(count: int) -> list[int]:
    free = (port for port in random.SystemRandom().sample(_PORTS, k=100) if _is_free(port))
    return list(islice(free, count))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def on_cpus(cpus: Collection[int]) -> Iterator[None]:
    """Pin this thread for the moment, because a child process inherits where it may run."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main() -> None:
    """Run a Kafka until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with KafkaServer() as server:
        print(f"Apache Kafka answers at {server.bootstrap}; its data and log: {server.folder}. Ctrl-C ends it.")
        print(f"export ML_KAFKA_BOOTSTRAP={server.bootstrap}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
