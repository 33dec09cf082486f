"""A run, from the samples to a candidate in the store: what happens in the process that is started for it."""

import asyncio
import logging
import time
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from agents.archive.history import SampleHistory
from agents.train.data import Data, read_history, ripe_times, span_before
from agents.train.faults import told
from agents.train.job import Failed, Job, Made, Progress
from agents.train.judging import judge_candidate
from agents.train.making import Say, Unfinished, make, seed_of
from agents.train.recording import Result, record
from agents.train.sql import read_sql
from ml.errors import ModelError
from ml.models.registry import model_type
from ml.training.protocol import TrainingImpossible
from ml.training.split import Split, require_learnable, split, vanished
from schemas.errors import PenstockError, RetryableError
from stores.archive import Archive
from stores.artifacts import ArtifactStore

log = logging.getLogger("penstock.train")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def run_job(job: Job, say: Say, clock_ms: Callable[[], int] = _now_ms) -> None:
    """Make a candidate and say what is at work, and at the end Made or Failed. Blocks until then; raises nothing.

    What may be otherwise another time (Kafka, the store, a database or a disk) fails to be tried again. What the data
    or the declaration is the reason of does not.
    """
    run = _Run(job, say, clock_ms)
    try:
        ended: Made | Failed = run.made()
    except (RetryableError, OSError, KafkaError) as error:
        ended = run.failed(_sentence(error), again=True)
    except (PenstockError, ModelError) as error:
        ended = run.failed(str(error), again=False)
    except Exception as error:  # trainers and models come from any package; each end is recorded
        log.exception("run %s came upon an error that nobody expected", job.run_id)
        ended = run.failed(told(error), again=False)
    say(ended)


class _Run:
    """What is known so far."""

    def __init__(self, job: Job, say: Say, clock_ms: Callable[[], int]) -> None:
        assert job.spec.training is not None  # else nothing runs
        self._job = job
        self._training = job.spec.training
        self._say = say
        self._clock_ms = clock_ms
        self._data: Data | None = None

    def made(self) -> Made:
        """Return the candidate, which is in the store with all that belongs to it. Raises what went wrong."""
        job, say = self._job, self._say
        store = ArtifactStore(job.resources.model_storage_dir)
        say(Progress(phase="read"))
        data = self._data = asyncio.run(_read(job))
        parts = self._parts(data)
        candidate = make(job, parts, Unfinished(store, job, say), say)
        say(Progress(phase="evaluate", message="the candidate is measured and compared"))
        model = model_type(candidate.fitted.algorithm).load(candidate.fitted.payload, threads=job.resources.threads)
        judged = judge_candidate(job, model, parts, store, seed_of(job))
        say(Progress(phase="record", message="model, baseline and card are stored"))
        result = Result(data=data, parts=parts, candidate=candidate, model=model, judged=judged)
        return record(job, result, store, self._clock_ms)

    def failed(self, message: str, *, again: bool) -> Failed:
        """Return the failure, with what was read by then."""
        if self._data is None:
            return Failed(message=message, again=again)
        return Failed(
            message="; ".join((message, *self._data.notes)),
            again=again,
            samples=len(self._data.table),
            from_time_ms=self._data.from_ms,
            to_time_ms=self._data.to_ms,
        )

    def _parts(self, data: Data) -> Split:
        """Return the data cut by time. Raises TrainingImpossible when nothing can be learnt or tested."""
        spec, training = self._job.spec, self._training
        classes = len(spec.classes) or 1
        require_learnable(data.table, classes, training.min_samples, "whole")
        if sentence := vanished(data.table, spec.features):
            raise TrainingImpossible(sentence)
        parts = split(data.table, training.validation_share, training.test_share)
        for name, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
            require_learnable(part, classes, 1, name)
        return parts


async def _read(job: Job) -> Data:
    spec = job.spec
    assert spec.training is not None
    history = SampleHistory(spec, Archive(job.resources.model_storage_dir), _consumers(job))
    if not spec.training.sql:
        return await read_history(spec, history, job.stop_offset)
    times_ms = await ripe_times(spec, history, job.stop_offset)  # the time of the stream, also for a query
    span = span_before(spec, int(times_ms[-1]) + 1 if len(times_ms) else job.now_ms - spec.ripens_ms)
    return await asyncio.to_thread(read_sql, spec, spec.training.sql, job.resources.sql_url, span)


def _consumers(job: Job) -> Callable[[], AIOKafkaConsumer]:
    """Return what makes a consumer without a group, which is not started yet."""

    def open_consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed" if job.resources.read_committed else "read_uncommitted",
            fetch_max_wait_ms=50,
            **job.resources.connection.client_options(),
        )

    return open_consumer


def _sentence(error: Exception) -> str:
    """Return what a person can read."""
    if isinstance(error, KafkaError):
        return f"Kafka failed, check that its brokers run: {error}"
    return str(error) if isinstance(error, PenstockError) else told(error)
