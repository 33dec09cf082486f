"""What tests of the train stage share: a stream that is trained, jobs, candidates, and runs that do as told."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

from agents.train.job import Failed, Job, Kept, Made, Progress, Resources
from agents.train.process import Say
from schemas.events import ModelVersion, RetrainRequest
from schemas.runs import GateResult
from schemas.streams import StreamSpec
from schemas.training import TrainingSpec
from stores.artifacts import Signer
from stream.connection import KafkaConnection
from tests.support import version_of

DAY_MS = 24 * 3_600_000


def spec_of(**training: Any) -> StreamSpec:
    """Return a stream that is trained."""
    return StreamSpec(name="flights", features=("a", "b"), training=TrainingSpec(**training))


def request_of(request_id: str, **changes: Any) -> RetrainRequest:
    """Return a request for drift, at the time 0 of the stream."""
    given = {"id": request_id, "stream": "flights", "reason": "drift", "evidence": {}, "requested_time_ms": 0}
    return RetrainRequest(**(given | changes))


def resources_of(training_dir: str = "") -> Resources:
    """Return what a run that reads nothing needs."""
    return Resources(
        connection=KafkaConnection(bootstrap="nowhere:9092"),
        read_committed=True,
        model_storage_dir="memory://",
        signer=Signer(b"a key for tests"),
        training_dir=training_dir,
        threads=1,
        sql_url="",
        optuna_storage="",
        mlflow_uri="",
        mlflow_experiment="",
    )


def job_of(training_dir: str = "", **changes: Any) -> Job:
    """Return a job."""
    given = {
        "spec": spec_of(),
        "run_id": "run-1",
        "reasons": ("drift",),
        "requested_by": "judge",
        "asked_because": "",
        "attempt": 1,
        "now_ms": 1,
        "stop_offset": 100,
        "champion": None,
        "kept": None,
        "resources": resources_of(training_dir),
    }
    return Job(**(given | changes))


def made_of(job: Job, *, passed: bool = True, to_time_ms: int = DAY_MS, **changes: Any) -> Made:
    """Return a candidate of a job, with one gate: the same for the same job."""
    return Made(
        version=candidate_of(job, **changes),
        passed=passed,
        gates=(GateResult(gate="min_auc", passed=passed, message=f"ROC AUC {'0.81' if passed else '0.52'} of 0.7"),),
        samples=1000,
        from_time_ms=0,
        to_time_ms=to_time_ms,
    )


def candidate_of(job: Job, **changes: Any) -> ModelVersion:
    """Return the version that a run of `job` makes."""
    version = version_of(job.spec, f"candidate of {job.run_id} at {job.stop_offset}")
    fields = {"created_time_ms": job.now_ms, "registered_by": "train", "metrics": {"accuracy": 0.75}}
    return ModelVersion(**({name: getattr(version, name) for name in version.__struct_fields__} | fields | changes))


def talk(job: Job, say: Say) -> None:
    """Make a candidate, and say what is done."""
    say(Progress(phase="fit", share=0.5))
    say(Kept(sha256="0" * 64, size_bytes=3))
    say(made_of(job))


def crash(job: Job, say: Say) -> None:
    """End without a last word."""
    say(Progress(phase="fit"))
    os._exit(3)


def raise_error(job: Job, say: Say) -> None:
    """Fail in a way that nobody thought of."""
    raise ValueError("nobody thought of this")


def describe(job: Job, say: Say) -> None:
    """Say how this process stands to others."""
    policy = os.sched_getscheduler(0)
    at_start = dict(line.split("=", 1) for line in Path("/proc/self/environ").read_text().split("\0") if line)
    threads = [at_start.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]
    say(Failed(message=f"{policy} {threads} {os.getpgid(0) == os.getpid()}", again=False))


def linger(job: Job, say: Say) -> None:
    """Start a process, which writes a file again and again, and never end."""
    beat = Path(job.resources.training_dir, "beat")
    multiprocessing.get_context("spawn").Process(target=beat_for_ever, args=(beat,)).start()
    while not beat.exists():
        time.sleep(0.01)
    say(Progress(phase="search", message=str(os.getpid())))
    time.sleep(3600)


def beat_for_ever(path: Path) -> None:
    """Show that this process is alive."""
    while True:
        path.write_text(str(time.monotonic_ns()))
        time.sleep(0.02)


def is_beating(path: Path) -> bool:
    """Whether a process still writes `path`."""
    before = path.read_text()
    time.sleep(0.2)
    return path.read_text() != before
