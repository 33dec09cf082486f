"""What if a learner had served: it learns from the labels as they became visible, and its snapshots take over.

It is the learner of the stream, by its own strategy, and a snapshot is kept back by the same rule as there. One that
is not serves from the next block of history on; blocks are to end where one is due, after `until_due` samples.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.learn.lineage import model_id_of
from agents.learn.reader import LearnableReader
from agents.learn.stage import opener_of
from agents.replay.events import LabelledEvents, ServedEvents
from agents.replay.merging import Block
from agents.replay.scoring import Answer, OneModel, Scorer
from ml.learning.online import OnlineLearner
from ml.learning.samples import Samples
from ml.models.registry import model_type
from schemas.streams import LearnerSpec, StreamSpec
from stream.batches import Record

NOTHING: Final = -1
_LEAST_SWEPT: Final = 65_536


class _Given(NamedTuple):
    """The score of an event at the time when it was served, whose it was, and whether that is of the lineage."""

    event_time_ms: int
    score: float | list[float]
    model_id: str
    variant: str
    ours: bool


class Learning:
    """Gives the scores of the newest snapshot; before the first, those of `before`.

    The score of an event is remembered until its label can come no more, or twice as long, about 300 bytes for each.
    `published` are the snapshots that were put in force, and `served` those of them that scored an event.
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
        self._swept_at = _LEAST_SWEPT
        self._newest_label_ms = 0
        self._taken = 0
        self._published_offset = NOTHING
        self.updates = 0
        self.published: list[str] = []
        self.served: list[str] = []
        self.kept_back: list[str] = []

    @property
    def until_due(self) -> int:
        """How many more samples it learns until a snapshot is due."""
        return self._learner.publish_every - self._taken % self._learner.publish_every

    async def of_served(self, events: ServedEvents) -> Answer:
        """Score predictions, at least one, and remember what they were given."""
        answer = await self.now.of_served(events)
        if self.published and self.published[-1] not in self.served[-1:]:
            self.served.append(self.published[-1])
        for event, score, model_id, variant in zip(
            events.events, answer.scores.tolist(), answer.models, answer.variants, strict=True
        ):
            ours = bool(self.published) or model_id == self._learner.start_from
            self._given[event.event_id] = _Given(event.event_time_ms, score, model_id, variant, ours)
        return answer

    async def of_labelled(self, events: LabelledEvents) -> Answer:
        """Return the scores of the time. An event whose prediction is not held has none: a model of now may have learnt
        its label.
        """
        n, classes = len(events), len(self._spec.classes)
        found = [(row, one) for row, sample in enumerate(events.samples) if (one := self._given.get(sample.event_id))]
        rows = np.array([row for row, _ in found], dtype=np.int64)
        scores = np.full((n, classes) if classes else n, np.nan)
        models, variants = np.full(n, "", dtype=object), np.full(n, "", dtype=object)
        if found:
            scores[rows] = [one.score for _, one in found]
            models[rows] = [one.model_id for _, one in found]
            variants[rows] = [one.variant for _, one in found]
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
            stop = min(len(samples), start + self.until_due)
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
        if len(self._given) < self._swept_at:
            return
        line_ms = self._newest_label_ms - self._spec.ripens_ms
        self._given = {event_id: given for event_id, given in self._given.items() if given.event_time_ms >= line_ms}
        self._swept_at = max(_LEAST_SWEPT, 2 * len(self._given))


def until_due(block: Block, samples: str, learning: Learning) -> Iterator[Block]:
    """Yield the block in pieces that end where a snapshot is due; each must have been learnt before the next is asked
    for. `samples` is the topic that is learnt from.
    """
    while len(block):
        is_sample = np.array([source.topic == samples for source, _ in block.pieces], dtype=np.bool_)[block.places]
        places = np.flatnonzero(is_sample)
        due = learning.until_due
        piece, block = block.split(int(places[due - 1]) + 1 if due <= len(places) else len(block))
        yield piece
