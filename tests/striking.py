"""What the tests that strike training runs share: targets of `run_apart`, in which a run stays or ends where told to.

The last word of its stream's name tells a run where. Only its first attempt does so, if nothing else is said.
"""

import os
import signal
import time
from functools import partial
from pathlib import Path

import agents.train
from agents.train.job import Job, Kept, Made, Progress, Said
from agents.train.process import Say, do
from agents.train.process import run_apart as real_run_apart


def stay(job: Job, say: Say) -> None:
    """Do the run, and stay in the phase that its stream is named after, with as much of its work done as can be."""
    phase = word_of(job)

    def say_and_stay(said: Said) -> None:
        if job.attempt > 1 or not _is_amid(phase, said):
            say(said)
            return
        if not isinstance(said, Made):
            say(said)
        mark = mark_of(job.resources.training_dir, job.spec.name)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        time.sleep(3600)

    do(job, say_and_stay)


def fall(job: Job, say: Say) -> None:
    """Do the run, whose process is killed when it begins to fit; in a stream named `always` each one, at once."""
    if word_of(job) == "always":
        os.kill(os.getpid(), signal.SIGKILL)

    def say_and_fall(said: Said) -> None:
        say(said)
        if isinstance(said, Progress) and said.phase == "fit" and job.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    do(job, say_and_fall)


def mark_of(training_dir: str, stream: str) -> Path:
    """Return the file that is there as soon as the stream's run stays where it is."""
    return Path(training_dir, f"{stream}.stays")


def word_of(job: Job) -> str:
    """Return the last word of the stream's name."""
    return job.spec.name.rpartition("-")[2]


def work() -> None:
    """Be the program `penstock`, whose runs stay where they are told to."""
    from app.cli import main

    agents.train.run_apart = partial(real_run_apart, target=stay)
    main()


def _is_amid(phase: str, said: Said) -> bool:
    """Whether a run that says this has done what it can of a phase, and has not said so to the end.

    One of two trials is done, or one of two folds; the fit is kept, but for its last rounds; the candidate is stored,
    but the worker does not know of it.
    """
    match said:
        case Made():
            return phase == "record"
        case Kept():
            return phase == "fit"
        case Progress(phase="search" | "validate"):
            return said.phase == phase and said.share == 0.5
        case Progress():
            return said.phase == phase and phase in ("read", "evaluate")
    return False
