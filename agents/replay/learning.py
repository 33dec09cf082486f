"""What if a learner had served: it learns from the labels as they became visible, and its snapshots take over.

It is the learner of the stream, by its own strategy, and a snapshot is kept back by the same rule as there. One that
is not serves from the next block of history on, as if it took a moment to be put in force.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.learn.lineage import model_id_of
from agents.learn.reader import LearnableReader
from agents.learn.stage import opener_of
from agents.replay.events import LabelledEvents, ServedEvents
from agents.replay.scoring import Answer, OneModel, Scorer, together
from ml.learning.online import OnlineLearner
from ml.learning.samples import Samples
from ml.models.registry import model_type
from schemas.streams import LearnerSpec, StreamSpec
from stream.batches import Record

NOTHING: Final = -1


class _Given(NamedTuple):
    """The score of an event at the time when it was served, whose it was, and whether that is of the lineage."""

    event_time_ms: int
    score: float | list[float]
    model_id: str
    variant: str
    ours: bool


class Learning:
    """Gives the scores of the newest snapshot; before the first, those of `before`.

    The score of an event is remembered until its label can come no more, about 300 bytes for each.
    """

    def __init__(
        self, spec: StreamSpec, lineage: str, learner: LearnerSpec, start_from: bytes | None, before: Scorer
    ) -> None:
        """`learner` has its strategy, batch size and buffer set; `start_from` is the verified model it goes on from."""
        self._spec = spec
        self._lineage = lineage
        self._learner = learner
        self._reader = LearnableReader(spec, lineage, learner)
        self._open: Final = opener_of(spec, learner, start_from=start_from)
        self._model: OnlineLearner | None = None
        self.now: Scorer = before
        self._given: dict[str, _Given] = {}
        self._newest_label_ms = 0
        self._taken = 0
        self._published_offset = NOTHING
        self.updates = 0
        self.published: list[str] = []
        self.kept_back: list[str] = []

    async def of_served(self, events: ServedEvents) -> Answer:
        """Score predictions, and remember what they were given."""
        answer = await self.now.of_served(events)
        for event, score, model_id, variant in zip(
            events.events, answer.scores.tolist(), answer.models, answer.variants, strict=True
        ):
            ours = bool(self.published) or model_id == self._learner.start_from
            self._given[event.event_id] = _Given(event.event_time_ms, score, model_id, variant, ours)
        return answer

    async def of_labelled(self, events: LabelledEvents) -> Answer:
        """Return the scores of the time. Of an event whose prediction is not held, the newest model's; a correction of
        it gets none: that model may have learnt its label.
        """
        n, classes = len(events), len(self._spec.classes)
        given = [self._given.get(sample.event_id) for sample in events.samples]
        fresh = await self.now.of_labelled(events)
        known = np.array([one is not None for one in given], dtype=np.bool_)
        unseen = ~known & (events.columns.revisions == 0)
        remembered = np.array([one.score for one in given if one is not None], dtype=np.float64)
        scores = together([(unseen, fresh.scores[unseen])], n, classes).astype(np.float64)
        models, variants = fresh.models.copy(), fresh.variants.copy()
        if known.any():
            scores[known] = remembered
            models[known] = [one.model_id for one in given if one is not None]
            variants[known] = [one.variant for one in given if one is not None]
        return Answer(scores, models, variants)

    async def learn(self, records: Sequence[Record], labelled: LabelledEvents, answer: Answer) -> None:
        """Learn from records of `<s>.samples`, of which `answer` says how their events were scored."""
        if self._model is None:
            self._model = await asyncio.to_thread(self._open)
        offsets = {int(offset): row for row, offset in enumerate(labelled.columns.offsets.tolist())}
        for run in self._reader.read(records):
            if isinstance(run, Samples):
                rows = [offsets[offset] for offset in run.offsets.tolist() if offset in offsets]
                kept = np.isin(run.offsets, labelled.columns.offsets)
                samples = type(run)(*(column[kept] for column in run.columns()))
                await self._take(replace(samples, served=self._served(labelled, answer, rows)))
            else:
                self.updates += len(self._model.trigger())
        self._forget(labelled)

    def _served(self, labelled: LabelledEvents, answer: Answer, rows: Sequence[int]) -> NDArray[np.float64]:
        """Return the scores of these rows that the lineage itself gave, NaN where it did not."""
        ours = [(given := self._given.get(labelled.samples[row].event_id)) is not None and given.ours for row in rows]
        scores = np.array(answer.scores[list(rows)], dtype=np.float64)
        scores[~np.array(ours, dtype=np.bool_)] = np.nan
        return scores

    async def _take(self, samples: Samples) -> None:
        """Learn, and take a snapshot after every so many samples since the learner began."""
        assert self._model is not None
        every, start = self._learner.publish_every, 0
        while start < len(samples):
            stop = min(len(samples), start + every - self._taken % every)
            self.updates += len(await asyncio.to_thread(self._model.take, samples.between(start, stop)))
            self._taken += stop - start
            start = stop
            if self._taken % every == 0:
                self._publish(self._model)

    def _publish(self, learner: OnlineLearner) -> None:
        """Let a snapshot serve, if anything was learnt since the last one and it has not become worse."""
        snapshot, standing = learner.snapshot(), learner.standing()
        if snapshot.next_offset == self._published_offset or not snapshot.learnt:
            return
        self._published_offset = snapshot.next_offset
        model_id = model_id_of(self._lineage, snapshot.next_offset)
        if standing is not None and standing.own > standing.served + self._learner.publish_margin:
            self.kept_back.append(model_id)
            return
        self.published.append(model_id)
        model = model_type(self._learner.algorithm).load(snapshot.payload)
        self.now = OneModel(self._spec, model_id, model)

    def _forget(self, labelled: LabelledEvents) -> None:
        """Forget events whose labels can come no more."""
        if len(labelled):
            self._newest_label_ms = max(self._newest_label_ms, int(labelled.columns.label_times_ms.max()))
        line_ms = self._newest_label_ms - self._spec.ripens_ms
        gone = [event_id for event_id, given in self._given.items() if given.event_time_ms < line_ms]
        for event_id in gone:
            del self._given[event_id]
