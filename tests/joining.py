"""What the tests of the join share: its two logs in memory, a stage on them, and the rules again in plain Python."""

import json
from dataclasses import dataclass, field
from typing import Any

from agents.join import Join
from agents.join.reader import Hasher
from schemas.events import DeadLetter, Label, Prediction, Sample
from schemas.streams import JoinSpec, StreamSpec
from schemas.wire import decode, encode
from stream.batches import Outbox, TopicPartition
from stream.deadletters import DeadLetterGate
from stream.metric_values import Metrics
from stream.placement import Placement
from tests.support import Entry, LogMemory

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
PREDICTIONS = TopicPartition("flights.predictions", 0)
LABELS = TopicPartition("flights.labels", 0)
SAMPLES = TopicPartition("flights.samples", 0)
DEAD = TopicPartition("flights.labels.dead", 0)
NOW_MS = 1_000_000


def spec_of(window: int = 2, lateness: int = 1, idle_wait: int = 1_000, **changes: Any) -> StreamSpec:
    """Return a stream with one partition and two features; the join's times are in minutes."""
    join = JoinSpec(
        window_minutes=window,
        lateness_minutes=lateness,
        idle_wait_minutes=idle_wait,
        assume_negative=changes.pop("assume_negative", False),
    )
    return StreamSpec(**{"name": "flights", "features": ("a", "b"), "partitions": 1, "join": join} | changes)


def prediction(event_id: str, time_ms: int, **changes: Any) -> Prediction:
    """Return a prediction for an event of entity N1."""
    fields: dict[str, Any] = {
        "event_id": event_id,
        "entity_id": "N1",
        "event_time_ms": time_ms,
        "scored_time_ms": time_ms + 7,
        "model_id": "m1",
        "variant": "champion",
        "deployment_revision": 3,
        "score": 0.1 + 0.2,
        "scores": None,
        "label": 0,
        "features": (1 / 3, None),
        "partition": 0,
        "offset": 99,
    }
    return Prediction(**fields | changes)


def label(event_id: str, time_ms: int, value: int | str = 1, **changes: Any) -> Label:
    """Return a label for an event of entity N1."""
    fields: dict[str, Any] = {"event_id": event_id, "entity_id": "N1", "label": value, "label_time_ms": time_ms}
    return Label(**fields | changes)


def entry(event: Prediction | Label, offset: int, timestamp: int = 0) -> Entry:
    """Return the event as a record."""
    return Entry(offset, encode(event), event.entity_id.encode(), timestamp)


def join_of(
    spec: StreamSpec, memory: LogMemory, hasher: Hasher = hash, share: float = 1.0, most_expired: int = 1_000
) -> Join:
    """Return a stage whose segments are as small as can be."""
    placement = Placement(LABELS.topic, 0, 1)
    gate = DeadLetterGate(share, 10)
    return Join(spec, 0, placement, gate, memory, Metrics(), lambda: NOW_MS, 1_000, hasher, 2, most_expired)


@dataclass
class Made:
    """What was made: the samples, and the offset and reason of each dead letter."""

    samples: list[Sample] = field(default_factory=list)
    letters: list[tuple[int, str]] = field(default_factory=list)

    def add(self, outbox: Outbox) -> None:
        """Add what a stage put into its outbox."""
        self.samples += [decode(Sample, value) for _, value in outbox.targets.get(SAMPLES, [])]
        letters = [decode(DeadLetter, value) for _, value in outbox.targets.get(DEAD, [])]
        self.letters += [(letter.offset, letter.reason) for letter in letters]


class Reference:
    """The join's rules, one record at a time, in plain Python: what the stage must be equal to."""

    def __init__(self, spec: StreamSpec) -> None:
        self.window = spec.join.window_minutes * MINUTE
        self.late = spec.join.lateness_minutes * MINUTE
        self.grid = (self.window + self.late) // 256
        self.idle = spec.join.idle_wait_minutes * MINUTE
        self.assume = spec.join.assume_negative
        self.made = Made()
        self.rows: list[dict[str, Any]] = []
        self.waiting: list[dict[str, Any]] = []
        self.heads: dict[TopicPartition, int] = {}
        self.newest: dict[TopicPartition, int] = {}
        self.first: dict[TopicPartition, int] = {}
        self.time = self.swept = -1

    @property
    def pending(self) -> int:
        return sum(not row["labels"] for row in self.rows)

    def take(self, source: TopicPartition, record: Entry) -> None:
        """Read one record."""
        event = json.loads(record.value or b"")
        event["record"] = record
        if source == PREDICTIONS:
            self._predict(event)
            time = event["event_time_ms"]
        else:
            self._label(event)
            time = event["label_time_ms"]
        self._tick(source, time, record.timestamp)

    def _predict(self, event: dict[str, Any]) -> None:
        if any(row["event_id"] == event["event_id"] for row in self.rows):
            return
        time = min(event["event_time_ms"], event["record"].timestamp + DAY)
        row = event | {"labels": [], "until": max(time + self.window + self.late, self.swept)}
        self.rows.append(row)
        mates = [each for each in self.waiting if each["event_id"] == event["event_id"]]
        self.waiting = [each for each in self.waiting if each not in mates]
        for mate in mates:
            self._judge(row, mate)

    def _label(self, event: dict[str, Any]) -> None:
        row = next((row for row in self.rows if row["event_id"] == event["event_id"]), None)
        if row is None:
            time = min(event["label_time_ms"], event["record"].timestamp + DAY)
            new = event | {"until": max(time + self.late, self.swept)}
            if not any(self._alike(new, each) for each in self.waiting):
                self.waiting.append(new)
        else:
            self._judge(row, event)

    @staticmethod
    def _alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
        return all(a[name] == b[name] for name in ("event_id", "label_time_ms", "label", "until"))

    def _judge(self, row: dict[str, Any], event: dict[str, Any]) -> None:
        known, new = row["labels"], (event["label_time_ms"], event["label"])
        if new[0] - row["event_time_ms"] > self.window:
            self.made.letters.append((event["record"].offset, "outside_window"))
        elif new in known:
            pass
        elif known and new[0] == known[-1][0]:
            self.made.letters.append((event["record"].offset, "conflicting"))
        elif known and new[0] < known[-1][0]:
            self.made.letters.append((event["record"].offset, "superseded"))
        else:
            known.append(new)
            self._sample(row, *new)

    def _sample(self, row: dict[str, Any], time: int, value: int, assumed: bool = False) -> None:
        names = ("event_id", "entity_id", "event_time_ms", "score", "scores", "model_id", "variant")
        more = ("deployment_revision", "scored_time_ms")
        self.made.samples.append(
            Sample(
                **{name: row[name] for name in names + more},
                features=tuple(row["features"]),
                predicted=row["label"],
                revision=max(0, len(row["labels"]) - 1),
                label_time_ms=time,
                label=value,
                weight=1.0,
                replaces=row["labels"][-2][1] if len(row["labels"]) > 1 else None,
                assumed=assumed,
            )
        )

    def _tick(self, source: TopicPartition, time: int, timestamp: int) -> None:
        other = LABELS if source == PREDICTIONS else PREDICTIONS
        self.first.setdefault(source, timestamp)
        self.heads[source] = max(min(time, timestamp + DAY), self.heads.get(source, -1))
        self.newest[source] = max(timestamp, self.newest.get(source, -1))
        ahead = self.newest[source] - self.newest.get(other, self.first[source])
        if ahead >= self.idle:
            now = self.heads[source]
        elif other not in self.heads:
            now = -1
        elif -ahead >= self.idle:
            now = self.heads[other]
        else:
            now = min(self.heads.values())
        self.time = max(self.time, now)
        if self.time >= 0 and self.time // self.grid * self.grid != self.swept:
            self.swept = self.time // self.grid * self.grid
            self._sweep()

    def _sweep(self) -> None:
        for row in self.rows:
            if row["until"] < self.swept and not row["labels"] and self.assume:
                self._sample(row, row["event_time_ms"] + self.window, 0, assumed=True)
        self.rows = [row for row in self.rows if row["until"] >= self.swept]
        gone = [each for each in self.waiting if each["until"] < self.swept]
        self.made.letters += [(each["record"].offset, "no_prediction") for each in gone]
        self.waiting = [each for each in self.waiting if each["until"] >= self.swept]
