"""The whole demo: broker, worker, champion, producer, and a follower that counts what comes out."""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from asyncio import Task
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import xgboost
from rich.console import Console

from app.demo.champion import champion_auc, train_champion, write_training_rows
from app.demo.drift_outcome import DriftOutcome
from app.demo.explained import Explained, execute_again
from app.demo.fault import Fault, fault_events
from app.demo.feedback import VARIANTS
from app.demo.flights import Flights, flights_stream, load_flights, replay_start
from app.demo.follow import Follower, Tally
from app.demo.outcome import Outcome
from app.demo.page import has_browser, open_browser, until_interrupted
from app.demo.processes import Child
from app.demo.producer import DEFAULT_RATE
from app.demo.stage import Stage, deploy_champion, set_stage
from app.demo.view import Meter, PlainView, ScreenView, View
from app.demo.year import Year, judge_year
from app.embedded import EmbeddedBroker
from app.settings import Settings
from schemas.errors import FatalError, SettingsError
from schemas.streams import StreamSpec
from stream.metrics import JOIN_PENDING
from topics import StreamTopics

BAD_SHARE: Final = 0.002
_SEED: Final = 2013
_REPORTED: Final = ("features", "labels", "bad", "bad_labels", "faulty")
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
    browser: bool = True
    json_path: Path | None = None


@dataclass(slots=True)
class Replay:
    """The producer's process and its latest report."""

    child: Child
    report: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(_REPORTED, 0) | {"done": False})

    @classmethod
    async def start(cls, stage: Stage, options: DemoOptions, events: int, stream: str) -> "Replay":
        """Start the producer; it waits for what `tell` says."""
        choices = {"events": events, "rate": options.rate, "bad-share": options.bad_share, "stream": stream}
        choices |= {"fault-events": fault_events(events)}
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
        """Whether everything was sent, and all of it has come out and is judged; labels of spoilt events need not."""
        sent, feedback = self.report, tally.feedback
        return (
            bool(sent["done"])
            and tally.answered - tally.drift.behind >= sent["features"]
            and tally.labels >= sent["labels"]
            and feedback.settled - feedback.unmatched.total() >= sent["labels"] - sent["bad_labels"]
        )


def run(settings: Settings, options: DemoOptions) -> int:
    """Run the demo to its end and return the process's exit code; 130 when it was interrupted."""
    try:
        return asyncio.run(run_demo(settings, options, Console()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


async def run_demo(settings: Settings, options: DemoOptions, console: Console) -> int:
    """Replay the flights, show them, write the JSON file; return 0 when every event was answered exactly once.

    On a terminal the worker and its page go on after that until they are interrupted.

    Raises FatalError (SettingsError) when the demo cannot begin. Whatever happens, no process stays behind.
    """
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    flights = await asyncio.to_thread(load_flights)
    options = replace(options, headless=options.headless or not console.is_terminal)
    view: View = PlainView(partial(print, flush=True), time.monotonic) if options.headless else ScreenView(console)
    with TemporaryDirectory(prefix="penstock-demo-") as folder:
        async with AsyncExitStack() as stack:
            with view:
                bootstrap = settings.kafka_bootstrap or stack.enter_context(EmbeddedBroker()).bootstrap
                view.say(f"{'embedded broker' if settings.embedded else 'Kafka'} at {bootstrap}")
                spec = _stream(settings)
                stage = set_stage(settings, os.environ, spec, bootstrap, Path(folder))
                outcome = await _perform(stack, stage, settings, options, spec, flights, view)
            code = _tell(outcome, options)
            if code == 0 and not options.headless and await stage.has_page():
                print(f"\nThe page stays at {stage.page} until Ctrl-C.")
                await until_interrupted()
    return code


def _tell(outcome: Outcome, options: DemoOptions) -> int:
    """Write the JSON file, print the outcome, and return the exit code."""
    if options.json_path:
        options.json_path.write_text(json.dumps(outcome.document(), indent=2) + "\n")
    print(outcome.summary())
    for problem in outcome.problems():
        print(f"demo: {problem}", file=sys.stderr)
    if outcome.problems():
        return 1
    print(NEXT_STEPS)
    return 0


def _stream(settings: Settings) -> StreamSpec:
    """Return the stream to play. On a Kafka that lasts, each demo has its own: to it, an earlier one is the future."""
    spec = flights_stream()
    name = spec.name if settings.embedded else f"{spec.name}-{secrets.token_hex(3)}"
    return msgspec.structs.replace(spec, name=name)


async def _perform(
    stack: AsyncExitStack,
    stage: Stage,
    settings: Settings,
    options: DemoOptions,
    spec: StreamSpec,
    flights: Flights,
    view: View,
) -> Outcome:
    """Start everything, replay, and return what was counted; what was started ends with `stack`."""
    events = _event_count(options.events, flights)
    if not settings.embedded:
        view.say(f"the demo's stream is {spec.name}; its topics stay")
        await stage.command("topics", "apply")
    follower = Follower(
        settings.kafka_connection(stage.bootstrap).client_options(),
        StreamTopics(spec.name),
        spec.partitions,
        read_committed=not settings.embedded,
        clock_ms=lambda: time.time() * 1000,
    )
    stack.push_async_callback(follower.stop)
    await follower.start()
    worker = await stage.start("worker", "app.cli", "worker")
    stack.push_async_callback(worker.stop, _STOP_GRACE_S)
    champion, auc = await _champion(stage, spec.name, flights, view)
    await stage.ready(worker)
    await _show_page(stage, options, view)
    view.say(f"replaying {events:,} flights at {options.rate:,.0f} events/s")
    replay = await Replay.start(stage, options, events, spec.name)
    stack.push_async_callback(replay.child.stop, 0)
    meter = Meter(follower.tally, events, time.monotonic)
    failure = await _watch(replay, stage, worker, follower, meter, view)
    explained = Explained()
    if not failure:  # the worker is idle by now, and every latency was taken
        explained = await execute_again(stage, spec, follower.starts)
    fault = Fault(flights.first_at(replay_start()) + events - fault_events(events))
    year = await asyncio.to_thread(judge_year, flights, champion, fault, follower.tally.feedback.served)
    return _outcome(follower.tally, replay.report, auc, flights, fault, explained, year, failure)


async def _show_page(stage: Stage, options: DemoOptions, view: View) -> None:
    """Say where the live page is, and open it where somebody sits in front of the demo."""
    if not await stage.has_page():
        view.say(f"there is no live page: port {stage.page_port} is taken; name another by ML_PAGE_PORT")
        return
    view.say(f"live page: {stage.page}")
    if options.browser and not options.headless and has_browser(os.environ):
        await open_browser(stage.page)


async def _champion(stage: Stage, stream: str, flights: Flights, view: View) -> tuple[xgboost.Booster, float]:
    """Train the first champion on January, deploy it with its baseline; return it, and its AUC on the rest."""
    champion = await asyncio.to_thread(train_champion, flights, seed=_SEED)
    auc = await asyncio.to_thread(champion_auc, champion, flights)
    model = stage.folder / "champion.ubj"
    rows = stage.folder / "january.csv"
    champion.save_model(model)
    await asyncio.to_thread(write_training_rows, flights, rows)
    view.say(f"champion trained on January: ROC AUC {auc:.3f} on the rest of the year")
    view.say(f"champion deployed: {await deploy_champion(stage, model, rows, stream)}")
    return champion, auc


async def _watch(replay: Replay, stage: Stage, worker: Child, follower: Follower, meter: Meter, view: View) -> str:
    """Follow the replay to its end and show it; return a sentence if it does not get there, else an empty string."""

    async def show() -> None:
        pending = await stage.gauge(JOIN_PENDING.name)
        news = follower.tally.retraining.news
        while news:
            view.say(news.pop(0))
        view.show(meter.snapshot(replay.report["features"], int(pending or 0)))

    following, reading = asyncio.create_task(follower.run()), asyncio.create_task(replay.read())
    try:
        await _until_answered(replay, worker, follower.tally, show, (following, reading))
        await asyncio.sleep(_SETTLE_S)
        await show()
    except FatalError as error:
        return str(error)
    finally:
        for task in (following, reading):
            task.cancel()
        await asyncio.wait((following, reading))
    return ""


async def _until_answered(
    replay: Replay,
    worker: Child,
    tally: Tally,
    show: Callable[[], Awaitable[None]],
    tasks: tuple[Task[None], ...],
) -> None:
    """Return when everything has come out. Raises FatalError when something ends early or nothing moves any more."""
    progress, moved_s, shown_s = -1, time.monotonic(), 0.0
    while not replay.answered_by(tally):
        await asyncio.sleep(_TICK_S)
        now_s = time.monotonic()
        for task in tasks:
            if task.done():
                task.result()  # raises what went wrong there
        if not worker.running:
            raise worker.failure()
        replay.tell(tally.records_out)
        if now_s - shown_s >= _SHOW_S:
            shown_s = now_s
            await show()
        if tally.records_out != progress:
            progress, moved_s = tally.records_out, now_s
        elif now_s - moved_s > _STALL_TIMEOUT_S:
            judged = f"; {tally.drift.behind:,} events wait for the judge" if tally.drift.behind else ""
            raise FatalError(f"nothing has come out for {_STALL_TIMEOUT_S:g} s{judged}")


def _outcome(
    tally: Tally,
    sent: dict[str, Any],
    auc: float,
    flights: Flights,
    fault: Fault,
    explained: Explained,
    year: Year,
    failure: str,
) -> Outcome:
    feedback, drift, retraining = tally.feedback, tally.drift, tally.retraining
    assert fault.first_row is not None
    return Outcome(
        events=sent["features"],
        bad_events=sent["bad"],
        labels_sent=sent["labels"],
        bad_labels=sent["bad_labels"],
        predictions=tally.predictions,
        dead_letters=dict(tally.dead_letters),
        duplicates=tally.duplicates,
        labels=tally.labels,
        samples=feedback.samples,
        samples_repeated=feedback.repeated,
        labels_unmatched=dict(feedback.unmatched),
        auc={variant: feedback.auc(variant) for variant in VARIANTS},
        label_delay_ms=feedback.label_delay_ms,
        windows=len(feedback.windows),
        model_versions=len(feedback.versions),
        drift=DriftOutcome(
            counted=drift.counted,
            reports=drift.reports,
            alerts=drift.drift_alerts,
            faulty=sent["faulty"],
            fault_time_ms=int(flights.event_time_ms[fault.first_row]),
        ),
        explained=explained,
        runs=retraining.ended,
        runs_repeated=retraining.repeated,
        promotions=retraining.promotions,
        year=year,
        throughput_eps=tally.throughput_eps,
        latency_ms=tally.latency_ms(),
        model_id=tally.model_id,
        champion_auc=auc,
        failure=failure,
    )


def _event_count(wanted: int | None, flights: Flights) -> int:
    most = len(flights) - flights.first_at(replay_start())
    if wanted is not None and not 1 <= wanted <= most:
        raise SettingsError(f"--events must be from 1 to {most:,}, the flights after January")
    return wanted or most
