"""What the demo found out, and whether that is what Penstock promises."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.demo.drift_outcome import DriftOutcome
from app.demo.explained import Explained
from app.demo.retraining import Promotion, SeenRun
from app.demo.year import Year


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The counts of one demo. `events`, `bad_events`, `labels_sent` and `bad_labels` (labels of bad events) are the
    producer's, the rest the follower's. `auc` is by variant; `drift` is what was said of drift, and
    `explained` what became of predictions that were executed again. `runs` of training ended, some of them
    more than once (`runs_repeated`), and of their models `promotions` took over; `year` is what that was worth.

    `failure` is a sentence when the replay did not come to its end.
    """

    events: int
    bad_events: int
    labels_sent: int
    bad_labels: int
    predictions: int
    dead_letters: Mapping[str, int]
    duplicates: int
    labels: int
    samples: int
    samples_repeated: int
    labels_unmatched: Mapping[str, int]
    auc: Mapping[str, float | None]
    label_delay_ms: float | None
    windows: int
    model_versions: int
    drift: DriftOutcome
    explained: Explained
    runs: Sequence[SeenRun]
    runs_repeated: int
    promotions: Sequence[Promotion]
    year: Year
    throughput_eps: float
    latency_ms: Mapping[str, float]
    model_id: str
    champion_auc: float
    failure: str = ""

    @property
    def retrains(self) -> list[SeenRun]:
        """The runs that were carried out, however they ended."""
        return [run for run in self.runs if run.outcome != "skipped"]

    @property
    def labels_pending(self) -> int:
        """How many labels still wait for their prediction, which does not come if their event was bad."""
        return self.labels - self.samples - sum(self.labels_unmatched.values())

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
            "samples": self.samples,
            "labels_unmatched": sum(self.labels_unmatched.values()),
            "labels_pending": self.labels_pending,
            "auc": {variant: None if auc is None else round(auc, 4) for variant, auc in self.auc.items()}
            | self.year.document(),
            "retrains": len(self.retrains),
            "promotions": len(self.promotions),
            "runs": [
                {"reasons": run.reasons, "outcome": run.outcome, "message": run.message, "samples": run.samples}
                for run in self.runs
            ],
            "promoted": [asdict(promotion) for promotion in self.promotions],
            "auc_by_month": [asdict(month) for month in self.year.months],
            "model_versions": self.model_versions,
            "label_delay_ms": self.label_delay_ms,
            "windows": self.windows,
            **self.drift.document(),
            "explained": {"n": self.explained.n, "identical": self.explained.identical},
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
        if self.runs_repeated:
            found.append(f"{self.runs_repeated} training runs ended more than once")
        found += self._label_problems() + self.drift.problems(self.predictions)
        return found + self.explained.problems(self.predictions)

    def _label_problems(self) -> list[str]:
        unmatched = sum(self.labels_unmatched.values())
        scored = self.labels_sent - self.bad_labels
        found = []
        if self.samples != scored:
            found.append(f"{scored} labels were of scored events, but {self.samples} became samples")
        if self.samples_repeated:
            found.append(f"{self.samples_repeated} samples came more than once")
        if unmatched > self.bad_labels:
            found.append(f"{self.bad_labels} labels were of bad events, but {unmatched} became dead letters")
        if strange := sorted(self.labels_unmatched.keys() - {"no_prediction"}):
            found.append(f"labels became dead letters as {' and '.join(strange)}")
        return found

    def summary(self) -> str:
        """Return the result in a few lines for a person."""
        latency = self.latency_ms
        return (
            f"{self.events:,} events: {self.predictions:,} predictions, {sum(self.dead_letters.values()):,} dead "
            f"letters ({self.bad_events:,} events were spoilt on purpose), {self.duplicates:,} duplicates, "
            f"{self.labels:,} labels.\n"
            f"{self.samples:,} labels became samples; of events never scored, {sum(self.labels_unmatched.values()):,} "
            f"became dead letters and {self.labels_pending:,} are pending. {self.model_versions:,} model versions; "
            f"ROC AUC {', '.join(f'{variant} {shown(auc)}' for variant, auc in self.auc.items())}.\n"
            f"{self.drift.summary()}\n"
            f"{len(self.retrains):,} training runs, {len(self.promotions):,} of their models promoted by evidence. "
            f"{self.year.summary()}\n"
            f"{self.explained.identical:,} of {self.explained.n:,} random predictions, executed again by their models, "
            "have the very score that was logged.\n"
            f"{self.throughput_eps:,.0f} events/s at the demo's pace, "
            f"end to end p50 {latency.get('p50', 0):.1f} ms, p99 {latency.get('p99', 0):.1f} ms."
        )


def shown(auc: float | None) -> str:
    """Return a figure with three decimals, or a dash."""
    return "-" if auc is None else f"{auc:.3f}"
