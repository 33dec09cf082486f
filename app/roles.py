"""The roles of a worker, and what each has for a stream: consumer groups, and the topics that each reads."""

from collections.abc import Mapping
from typing import Final, Literal

from schemas.streams import StreamSpec
from topics.specs import StreamTopics

RoleName = Literal["score", "join", "learn", "train"]
ROLES: Final[tuple[RoleName, ...]] = ("score", "join", "learn", "train")


def inputs_of(spec: StreamSpec, role: RoleName) -> Mapping[str, tuple[str, ...]]:
    """Return the consumer groups that a role has for the stream, without the prefix, and the topics each reads.

    A group is named for its stage; only control's is `learn`.
    """
    topics = StreamTopics(spec.name)
    if role == "score":
        return {"score": (topics.features,)}
    if role == "join":
        return {"join": (topics.predictions, topics.labels)}
    if role == "train":
        return {"train": (topics.retrain,)} if spec.training is not None else {}
    archived = ("archive",) if spec.archive.enabled else ()
    of_samples = ("evaluate", *archived, *map(learner_group, spec.learners))
    shown = (topics.drift, topics.alerts, topics.models, topics.deployments, topics.experiments)
    others = {
        "compare": (topics.samples, topics.variants),
        "judge": (topics.histograms,),
        "views": shown,
        "notify": (topics.alerts,),  # without sinks, too: something may wait for one that is declared no longer
    }
    return {"learn": (topics.commands,)} | dict.fromkeys(of_samples, (topics.samples,)) | others


def learner_group(lineage: str) -> str:
    """Return the consumer group of a learner, without the prefix."""
    return f"learn-{lineage}"
