"""One experiment as a fold: samples, counts and changes of shares in; at any moment, what is known of it.

Samples are held in cohorts of event time and count when their cohort is mature, all at once: labels that come early
differ from late ones, and a variant that is good at what is known early would look good. A cohort is an eighth of the
time that labels may take, and a second at least. Which one depends on the event's time alone, so a revision comes into
that of its event. Only an event further ahead of all labels than _AHEAD cohorts is taken to be just so far ahead; so at
most nineteen cohorts wait, whatever event times are, and a revision of it comes into that cohort or a later one.

In memory it needs, at worst: for each epoch, 160 kB for one metric and 80 for each guard metric; as much for each epoch
that a waiting cohort has events of; and for each variant up to 250 kB in each cohort, and once for all. With two
variants, some 10 MB with 10 epochs and one metric, and 30 MB with MAX_EPOCHS and four. More epochs are not taken. A
dump is mostly a tenth of that, and small where there are few samples.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml.errors import CountsInvalid, ModelPayloadInvalid
from ml.evaluation.histogram import Ints
from ml.experiments.assignment import BUCKETS
from ml.experiments.evidence import Evidence, evidence_of
from ml.experiments.guardrails import guardrails
from ml.experiments.look import Contrast, Figures, Guardrail, Look
from ml.experiments.outcomes import Counts, CountsState
from ml.experiments.rollout import Now, Told, next_step
from ml.experiments.rules import Counted, Outcomes, Rules
from ml.experiments.served import ERRORS, EVENTS, Served, ServedState
from ml.experiments.verdict import verdict_of
from ml.experiments.worth import Worth, worth_of

__all__ = [
    "LATE",
    "MAX_EPOCHS",
    "MISPLACED",
    "UNKNOWN_EVENT",
    "Contrast",
    "Counted",
    "Figures",
    "Guardrail",
    "Look",
    "Monitor",
    "Outcomes",
    "Rules",
]

MAX_EPOCHS: Final = 32

LATE, MISPLACED, UNKNOWN_EVENT = "late", "misplaced", "unknown_event"
"""Why a sample is not counted: its cohort is mature; its bucket is another variant's; nothing says what it replaces."""

_COHORTS: Final = 8  # in the time that labels may take
_LEAST_COHORT_MS: Final = 1000
_AHEAD: Final = _COHORTS  # an event may be known as long before as its label after it


class MonitorState(msgspec.Struct, frozen=True, array_like=True):
    """A Monitor at rest; `cohorts` by number, ascending."""

    head_ms: int
    missed: dict[str, int]
    served: ServedState
    mature: CountsState
    cohorts: list[tuple[int, CountsState]]


class Monitor:
    """What is known of one experiment. `tables` are the expanded bucket tables of its epochs, from the first on.

    `missed` counts samples that are not counted, by reason. Everything but a look's last digits is whole numbers, and
    these follow from them: any cut of the same log into batches gives the same looks.
    """

    def __init__(self, rules: Rules, tables: Sequence[NDArray[np.int16]]) -> None:
        self.missed: Counter[str] = Counter()
        self._rules = rules
        self._cohort_ms = max(rules.ripens_ms // _COHORTS, _LEAST_COHORT_MS)
        self._room: NDArray[np.intp] = np.empty((MAX_EPOCHS, BUCKETS), dtype=np.intp)  # takes memory as it fills
        self._tables = self._room[:0]
        self._served = Served(len(rules.variants))
        self._head_ms = 0
        self._mature = Counts(rules)
        self._cohorts: dict[int, Counts] = {}
        self._by_bucket: Ints = np.zeros((len(rules.variants), BUCKETS), dtype=np.int64)  # samples, mature or not
        self._evidence: Evidence | None = None
        for table in tables:
            self.add_epoch(table)

    @property
    def epochs(self) -> int:
        """How many epochs have begun."""
        return len(self._tables)

    def add_epoch(self, table: NDArray[np.int16]) -> None:
        """Begin the next epoch. Raises CountsInvalid beyond MAX_EPOCHS."""
        if self.epochs == MAX_EPOCHS:
            raise CountsInvalid(f"an experiment has {MAX_EPOCHS} epochs at most")
        self._room[self.epochs] = table
        self._tables = self._room[: self.epochs + 1]
        self._served.add_epoch()
        self._evidence = None

    def take(self, outcomes: Outcomes) -> None:
        """Put samples into their cohorts; 1 to 2 µs for each in batches of 1,000, and 50 µs for the batch.

        Raises CountsInvalid, before anything is counted, for an epoch that has not begun.
        """
        if not len(outcomes):
            return
        if outcomes.epochs.min() < 0 or outcomes.epochs.max() >= self.epochs:
            raise CountsInvalid(f"a sample is of an epoch that has not begun; {self.epochs} have")
        heads_ms = np.maximum(np.maximum.accumulate(outcomes.label_times_ms), self._head_ms)
        before_ms = np.concatenate([[self._head_ms], heads_ms[:-1]])
        self._head_ms = int(heads_ms[-1])
        numbers = np.minimum(outcomes.event_times_ms // self._cohort_ms, heads_ms // self._cohort_ms + _AHEAD)
        ends_ms = (numbers + 1) * self._cohort_ms
        kept = np.ones(len(outcomes), dtype=np.bool_)
        for reason, wrong in (
            (LATE, ends_ms + self._rules.ripens_ms <= before_ms),
            (MISPLACED, self._tables[outcomes.epochs, outcomes.buckets] != outcomes.variants),
            (UNKNOWN_EVENT, (outcomes.revisions > 0) & (outcomes.replaced < 0)),
        ):
            self.missed[reason] += int(np.count_nonzero(wrong & kept))
            kept &= ~wrong
        fresh = np.flatnonzero(kept & (outcomes.revisions == 0))
        np.add.at(self._by_bucket, (outcomes.variants[fresh], outcomes.buckets[fresh]), 1)
        for number in np.unique(numbers[kept]).tolist():
            cohort = self._cohorts.setdefault(number, Counts(self._rules))
            cohort.add(outcomes.take(np.flatnonzero(kept & (numbers == number))))
        for number in sorted(self._cohorts):
            if (number + 1) * self._cohort_ms + self._rules.ripens_ms <= self._head_ms:
                self._mature.merge(self._cohorts.pop(number))
                self._evidence = None

    def count(self, counted: Sequence[Counted]) -> None:
        """Count scored events. Raises CountsInvalid, before anything is counted, where one does not fit."""
        self._served.add(counted)

    def look(self) -> Look:
        """Return what is known now; 0.1 ms, and when a cohort has become mature, 0.6 ms more.

        That is with one epoch and challenger: each further epoch costs 0.1 ms, and 0.05 for each guard metric.
        """
        if self._evidence is None:
            self._evidence = evidence_of(self._rules, self._mature, self._tables)
        rules, known = self._rules, self._evidence
        labelled = worth_of(self._by_bucket)
        variants = self._figures(known, labelled)
        judged_guardrails = guardrails(rules, self._served, known.contrasts, labelled)
        judged = verdict_of(rules, variants, known, judged_guardrails)
        told = Told("none", judged.why)
        if rules.kind == "rollout":
            events = int(self._served.counts[-1, 1, EVENTS])
            earlier = any(cohort.has_before(self.epochs - 1) for cohort in self._cohorts.values())
            now = Now(variants[1], known.contrasts[0], judged_guardrails, int(known.newest[1]), events, earlier)
            told = next_step(rules, now, judged)
        return Look(
            samples=self._mature.n,
            ripening=sum(cohort.n for cohort in self._cohorts.values()),
            variants=variants,
            contrasts=known.contrasts,
            guardrails=judged_guardrails,
            sample_ratio_p=known.sample_ratio_p,
            verdict=judged.verdict,
            winner=judged.winner,
            step=told.step,
            why=told.why,
            stuck=told.stuck,
        )

    def _figures(self, known: Evidence, labelled: list[Worth]) -> list[Figures]:
        rules, served = self._rules, self._served
        shares = np.bincount(self._tables[-1], minlength=len(rules.variants)) / self._tables.shape[1]
        counts = served.counts.sum(axis=0)
        found = []
        for place, name in enumerate(rules.variants):
            worth = (labelled[0].independent, labelled[place].independent)
            samples = int(known.samples[place])
            means = known.means[:, place].tolist() if samples else [None] * len(known.means)
            found.append(
                Figures(
                    variant=name,
                    share=float(shares[place]),
                    events=int(counts[place, EVENTS]),
                    errors=int(counts[place, ERRORS]),
                    call_ms=served.call_ms(place),
                    score_psi=served.score_psi(place, worth) if place else None,
                    samples=samples,
                    buckets=int(known.buckets[place]),
                    means=dict(zip(rules.metrics, means, strict=True)),
                    f1=known.ranking[place][0],
                    roc_auc=known.ranking[place][1],
                )
            )
        return found

    def dump(self) -> bytes:
        """Return the state; 10 to 50 ms with much in it. The bucket tables are no part of it."""
        cohorts = [(number, self._cohorts[number].dump()) for number in sorted(self._cohorts)]
        missed = {reason: self.missed[reason] for reason in sorted(self.missed)}
        state = MonitorState(self._head_ms, missed, self._served.dump(), self._mature.dump(), cohorts)
        return zlib.compress(msgspec.msgpack.encode(state), 1)

    def load(self, dumped: bytes) -> None:
        """Take over a state of the same rules, and of these epochs or fewer. ModelPayloadInvalid when it is not."""
        try:
            state = msgspec.msgpack.decode(zlib.decompress(dumped), type=MonitorState)
            if any(s.epoch >= self.epochs for c in (state.mature, *(c for _, c in state.cohorts)) for s in c.strata):
                raise ValueError("it has samples of epochs that have not begun")
            mature = Counts.restored(self._rules, state.mature)
            cohorts = {number: Counts.restored(self._rules, cohort) for number, cohort in state.cohorts}
            self._served.load(state.served)
        except (ValueError, IndexError, zlib.error, msgspec.MsgspecError) as error:
            raise ModelPayloadInvalid(f"these bytes are no state of this experiment: {error}") from error
        self._head_ms, self.missed = state.head_ms, Counter(state.missed)
        self._mature, self._cohorts, self._evidence = mature, cohorts, None
        self._by_bucket[:] = 0
        for counts in (mature, *cohorts.values()):
            for epoch, stratum in counts.strata().items():
                self._by_bucket[self._tables[epoch], np.arange(BUCKETS)] += stratum.cells[0]
