"""What the train stage is given: what it knows of its stream, and how a run is done."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

from agents.train.job import Job, Resources, Said
from schemas.events import Deployment, ModelVersion
from stream.views import LogView


class World(NamedTuple):
    """What the stage knows of the stream: the registry, the routing, and how many samples there are.

    `caught_up` waits until the views have all that is written by now; `samples_end` gives the end of `<s>.samples`.
    """

    models: LogView[ModelVersion]
    deployments: LogView[Deployment]
    caught_up: Callable[[], Awaitable[None]]
    samples_end: Callable[[], Awaitable[int]]


class Doing(NamedTuple):
    """How runs are done: `run` does a job and yields what it says, last Made or Failed.

    `clear` takes away what is left of one when it has ended for good; it raises nothing.
    """

    resources: Resources
    run: Callable[[Job], AsyncGenerator[Said, None]]
    clear: Callable[[Job], Awaitable[None]]
