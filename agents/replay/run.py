"""The two halves of a replay: what was served, and what became of it when the labels came.

Each half runs history through two worlds: the one that was, with the scores that were logged, and the one that would
have been, with those of a scorer. The second begins where it differs from the first, and costs nothing before: its
rules are others, or a score is. Where nothing is learnt the halves do not know of each other, and may run side by
side. Where something is, they go through the same blocks of history, which end where a snapshot is due, in each the
predictions first and then the samples: so no label is seen before it was there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.replay.decisions import Decisions
from agents.replay.drifting import Drifting
from agents.replay.evaluating import Evaluating, Told, answered
from agents.replay.events import Floats, HistoryReader
from agents.replay.identity import Compared, Identity, Whose
from agents.replay.labelled import Labelled, Pairs
from agents.replay.learning import Learning
from agents.replay.merging import Block
from agents.replay.question import Question
from agents.replay.scoring import OneModel, Scorer
from ml.evaluation.evaluator import Report
from ml.models.protocol import Scores
from stream.batches import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedResult:
    """What came of the predictions. Of pairs, the first is of the world that was, the second of that instead.

    `learnt` counts the events that the model that scored them may have learnt from.
    """

    events: int
    learnt: int
    unusable: int
    decisions: Decisions
    compared: Mapping[Whose, Compared]
    told: tuple[Told, Told]
    drift_windows: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledResult:
    """What came of the samples; pairs as in ServedResult. The reports are of evaluation's windows, by number.

    `not_scored` have no score in the world instead, and are left out there.
    """

    samples: int
    not_scored: int
    unusable: int
    pairs: Pairs | None
    told: tuple[Told, Told]
    reports: tuple[Mapping[int, Report], Mapping[int, Report]]


class ServedReplay:
    """Replays predictions: are the scores the same, which decisions change, and what is said of drift?"""

    def __init__(
        self,
        question: Question,
        scorer: Scorer,
        identity: Identity,
        served: Drifting,
        instead: Drifting | None = None,
        foreign: frozenset[str] = frozenset(),
        learnt_to_ms: int | None = None,
    ) -> None:
        """`served` is the drift of the world that was; `instead` is there when that of the other has other rules.

        `foreign` is as in HistoryReader; events before `learnt_to_ms` are counted as such.
        """
        self.events = 0
        self._learnt = 0
        self._learnt_to_ms = learnt_to_ms
        self._reader = HistoryReader(question.spec, question.span, foreign)
        self._scorer = scorer
        self._identity = identity
        self._decisions = Decisions(question.changed)
        self._served = served
        self._instead = instead or served

    async def open(self) -> None:
        """Begin."""
        for drifting in {self._served, self._instead}:
            await drifting.open()

    async def take(self, block: Block) -> None:
        """Replay records of `<s>.predictions`."""
        events = self._reader.served(block)
        if not len(events):
            return
        champion = _champion_of(self._scorer)
        answer = await self._scorer.of_served(events)
        self.events += len(events)
        if self._learnt_to_ms is not None:
            self._learnt += sum(event.event_time_ms < self._learnt_to_ms for event in events.events)
        self._decisions.add(events, answer)
        if self._instead is self._served and not answer.as_logged:
            self._instead = self._served.fork()
        await self._served.take(events, _as_given(events.scores))
        if self._instead is self._served:
            return
        finite = answer.finite
        if finite.all():
            await self._instead.take(events, answer.scores, champion)
        else:
            await self._instead.take(events.only(finite), answer.scores[finite], champion)

    async def result(self) -> ServedResult:
        """Return what came of all that was taken."""
        for drifting in {self._served, self._instead}:
            await drifting.judge()
        return ServedResult(
            events=self.events,
            learnt=self._learnt,
            unusable=self._reader.unusable,
            decisions=self._decisions,
            compared=self._identity.compared,
            told=(self._served.told, self._instead.told),
            drift_windows=(self._served.windows, self._instead.windows),
        )


class LabelledReplay:
    """Replays samples: how good were the scores, and what does evaluation say?"""

    def __init__(self, question: Question, scorer: Scorer, foreign: frozenset[str] = frozenset()) -> None:
        """`foreign` is as in HistoryReader."""
        self.samples = self._not_scored = 0
        self._reader = HistoryReader(question.spec, question.span, foreign)
        self._scorer = scorer
        self._labelled = Labelled(question.spec, question.changed)
        self._served = Evaluating(question.spec)
        self._instead = self._served if question.changed == question.spec else Evaluating(question.changed)

    async def take(self, records: Sequence[Record]) -> None:
        """Replay records of `<s>.samples`; a learner learns from them afterwards."""
        labelled = self._reader.labelled(records)
        answer = await self._scorer.of_labelled(labelled)
        self.samples += len(labelled)
        self._not_scored += int((~answer.finite).sum())
        if self._instead is self._served and not answer.as_logged:
            self._instead = self._served.fork()
        self._served.take(labelled.columns)
        if self._instead is not self._served:
            self._instead.take(answered(labelled, answer))
        self._labelled.add(labelled, answer)
        if isinstance(self._scorer, Learning):
            await self._scorer.learn(records, labelled, answer)

    def result(self) -> LabelledResult:
        """Return what came of all that was taken."""
        return LabelledResult(
            samples=self.samples,
            not_scored=self._not_scored,
            unusable=self._reader.unusable,
            pairs=self._labelled.pairs(),
            told=(self._served.told, self._instead.told),
            reports=(self._served.reports, self._instead.reports),
        )


def _as_given(logged: Floats) -> Scores:
    """Return logged scores as precise as the model gave them: what 32 bits hold to the last digit had no more."""
    single = logged.astype(np.float32)
    return single if np.array_equal(single, logged) else logged


def _champion_of(scorer: Scorer) -> str:
    """Return the id of the one model that is champion in the world instead; empty when it is whoever was it then."""
    scorer = scorer.now if isinstance(scorer, Learning) else scorer
    return scorer.model_id if isinstance(scorer, OneModel) else ""
