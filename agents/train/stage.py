"""Train: the stage on `<s>.retrain`. Requests become runs, and every run ends in one candidate or one recorded failure.

Its state is the checkpoint: the queue of requests, and what is still to be said. It holds what no replay would give
again, so it counts by itself and not by offsets; a request that comes twice is known by its id. Two rules keep one run
one run, whenever the worker is killed and whether there are transactions or not:

- An attempt begins only when a checkpoint that counts it is durable.
- What a run ended in is said only when a checkpoint that has it, word for word, is durable; a crash in the middle says
  the same words again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Final, NamedTuple

import msgspec

from agents.checkpoints import state_of
from agents.registry import Registry
from agents.routes import routes_of
from agents.train import ending
from agents.train.ending import Note, Registered, note_of
from agents.train.job import Failed, Job, Kept, Made, Progress
from agents.train.queue import Queue, Run, begun, ended, excused, expected, given_up, gives_way, kept, received, tried
from agents.train.world import Doing, World
from schemas.errors import InvalidEvent, PenstockError
from schemas.events import Checkpoint, RetrainRequest
from schemas.experiments import ExperimentPlan
from schemas.runs import TrainingEvent
from schemas.streams import MINUTE_MS, StreamSpec
from schemas.wire import decode, encode
from stream import metrics as m
from stream.batches import Batch, Outbox, TopicPartition
from stream.memory import Memory
from stream.metric_values import Metrics
from stream.stage import Stage
from stream.timestamps import SLACK_MS
from topics.specs import StreamTopics

STAGE: Final = "train"
FORMAT: Final = 1
FIRST_PAUSE_S: Final = 10.0  # after the first attempt that failed; it doubles
PROGRESS_S: Final = 1.0  # between two words on the same phase
ANSWER_S: Final = 60.0  # in which control has begun a rollout that it is asked for, or has refused

log = logging.getLogger("penstock.train")


class TrainState(msgspec.Struct, frozen=True):
    """The checkpoint: the queue, and what is to be written as soon as this is durable."""

    queue: Queue = Queue()
    unsaid: tuple[Note, ...] = ()


class Asking(NamedTuple):
    """A rollout that control has been asked for, and may not have begun yet."""

    experiment_id: str
    until: float


class Train(Stage):
    """Takes requests in at once, and works on one run in the background."""

    def __init__(
        self,
        spec: StreamSpec,
        memory: Memory,
        world: World,
        plan: ExperimentPlan,
        doing: Doing,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        """`spec` is as in a Job, and `plan` that of the stream's rollouts."""
        assert spec.training is not None
        self._spec = spec
        self._rules = spec.training
        self._memory = memory
        self._world = world
        self._plan = plan
        self._doing = doing
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._clock = clock
        self._first_pause_s = first_pause_s
        self._topics = StreamTopics(spec.name)
        self._registry = Registry(world.models)
        self._interrupted: tuple[str, int] | None = None
        self._asking: Asking | None = None
        self._forget(TrainState())

    def _forget(self, state: TrainState) -> None:
        """Begin with `state`, which is durable."""
        self._state = state
        self._changes = self._saved = self._durable = 0  # how many changes there were, and are saved, and durable
        self._saved_notes = len(state.unsaid)
        self._moved = asyncio.Event()
        self._progress: list[Note] = []
        self._phase_told = ("", -PROGRESS_S)
        self._told_behind = ("", "")
        self._trying = False
        self._working: asyncio.Task[None] | None = None

    @property
    def has_news(self) -> bool:
        """Whether something is to be written, or is waited for to be durable, or the work in the background failed."""
        waits = self._changes != self._durable or bool(self._state.unsaid or self._progress)
        return waits or (self._working is not None and self._working.done())

    async def open(self, committed: Mapping[TopicPartition, int]) -> None:
        """Restore the queue, and go on with the run that was at work."""
        self._world.deployments.listen(self._routed)
        checkpoint = await self._memory.newest(committed)
        self._forget(self._restored(checkpoint))
        run = self._state.queue.run
        if run is not None and (run.run_id, run.attempt) == self._interrupted:
            self._change(excused(self._state.queue))
        self._interrupted = None
        self._working = asyncio.create_task(self._work(), name=f"train {self._spec.name}")
        self._working.add_done_callback(lambda _: self.wake())

    def _restored(self, checkpoint: Checkpoint | None) -> TrainState:
        name = self._spec.name
        what = f"stream {name}: the checkpoint of its training requests"
        otherwise = f"take [streams.{name}.training] out of penstock.toml to train nothing"
        return state_of(TrainState, checkpoint, FORMAT, what, otherwise)

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Take the requests in; `save` writes those that are skipped."""
        for record in batch.records:
            try:
                request = decode(RetrainRequest, record.value)
            except InvalidEvent as error:
                log.warning("record %d of %s is no request and is passed over: %s", record.offset, batch.source, error)
                continue
            if request.stream == self._spec.name:
                time_ms = min(request.requested_time_ms, record.timestamp + SLACK_MS)  # as far as it is believed
                request = msgspec.structs.replace(request, requested_time_ms=time_ms)
                queue, skip = received(self._state.queue, request, self._rules)
                if queue is not self._state.queue:
                    self._change(queue, [ending.skipped(self._spec, skip, self._clock_ms())] if skip else [])
                    if queue.run is not None and skip is None:
                        self._tell_queued(queue.run.run_id)

    async def save(self, outbox: Outbox) -> None:
        """Write what is durable and unsaid, the newest state, and what the run is at."""
        if self._working is not None and self._working.done():
            self._working.result()  # it never ends but by an error
        self._durable = self._saved  # the commit before this one is done
        if self._saved_notes:
            self._say(self._state.unsaid[: self._saved_notes], outbox)
            self._state = msgspec.structs.replace(self._state, unsaid=self._state.unsaid[self._saved_notes :])
            self._changes += 1
        if self._changes != self._saved:
            state = msgspec.Raw(encode(self._state))
            self._memory.save(Checkpoint(stage=STAGE, partition=0, format=FORMAT, offsets={}, state=state), outbox)
            self._saved, self._saved_notes = self._changes, len(self._state.unsaid)
        for note in self._progress:
            self._write(note, outbox)
        self._progress = []
        self._moved.set()

    async def finish(self) -> None:
        """End the run's process. It goes on elsewhere, and this attempt does not count."""
        await self._stop_working()
        if self._trying:
            self._trying = False
            self._change(excused(self._state.queue))

    async def close(self) -> None:
        """End the run's process, if it still runs: should this worker open again, the attempt does not count."""
        self._world.deployments.unlisten(self._routed)
        await self._stop_working()
        run = self._state.queue.run
        if self._trying and run is not None:
            self._interrupted = run.run_id, run.attempt
        self._forget(TrainState())
        self._metrics.forget(m.PIPELINE_ACCURACY, self._spec.name)

    async def _stop_working(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait({self._working})
            if not self._working.cancelled() and (error := self._working.exception()) is not None:
                log.debug("stream %s: training had stopped: %s", self._spec.name, error)  # `save` has raised it
            self._working = None

    def _change(self, queue: Queue, notes: list[Note] | tuple[Note, ...] = ()) -> None:
        """Move to another state; the task is told that there is something to save."""
        self._state = TrainState(queue, (*self._state.unsaid, *notes))
        self._changes += 1
        self._moved.set()
        self.wake()

    def _routed(self) -> None:
        self._moved.set()

    async def _is_durable(self) -> None:
        """Wait until the state as it is now is durable."""
        changes = self._changes
        while self._durable < changes:
            await self._news()

    async def _news(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _work(self) -> None:
        """Make runs of what waits, one after the other, for ever."""
        while True:
            if self._state.queue.run is not None:
                await self._go_on(self._state.queue.run)
            elif self._state.queue.waiting:
                await self._begin()
            else:
                await self._news()

    async def _begin(self) -> None:
        """Freeze what the run is of; but let an experiment end first beside which the run would be in vain."""
        await self._world.caught_up()
        behind = self._in_the_way() if gives_way(self._state.queue, self._rules) else ""
        if behind:
            told = expected(self._state.queue, self._rules)[0].id, behind
            if told != self._told_behind:
                self._told_behind = told
                self._tell_queued(behind)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):  # we do not hear of a refusal
                    await self._news()
            return
        champion = routes_of(self._world.deployments.events).champion
        stop_offset = await self._world.samples_end()
        now_ms = self._clock_ms()
        queue, skips = begun(
            self._state.queue,
            self._spec.name,
            self._rules,
            stop_offset=stop_offset,
            champion=self._registry.find(champion) if champion else None,
            now_ms=now_ms,
        )
        self._change(queue, [ending.skipped(self._spec, skip, now_ms) for skip in skips])
        if queue.run is not None:
            log.info("stream %s: run %s begins, for %s", self._spec.name, queue.run.run_id, queue.run.reasons)
            self._tell(Progress(phase="waiting", message=f"it reads the samples before offset {stop_offset}"))

    def _in_the_way(self) -> str:
        """Return the experiment that runs or is about to, in words; an empty text if there is none."""
        history, asking = self._world.deployments.events, self._asking
        running = routes_of(history).experiment
        if running is not None:
            return f"{running.kind} {running.experiment_id}"
        if asking is None or self._clock() >= asking.until:
            return ""
        begun = any(each.experiment and each.experiment.experiment_id == asking.experiment_id for each in history)
        return "" if begun else f"rollout {asking.experiment_id}"

    async def _go_on(self, run: Run) -> None:
        """Make one more attempt, or end the run when there were enough."""
        if why := given_up(run, self._rules, self._clock_ms()):
            await self._end(Failed(message=why, again=False))
            return
        self._change(tried(self._state.queue))
        self._trying = True
        await self._is_durable()
        said = await self._attempt(self._job())
        if isinstance(said, Failed) and said.again and run.attempt + 1 < self._rules.attempts:
            self._trying = False
            pause_s = self._first_pause_s * 2**run.attempt
            why = f"attempt {run.attempt + 1} failed: {said.message}; it is tried again in {pause_s:g} s"
            log.warning("stream %s: run %s: %s", self._spec.name, run.run_id, why)
            self._tell(Progress(phase="waiting", message=why))
            await asyncio.sleep(pause_s)
        else:
            await self._end(said)

    def _job(self) -> Job:
        run = self._state.queue.run
        assert run is not None
        return Job(
            spec=self._spec,
            run_id=run.run_id,
            reasons=run.reasons,
            requested_by=run.requested_by,
            asked_because=run.asked_because,
            attempt=run.attempt,
            now_ms=run.started_time_ms,
            stop_offset=run.stop_offset,
            champion=run.champion,
            kept=run.unfinished,
            resources=self._doing.resources,
        )

    async def _attempt(self, job: Job) -> Made | Failed:
        """Do the job and follow it to its end, or for as long as it may take."""
        try:
            async with (
                asyncio.timeout(self._rules.max_minutes * MINUTE_MS / 1000),
                aclosing(self._doing.run(job)) as words,
            ):
                async for said in words:
                    match said:
                        case Made() | Failed():
                            return said
                        case Kept():
                            self._change(kept(self._state.queue, said))
                        case Progress():
                            self._tell(said)
        except TimeoutError:
            limit = f"training.max_minutes, {self._rules.max_minutes} minutes"
            return Failed(message=f"attempt {job.attempt} took longer than {limit}, and was ended", again=False)
        raise AssertionError("a run ends with Made or Failed")

    async def _end(self, said: Made | Failed) -> None:
        """Put what the run ended in into the state, and wait until that is durable; by then nothing else is left."""
        await self._world.caught_up()
        await self._doing.clear(self._job())
        run, now_ms = self._state.queue.run, self._clock_ms()
        assert run is not None
        if isinstance(said, Made):
            known = Registered(self._registry.versions, self._world.deployments.events, self._plan)
            try:
                notes = ending.made(self._spec, run, said, known, now_ms)
            except PenstockError as error:
                said = Failed(message=str(error), again=False)
        if isinstance(said, Failed):
            notes = ending.failed(self._spec, run, said, now_ms)
        self._trying = False
        if any(note.topic == self._topics.commands for note in notes) and self._rules.approve == "rollout":
            assert isinstance(said, Made)
            self._asking = Asking(said.version.model_id, self._clock() + ANSWER_S)
        seen_ms = said.to_time_ms + self._spec.ripens_ms if said.to_time_ms else 0
        self._change(ended(self._state.queue, self._rules, seen_ms), notes)
        await self._is_durable()

    def _tell(self, progress: Progress) -> None:
        """Put what the run is at into the next commit: a phase at once, news of the same phase once in PROGRESS_S."""
        phase, told_at = self._phase_told
        if progress.phase == phase != "waiting" and self._clock() - told_at < PROGRESS_S:
            return
        self._phase_told = (progress.phase, self._clock())
        run = self._state.queue.run
        assert run is not None
        event = ending.event_of(
            self._spec, run, progress.phase, self._clock_ms(), message=progress.message, share=progress.share
        )
        self._progress.append(note_of(self._topics.training, event))
        self.wake()

    def _tell_queued(self, behind: str) -> None:
        """Put what requests wait for into the next commit; those that will be skipped wait for nothing."""
        if waiting := expected(self._state.queue, self._rules):
            self._progress.append(ending.queued(self._spec, waiting, behind, self._clock_ms()))
            self.wake()

    def _say(self, notes: tuple[Note, ...], outbox: Outbox) -> None:
        """Write notes, and count the runs that ended with them."""
        for note in notes:
            self._write(note, outbox)
            if note.topic == self._topics.training:
                self._count(decode(TrainingEvent, note.value))

    def _write(self, note: Note, outbox: Outbox) -> None:
        outbox.add(note.topic, 0, self._spec.name.encode(), bytes(note.value))

    def _count(self, event: TrainingEvent) -> None:
        assert event.outcome is not None
        stream = self._spec.name
        log.info("stream %s: run %s %s: %s", stream, event.run_id, event.outcome, event.message)
        self._metrics.count(m.TRAINING_RUNS, 1, stream, event.outcome)
        if event.outcome == "skipped":
            return
        self._metrics.observe(m.TRAINING_DURATION, (event.time_ms - event.started_time_ms) / 1000, stream)
        self._metrics.count(m.PIPELINE_SAMPLES, event.samples, stream)
        if event.model_id:
            self._metrics.count(m.PIPELINE_UPDATES, 1, stream)
        if "accuracy" in event.metrics:
            self._metrics.set(m.PIPELINE_ACCURACY, event.metrics["accuracy"], stream)
