"""The whole demo: broker, worker, champion, producer, and a follower that counts what comes out."""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio import Task
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console

from app.demo.champion import champion_auc, train_champion
from app.demo.flights import Flights, flights_stream, load_flights, replay_start
from app.demo.follow import Follower, Tally
from app.demo.outcome import Outcome
from app.demo.processes import Child
from app.demo.producer import DEFAULT_RATE
from app.demo.stage import Stage
from app.demo.view import LiveView, Meter, PlainView, View
from app.embedded import EmbeddedBroker
from app.settings import Settings
from schemas.errors import FatalError, SettingsError
from topics import StreamTopics

BAD_SHARE: Final = 0.002
_SEED: Final = 2013
_STREAM: Final = flights_stream()
_TOPICS: Final = StreamTopics(_STREAM.name)
_STALL_TIMEOUT_S: Final = 30.0
_SETTLE_S: Final = 1.0  # how long to go on reading after the last answer: a double would come late
_TICK_S: Final = 0.05
_SHOW_S: Final = 0.25
_STOP_GRACE_S: Final = 15.0

NEXT_STEPS: Final = """
What to try next:
  penstock stream init --csv FILE    a stream of your own, proposed from a file's columns
  penstock dev                       the embedded broker in the foreground, for a worker and clients of yours
  ML_KAFKA_BOOTSTRAP=host:9092 penstock demo    the same on your Kafka, exactly once"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line chooses. `events` None is every flight after January; `rate` is events per second."""

    events: int | None = None
    rate: float = DEFAULT_RATE
    bad_share: float = BAD_SHARE
    headless: bool = False
    json_path: Path | None = None


@dataclass(slots=True)
class Replay:
    """The producer's process and its latest report."""

    child: Child
    report: dict[str, Any] = field(default_factory=lambda: {"done": False, "features": 0, "labels": 0, "bad": 0})

    @classmethod
    async def start(cls, stage: Stage, options: DemoOptions, events: int) -> "Replay":
        """Start the producer; it waits for what `tell` says."""
        choices = {"events": events, "rate": options.rate, "bad-share": options.bad_share}
        arguments = [f"--{name}={value}" for name, value in choices.items()]
        return cls(await stage.start("producer", "app.demo.producer", *arguments, "--follow-stdin", pipes=True))

    async def read(self) -> None:
        """Follow the reports until the producer ends; raise FatalError when it ends badly."""
        assert self.child.process.stdout
        async for line in self.child.process.stdout:
            self.report = json.loads(line)
        if await self.child.process.wait():
            raise self.child.failure()

    def tell(self, records_out: int) -> None:
        """Tell the producer how many of its records have come out."""
        stdin = self.child.process.stdin
        if stdin and self.child.running and not stdin.is_closing():
            stdin.write(b"%d\n" % records_out)

    def answered_by(self, tally: Tally) -> bool:
        """Whether everything was sent, and all of it has come out."""
        sent = self.report
        return sent["done"] and tally.answered >= sent["features"] and tally.labels >= sent["labels"]


def run(settings: Settings, options: DemoOptions) -> int:
    """Run the demo to its end and return the process's exit code; 130 when it was interrupted."""
    try:
        return asyncio.run(run_demo(settings, options, Console()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


async def run_demo(settings: Settings, options: DemoOptions, console: Console) -> int:
    """Replay the flights, show them, write the JSON file; return 0 when every event was answered exactly once.

    Raises FatalError (SettingsError) when the demo cannot begin. Whatever happens, no process stays behind.
    """
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    flights = await asyncio.to_thread(load_flights)
    events = _event_count(options.events, flights)
    live = console.is_terminal and not options.headless
    view: View = LiveView(console) if live else PlainView(print, time.monotonic)
    with TemporaryDirectory(prefix="penstock-demo-") as folder, view:
        outcome = await _perform(settings, options, flights, events, view, Path(folder))
    if options.json_path:
        options.json_path.write_text(json.dumps(outcome.document(), indent=2) + "\n")
    for problem in outcome.problems():
        print(f"demo: {problem}", file=sys.stderr)
    print(outcome.summary())
    print(NEXT_STEPS)
    return 1 if outcome.problems() else 0
