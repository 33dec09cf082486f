"""A stream: one prediction task, as the user declares it in `penstock.toml`."""

from typing import Literal

import msgspec

Task = Literal["binary", "multiclass", "anomaly"]


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream predicts and from what.

    `features` are the feature names in the order of the model's matrix columns. `classes` names the
    classes of a multiclass task in the order of the model's score columns; it is empty for other tasks.
    `threshold` is the score at and above which a binary (or anomaly) prediction is labelled 1.
    `partitions` is the partition count of the per-event topics; `replication` and
    `min_insync_replicas` hold for every topic of the stream, and so does nothing else.
    """

    name: str
    features: tuple[str, ...]
    task: Task = "binary"
    classes: tuple[str, ...] = ()
    threshold: float = 0.5
    partitions: int = 4
    replication: int = 1
    min_insync_replicas: int = 1
    retention_hours: int = 168

    def problems(self) -> list[str]:
        """Return one sentence for each thing that is wrong with this declaration."""
        found = []
        if not _is_topic_prefix(self.name):
            found.append(
                f"stream name {self.name!r} must be 1 to 100 of a-z, 0-9, '-' and '_', and start with a letter"
            )
        if not self.features:
            found.append(f"stream {self.name!r} declares no features")
        if len(set(self.features)) != len(self.features) or "" in self.features:
            found.append(f"stream {self.name!r}: feature names must be unique and not empty")
        if any(c in '"\\' or ord(c) < 32 for name in self.features for c in name):
            found.append(
                f"stream {self.name!r}: feature names must be free of quotes, backslashes and control characters"
            )
        if self.task == "multiclass" and len(self.classes) < 2:
            found.append(f"stream {self.name!r} is multiclass and must name at least two classes")
        if len(set(self.classes)) != len(self.classes):
            found.append(f"stream {self.name!r}: class names must be unique")
        if self.task != "multiclass" and self.classes:
            found.append(f"stream {self.name!r}: only a multiclass stream has classes")
        if not 0.0 <= self.threshold <= 1.0 and self.task == "binary":
            found.append(f"stream {self.name!r}: threshold {self.threshold} is not between 0 and 1")
        found += [
            f"stream {self.name!r}: {name} must be at least 1"
            for name in ("partitions", "replication", "min_insync_replicas", "retention_hours")
            if getattr(self, name) < 1
        ]
        if self.min_insync_replicas > self.replication:
            found.append(
                f"stream {self.name!r}: min_insync_replicas {self.min_insync_replicas} "
                f"is more than replication {self.replication}"
            )
        return found


def _is_topic_prefix(name: str) -> bool:
    return (
        0 < len(name) <= 100
        and name[0].isalpha()
        and all(c.isascii() and (c.islower() or c.isdigit() or c in "-_") for c in name)
    )
