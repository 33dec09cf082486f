"""What can happen to a stream's workers and its broker, and the two workers it happens to."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.plain import until
from benchmarks.recovery import Recoveries
from benchmarks.workers import Penstock, Worker
from tests.kafka.server import KafkaServer

SESSION_TIMEOUT_S: Final = 6.0
_FREEZE_S: Final = SESSION_TIMEOUT_S + 4
_PATIENCE_S: Final = 120.0
_LONGEST_PAUSE_S: Final = 6.0
_OVERLAP_SHARE: Final = 0.25
_WAKING_S: Final = 3.0


class Scene:
    """A broker, two workers, and what is done to them, by a random generator of one's own.

    A fault waits until its worker has committed outputs since its last start. A worker that ends by itself, or not with
    exit code 0 when told to end, raises RuntimeError with the end of its log.
    """

    def __init__(
        self,
        server: KafkaServer,
        penstock: Penstock,
        recoveries: Recoveries,
        rng: random.Random,
        tell: Callable[[str], None],
    ) -> None:
        self._server = server
        self._penstock = penstock
        self._recoveries = recoveries
        self._random = rng
        self._tell = tell
        self._workers: dict[str, Worker] = {}

    def start(self) -> None:
        """Start both workers and wait until they are ready."""
        for name in ("worker-a", "worker-b"):
            self._start(name)
        for worker in self._workers.values():
            worker.wait_until_ready()

    def play(self, kills: int, others: Sequence[Callable[[], None]]) -> None:
        """Kill `kills` times, with the `others` spread evenly in between.

        Some kills come before the last one is over; the others, and the other faults, find a stream that flows.
        """
        for number in range(kills):
            first, last = (len(others) * n // kills for n in (number, number + 1))
            for fault in others[first:last]:
                self._wait_until_it_flows()
                fault()
                self._wait_until_it_flows()
            if self._random.random() >= _OVERLAP_SHARE:
                self._wait_until_it_flows()
            time.sleep(self._random.uniform(0, _LONGEST_PAUSE_S))
            self._tell(f"kill {number + 1} of {kills}: {self.kill()}")
        self._wait_until_it_flows()

    def kill(self) -> str:
        """Kill a worker (SIGKILL), start it again and return its name."""
        worker = self._pick()
        worker.kill()
        self._recoveries.blow("kill")
        self._start(worker.name)
        return worker.name

    def freeze(self) -> None:
        """Stop a worker past its session time-out (SIGSTOP): the group goes on without it, and then it wakes up."""
        worker = self._pick()
        self._tell(f"freeze {worker.name} for {_FREEZE_S:.0f} s")
        worker.send(signal.SIGSTOP)
        self._recoveries.blow("freeze")
        time.sleep(_FREEZE_S)
        worker.send(signal.SIGCONT)
        time.sleep(_WAKING_S)  # time for what it still had in hand to do harm, if anything lets it

    def end(self) -> None:
        """Ask a worker to end (SIGTERM), as a deployment does, and start it again."""
        worker = self._pick()
        self._tell(f"end {worker.name}")
        _require_clean_end(worker)
        self._recoveries.blow("end")
        self._start(worker.name)

    def restart_broker(self) -> None:
        """Restart Kafka under everybody's feet."""
        self._tell("restart the broker")
        self._server.stop()
        self._recoveries.blow("broker_restart")
        self._server.start()

    def stop(self) -> None:
        """Ask both workers to end."""
        for worker in self._workers.values():
            _require_clean_end(worker)

    def _wait_until_it_flows(self) -> None:
        until(self._recoveries.over, "every partition to show predictions again", _PATIENCE_S)

    def _start(self, name: str) -> None:
        self._workers[name] = self._penstock.worker(name)

    def _pick(self) -> Worker:
        """Choose a worker and wait until it has committed outputs since its start."""
        worker = self._workers[self._random.choice(sorted(self._workers))]

        def has_produced() -> bool:
            for each in self._workers.values():
                each.check()
            return worker.metric("ml_commit_seconds_count", stage="score") > 0

        until(has_produced, f"{worker.name} to produce something", _PATIENCE_S, 0.2)
        return worker


def _require_clean_end(worker: Worker) -> None:
    if exit_code := worker.end():
        raise RuntimeError(f"{worker.name} ended with {exit_code} when told to end:\n{worker.log_end()}")
