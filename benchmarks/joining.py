"""The turns of scoring and joining in the benchmark `learn`, and what its turns share."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from benchmarks import synthetic
from benchmarks.comparison import OutputsDiffer, turn
from benchmarks.learn_checker import sample_differences
from benchmarks.plain import Kafka, Row, until
from benchmarks.score import Bench
from benchmarks.workers import Penstock, Worker
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)
_LABEL_DELAY_MS: Final = 60_000
_BEHIND_MS: Final = 200
_PATIENCE_S: Final = 120.0


class _Event(msgspec.Struct):
    event_id: str
    entity_id: str
    event_time_ms: int


_read_event: Final = msgspec.json.Decoder(_Event)


def tell(round_number: int, name: str, eps: float) -> None:
    """Print the rate of one turn."""
    print(f"round {round_number + 1}: {name:24}{eps:>10,.0f}/s", flush=True)


def run_to_the_end(start: Callable[[], Worker], cluster: Kafka, group: str, topics: Sequence[str]) -> None:
    """Start a worker, wait until its group has committed the last record of all topics, and end it."""
    last = {topic: cluster.last_offsets(topic) for topic in topics}
    worker = start()

    def committed() -> bool:
        worker.check()
        return all(cluster.committed(group, topic) == offsets for topic, offsets in last.items())

    until(committed, f"{worker.name} to commit everything", _PATIENCE_S, 0.5)
    if exit_code := worker.end():
        raise RuntimeError(f"{worker.name} ended with {exit_code} when told to drain:\n{worker.log_end()}")


class Joining:
    """Events are scored, and the predictions joined with labels; both leave what the next one needs."""

    def __init__(self, cluster: Kafka, penstock: Penstock, cpus: frozenset[int], events: int, seed: int) -> None:
        self._cluster = cluster
        self._penstock = penstock
        self._cpus = cpus
        self._scoring = Bench(cluster, penstock, cpus)
        self._expected = self._scoring.prepare(events, seed)
        values = synthetic.draw(events, seed)
        self._rows = [tuple(None if value != value else value for value in row) for row in values.tolist()]
        truth = synthetic.labels(values, seed)
        self._labels = {synthetic.event_id(number): label for number, label in enumerate(truth)}

    def measure(self, runs: int) -> dict[str, list[float]]:
        """Return the rates of all turns: score, join, score, join."""
        rates: dict[str, list[float]] = {"score": [], "join": []}
        for number in range(runs):
            scored = self._scoring.take_turn(
                f"score-{number}", lambda name, wait: self._scoring.worker(name, "exactly_once", wait), self._expected
            )
            rates["score"].append(scored.steady_eps)
            tell(number, "score", scored.steady_eps)
            rates["join"].append(self._join(f"join-{number}"))
            tell(number, "join", rates["join"][-1])
        return rates

    def _join(self, name: str) -> float:
        self._cluster.delete_topics(_TOPICS.labels, _TOPICS.labels_dead, _TOPICS.samples, _TOPICS.checkpoints)
        self._penstock.run("topics", "apply")
        self._cluster.stamp_by_broker(_TOPICS.samples)
        predictions = sorted(self._cluster.read(_TOPICS.predictions), key=lambda row: (row.time_ms, row.offset))
        times_ms = [row.time_ms + _BEHIND_MS for row in predictions]
        self._cluster.fill(_TOPICS.labels, map(self._label_of, predictions), times_ms)
        run_to_the_end(
            lambda: self._penstock.worker(name, "join", cpus=self._cpus, kafka_group_prefix=name),
            self._cluster,
            f"{name}-join",
            (_TOPICS.predictions, _TOPICS.labels),
        )
        samples = list(self._cluster.read(_TOPICS.samples))
        found = sample_differences(self._expected, self._labels, lambda event: self._rows[int(event[1:])], samples)
        if dead := sum(1 for _ in self._cluster.read(_TOPICS.labels_dead)):
            found.append(f"{dead} dead letters")
        if found:
            raise OutputsDiffer(f"{name}: {'; '.join(found)}")
        return turn(samples, None).steady_eps

    def _label_of(self, prediction: Row) -> tuple[bytes, bytes]:
        event = _read_event.decode(prediction.value or b"")
        document = {
            "event_id": event.event_id,
            "entity_id": event.entity_id,
            "label": self._labels[event.event_id],
            "label_time_ms": event.event_time_ms + _LABEL_DELAY_MS,
        }
        return prediction.key or b"", msgspec.json.encode(document)
