"""What a run that has ended for good leaves behind: unfinished work in the store, and the files of its search."""

import asyncio
import logging

from agents.train.job import Job
from ml.training.search import forget
from schemas.errors import PenstockError
from stores.artifacts import ArtifactStore

log = logging.getLogger("penstock.train")


async def clear_leftovers(job: Job) -> None:
    """Remove them, in a thread. What cannot be removed stays, which is logged; doing it twice does no harm.

    Files of a search are only found on the machine that it ran on, and a study in a database stays there.
    """
    await asyncio.to_thread(_clear, job)


def _clear(job: Job) -> None:
    kept = job.kept
    store = ArtifactStore(job.resources.model_storage_dir)
    try:
        for sha256 in (*kept.before, kept.sha256) if kept is not None else ():
            store.remove(sha256)
        if not job.resources.optuna_storage:
            forget(job.resources.training_dir, job.run_id)
    except (PenstockError, OSError) as error:
        log.warning("what run %s left unfinished stays where it is: %s", job.run_id, error)
