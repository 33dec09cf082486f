"""What the demo found out, and whether that is what Penstock promises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The counts of one demo. `events`, `labels_sent` and `bad_events` are the producer's, the rest the follower's.

    `failure` is a sentence when the replay did not come to its end.
    """

    events: int
    bad_events: int
    labels_sent: int
    predictions: int
    dead_letters: Mapping[str, int]
    duplicates: int
    labels: int
    throughput_eps: float
    latency_ms: Mapping[str, float]
    model_id: str
    champion_auc: float
    failure: str = ""

    def document(self) -> dict[str, Any]:
        """Return what `--json` writes."""
        return {
            "events": self.events,
            "predictions": self.predictions,
            "dead_letters": sum(self.dead_letters.values()),
            "duplicates": self.duplicates,
            "throughput_eps": round(self.throughput_eps, 1),
            "latency_ms": dict(self.latency_ms),
            "labels": self.labels,
            "bad_events": self.bad_events,
            "dead_letter_reasons": dict(self.dead_letters),
            "model_id": self.model_id,
            "champion_auc": round(self.champion_auc, 4),
            "problems": self.problems(),
        }

    def problems(self) -> list[str]:
        """Return one sentence for each promise that was not kept; of a replay that was cut off, why it was."""
        if self.failure:
            return [self.failure]
        dead = sum(self.dead_letters.values())
        found = []
        if self.predictions + dead != self.events:
            found.append(f"{self.events} events, but {self.predictions} predictions and {dead} dead letters")
        if self.duplicates:
            found.append(f"{self.duplicates} events were answered more than once")
        if dead != self.bad_events:
            found.append(f"{self.bad_events} events were bad, but {dead} became dead letters")
        if self.labels != self.labels_sent:
            found.append(f"{self.labels_sent} labels were sent, but {self.labels} came out")
        return found

    def summary(self) -> str:
        """Return the result in a few lines for a person."""
        latency = self.latency_ms
        return (
            f"{self.events:,} events: {self.predictions:,} predictions, {sum(self.dead_letters.values()):,} dead "
            f"letters ({self.bad_events:,} events were spoilt on purpose), {self.duplicates:,} duplicates, "
            f"{self.labels:,} labels.\n"
            f"{self.throughput_eps:,.0f} events/s at the demo's pace, "
            f"end to end p50 {latency.get('p50', 0):.1f} ms, p99 {latency.get('p99', 0):.1f} ms."
        )
