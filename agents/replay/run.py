"""The two halves of a replay: what was served, and what became of it when the labels came.

Each half runs history through two worlds: the one that was, with the scores that were logged, and the one that would
have been, with those of a scorer. Where nothing is learnt the halves do not know of each other, and may run side by
side. Where something is, they go through the same blocks of history, in each the predictions first and then the
samples: so no label is seen before it was there, and some are seen a block later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agents.replay.decisions import Decisions
from agents.replay.drifting import Drifting
from agents.replay.evaluating import Evaluating, answered
from agents.replay.events import HistoryReader, ServedEvents
from agents.replay.identity import Compared, Identity
from agents.replay.labelled import Labelled, Pairs
from agents.replay.learning import Learning
from agents.replay.merging import Block
from agents.replay.question import Question
from agents.replay.scoring import Answer, OneModel, Scorer
from ml.evaluation.evaluator import Report
from schemas.events import Alert, RetrainRequest
from stream.batches import Record


@dataclass(slots=True)
class Told:
    """What people and trainers would have been told by one of the worlds."""

    alerts: list[Alert] = field(default_factory=list)
    requests: list[RetrainRequest] = field(default_factory=list)

    def add(self, told: tuple[list[Alert], list[RetrainRequest]]) -> None:
        """Append what was told."""
        self.alerts += told[0]
        self.requests += told[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedResult:
    """What came of the predictions. Of pairs, the first is of the world that was, the second of that instead."""

    events: int
    unusable: int
    decisions: Decisions
    compared: Mapping[tuple[str, str], Compared]
    told: tuple[Told, Told]
    drift_windows: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledResult:
    """What came of the samples; pairs as in ServedResult. The reports are of evaluation's windows, by number."""

    samples: int
    unusable: int
    pairs: Pairs | None
    told: tuple[Told, Told]
    reports: tuple[Mapping[int, Report], Mapping[int, Report]]


class ServedReplay:
    """Replays predictions: are the scores the same, which decisions change, and what is said of drift?"""

    def __init__(
        self, question: Question, scorer: Scorer, identity: Identity, served: Drifting, replayed: Drifting
    ) -> None:
        self.events = 0
        self._reader = HistoryReader(question.spec, question.span)
        self._scorer = scorer
        self._identity = identity
        self._decisions = Decisions(question.changed)
        self._served, self._replayed = served, replayed
        self._told = Told(), Told()

    async def open(self) -> None:
        """Begin."""
        await self._served.open()
        await self._replayed.open()

    async def take(self, block: Block) -> None:
        """Replay what a block has of predictions."""
        if not block:
            return
        events = self._reader.served(block)
        if len(events):
            await self._serve(events)
        written_ms = max(records[-1].timestamp for _, records in block)
        for told, drifting in zip(self._told, (self._served, self._replayed), strict=True):
            told.add(await drifting.judge(written_ms))

    async def _serve(self, events: ServedEvents) -> None:
        champion = _champion_of(self._scorer)
        answer = await self._scorer.of_served(events)
        self.events += len(events)
        self._decisions.add(events, answer)
        await self._served.serve(events, events.scores)
        events, answer = _scored(events, answer)
        await self._replayed.serve(events, answer.scores, champion)

    def result(self) -> ServedResult:
        """Return what came of all that was taken."""
        return ServedResult(
            events=self.events,
            unusable=self._reader.unusable,
            decisions=self._decisions,
            compared=self._identity.compared,
            told=self._told,
            drift_windows=(self._served.windows, self._replayed.windows),
        )


class LabelledReplay:
    """Replays samples: how good were the scores, and what does evaluation say?"""

    def __init__(self, question: Question, scorer: Scorer) -> None:
        self.samples = 0
        self._reader = HistoryReader(question.spec, question.span)
        self._scorer = scorer
        self._labelled = Labelled(question.changed)
        self._served, self._replayed = Evaluating(question.spec), Evaluating(question.changed)
        self._told = Told(), Told()

    async def take(self, records: Sequence[Record]) -> None:
        """Replay records of `<s>.samples`; a learner learns from them afterwards."""
        labelled = self._reader.labelled(records)
        answer = await self._scorer.of_labelled(labelled)
        self.samples += len(labelled)
        self._told[0].add(self._served.take(labelled.columns))
        self._told[1].add(self._replayed.take(answered(labelled, answer)))
        self._labelled.add(labelled, answer)
        if isinstance(self._scorer, Learning):
            await self._scorer.learn(records, labelled, answer)

    def result(self) -> LabelledResult:
        """Return what came of all that was taken."""
        return LabelledResult(
            samples=self.samples,
            unusable=self._reader.unusable,
            pairs=self._labelled.pairs(),
            told=self._told,
            reports=(self._served.reports, self._replayed.reports),
        )


def _champion_of(scorer: Scorer) -> str:
    """Return the id of the one model that is champion in the world instead; empty when it is whoever was it then."""
    scorer = scorer.now if isinstance(scorer, Learning) else scorer
    return scorer.model_id if isinstance(scorer, OneModel) else ""


def _scored(events: ServedEvents, answer: Answer) -> tuple[ServedEvents, Answer]:
    """Leave out the events without a score."""
    finite = answer.finite
    if finite.all():
        return events, answer
    rows = np.flatnonzero(finite)
    before = np.concatenate([[0], np.cumsum(finite)]).tolist()
    kept = ServedEvents(
        records=[events.records[row] for row in rows.tolist()],
        events=[events.events[row] for row in rows.tolist()],
        matrix=events.matrix[rows],
        labels=events.labels[rows],
        scores=events.scores[rows],
        parts=[(number, before[start], before[stop]) for number, start, stop in events.parts],
    )
    return kept, Answer(answer.scores[rows], answer.models[rows], answer.variants[rows])
