"""What can happen to a stream's workers and its broker, and the workers it happens to."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from benchmarks.plain import until
from benchmarks.recovery import Recoveries
from benchmarks.workers import Penstock, Worker
from tests.kafka.server import KafkaServer

SESSION_TIMEOUT_S: Final = 6.0
_FREEZE_S: Final = SESSION_TIMEOUT_S + 4
_PATIENCE_S: Final = 120.0
_OVERLAP_SHARE: Final = 0.25
_WAKING_S: Final = 3.0


@dataclass(frozen=True)
class Duty:
    """Something that workers do, so that a fault can strike one that does it.

    `owns` tells whether a worker has to do it at present, `works` whether it has done some of it since its start.
    """

    name: str
    owns: Callable[[Worker], bool]
    works: Callable[[Worker], bool]


class Scene:
    """A broker, workers, and what is done to them, by a random generator of one's own.

    The faults strike owners of the `duties` in turn, and wait until the owner has worked since its last start. A worker
    that ends by itself, or not with exit code 0 when told to end, raises RuntimeError with the end of its log.
    `struck` counts the kills by duty.
    """

    def __init__(
        self,
        server: KafkaServer,
        penstock: Penstock,
        recoveries: Recoveries,
        rng: random.Random,
        tell: Callable[[str], None],
        duties: Sequence[Duty],
        roles: Sequence[str],
    ) -> None:
        self._server = server
        self._penstock = penstock
        self._recoveries = recoveries
        self._random = rng
        self._tell = tell
        self._duties = cycle(duties)
        self._roles = roles
        self._workers: dict[str, Worker] = {}
        self.struck: Counter[str] = Counter()

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers that there are."""
        return list(self._workers.values())

    def start(self) -> None:
        """Start two workers and wait until they are ready."""
        for name in ("worker-a", "worker-b"):
            self._start(name)
        for worker in self._workers.values():
            worker.wait_until_ready()

    def add(self, name: str) -> None:
        """Start one more worker and wait until it is ready."""
        self._tell(f"start {name}")
        self._start(name)
        self._workers[name].wait_until_ready()

    def play(self, kills: int, others: Sequence[Callable[[], None]], longest_pause_s: float = 6.0) -> None:
        """Kill `kills` times, each after a pause, with the `others` spread evenly in between.

        Some kills come before the last one is over; the others, and the other faults, find a stream that flows.
        """
        for number in range(kills):
            first, last = (len(others) * n // kills for n in (number, number + 1))
            for fault in others[first:last]:
                self.settle()
                fault()
                self.settle()
            self.strike(f"kill {number + 1} of {kills}", longest_pause_s)
        self.settle()

    def strike(self, what: str, longest_pause_s: float) -> None:
        """Kill once, after a pause, and mostly when the last blow is over; tell that it was `what`."""
        if self._random.random() >= _OVERLAP_SHARE:
            self.settle()
        time.sleep(self._random.uniform(0, longest_pause_s))
        self._tell(f"{what}: {self.kill()}")

    def kill(self) -> str:
        """Kill a worker (SIGKILL), start it again and return its name and its duty."""
        worker, duty = self._pick()
        worker.kill()
        self._recoveries.blow("kill")
        self._start(worker.name)
        self.struck[duty] += 1
        return f"{worker.name}, which does {duty}"

    def freeze(self) -> None:
        """Stop a worker past its session time-out (SIGSTOP): the group goes on without it, and then it wakes up."""
        worker, _ = self._pick()
        self._tell(f"freeze {worker.name} for {_FREEZE_S:.0f} s")
        worker.send(signal.SIGSTOP)
        self._recoveries.blow("freeze")
        time.sleep(_FREEZE_S)
        worker.send(signal.SIGCONT)
        time.sleep(_WAKING_S)  # time for what it still had in hand to do harm, if anything lets it

    def end(self) -> None:
        """Ask a worker to end (SIGTERM), as a deployment does, and start it again."""
        worker, _ = self._pick()
        self._tell(f"end {worker.name}")
        _require_clean_end(worker)
        self._recoveries.blow("end")
        self._start(worker.name)

    def restart_broker(self) -> None:
        """Restart Kafka under everybody's feet. Who is still starting would end with a sentence, so nobody is."""
        for worker in self._workers.values():
            worker.wait_until_ready()
        self._tell("restart the broker")
        self._server.stop()
        self._recoveries.blow("broker_restart")
        self._server.start()

    def restart_everything(self) -> None:
        """Kill every worker and restart Kafka, so that nobody is left who remembers anything."""
        self._tell("kill all workers, restart the broker, start all workers")
        for worker in self._workers.values():
            worker.kill()
        self._server.stop()
        self._recoveries.blow("restart_of_everything")
        self._server.start()
        for name in list(self._workers):
            self._start(name)

    def stop(self) -> None:
        """Ask all workers to end, once they have started: before that SIGTERM ends them as it ends any process."""
        for worker in self._workers.values():
            worker.wait_until_ready()
            _require_clean_end(worker)

    def settle(self) -> None:
        """Wait until every blow is over and every part of the stream shows outputs."""
        until(self._recoveries.over, "every part of the stream to show outputs again", _PATIENCE_S)

    def _start(self, name: str) -> None:
        self._workers[name] = self._penstock.worker(name, *self._roles)

    def _pick(self) -> tuple[Worker, str]:
        """Choose an owner of the next duty, and wait until it has worked since its start."""
        duty = next(self._duties)
        chosen: Worker | None = None

        def works() -> bool:
            nonlocal chosen
            for each in self._workers.values():
                each.check()
            if chosen is None or not duty.owns(chosen):
                owners = [worker for _, worker in sorted(self._workers.items()) if duty.owns(worker)]
                chosen = self._random.choice(owners) if owners else None
            return chosen is not None and duty.works(chosen)

        until(works, f"a worker to do {duty.name}", _PATIENCE_S, 0.2)
        assert chosen is not None
        return chosen, duty.name


def _require_clean_end(worker: Worker) -> None:
    if exit_code := worker.end():
        raise RuntimeError(f"{worker.name} ended with {exit_code} when told to end:\n{worker.log_end()}")
