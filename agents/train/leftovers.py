"""What a run that has ended for good leaves behind: unfinished work, and files of its search and for MLflow."""

import asyncio
import logging
from typing import Final

from agents.train.job import Job
from ml.training import search
from schemas.errors import PenstockError
from stores import tracking
from stores.artifacts import ArtifactStore

CLEAR_S: Final = 30.0

log = logging.getLogger("penstock.train")


async def clear_leftovers(job: Job) -> None:
    """Remove them, in a thread. What cannot be removed stays, which is logged; doing it twice does no harm.

    Nobody waits longer than CLEAR_S for a store that does not answer. Files of a search, and those that MLflow was to
    have, are only found on the machine that it ran on, and a study in a database stays there.
    """
    for clear in (_clear_here, _clear_store):
        try:
            async with asyncio.timeout(CLEAR_S):
                await asyncio.to_thread(clear, job)
        except TimeoutError:
            log.warning("what run %s left unfinished may stay where it is: the store does not answer", job.run_id)
        except (PenstockError, OSError) as error:
            log.warning("what run %s left unfinished stays where it is: %s", job.run_id, error)


def _clear_here(job: Job) -> None:
    tracking.forget(job.run_id)
    if not job.resources.optuna_storage:
        search.forget(job.resources.training_dir, job.run_id)


def _clear_store(job: Job) -> None:
    kept = job.kept
    store = ArtifactStore(job.resources.model_storage_dir)
    for sha256 in (*kept.before, kept.sha256) if kept is not None else ():
        store.remove(sha256)
