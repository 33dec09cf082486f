"""A replay: blocks of history go through two worlds, the one that was and the one that would have been.

Within a block the predictions come first, then the samples: so no label is seen before it was there, and some are seen
a block later. Everything follows from the records and their order, so two replays give the same.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from agents.replay.decisions import Decisions
from agents.replay.evaluating import answered
from agents.replay.events import HistoryReader, LabelledEvents, ServedEvents
from agents.replay.labelled import Labelled
from agents.replay.learning import Learning
from agents.replay.merging import Block
from agents.replay.scoring import Answer, OneModel, Scorer
from agents.replay.worlds import World
from topics.specs import StreamTopics

BLOCKS_AHEAD = 4


@dataclass(slots=True)
class Progress:
    """How much of the history was replayed: records, and of them predictions and samples of its span."""

    records: int = 0
    events: int = 0
    samples: int = 0


class Replay:
    """Runs history through `served`, with the scores that were logged, and `replayed`, with those of `scorer`."""

    def __init__(self, reader: HistoryReader, scorer: Scorer, served: World, replayed: World) -> None:
        self.progress = Progress()
        self.served, self.replayed = served, replayed
        self.decisions = Decisions(replayed.spec)
        self.labelled = Labelled(replayed.spec)
        self._reader = reader
        self._scorer = scorer
        self._samples = StreamTopics(served.spec.name).samples

    async def steps(self, blocks: AsyncGenerator[Block, None]) -> AsyncGenerator[Progress, None]:
        """Replay everything; yield after each block. The next blocks are read meanwhile."""
        await self.served.open()
        await self.replayed.open()
        async with aclosing(_ahead(blocks)) as ready:
            async for block in ready:
                await self.take(block)
                yield self.progress

    async def take(self, block: Block) -> None:
        """Replay one block."""
        predictions = [piece for piece in block if piece[0].topic != self._samples]
        written_ms = max(records[-1].timestamp for _, records in block)
        self.progress.records += sum(len(records) for _, records in block)
        if predictions:
            await self._serve(self._reader.served(predictions))
            await self.served.judge(written_ms)
            await self.replayed.judge(written_ms)
        for source, records in block:
            if source.topic == self._samples:
                labelled = self._reader.labelled(records)
                answer = await self._label(labelled)
                if isinstance(self._scorer, Learning):
                    await self._scorer.learn(records, labelled, answer)

    async def _serve(self, events: ServedEvents) -> None:
        if not len(events):
            return
        answer = await self._scorer.of_served(events)
        self.progress.events += len(events)
        self.decisions.add(events, answer)
        await self.served.serve(events, events.scores)
        events, answer = _scored(events, answer)
        if len(events):
            await self.replayed.serve(events, answer.scores, self._champion)

    @property
    def _champion(self) -> str:
        """The id of the one model that is champion in the replayed world; empty when it is whoever was it then."""
        scorer = self._scorer.now if isinstance(self._scorer, Learning) else self._scorer
        return scorer.model_id if isinstance(scorer, OneModel) else ""

    async def _label(self, labelled: LabelledEvents) -> Answer:
        answer = await self._scorer.of_labelled(labelled)
        self.progress.samples += len(labelled)
        if len(labelled):
            self.served.label(labelled.columns)
            self.replayed.label(answered(labelled, answer))
            self.labelled.add(labelled, answer)
        return answer


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


async def _ahead(blocks: AsyncGenerator[Block, None]) -> AsyncGenerator[Block, None]:
    """Yield the blocks, and read on while somebody works with one."""
    ready: asyncio.Queue[Block | None] = asyncio.Queue(BLOCKS_AHEAD)

    async def read() -> None:
        async with aclosing(blocks):
            async for block in blocks:
                await ready.put(block)
        await ready.put(None)

    reading = asyncio.create_task(read())
    try:
        while (block := await _next(ready, reading)) is not None:
            yield block
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _next(ready: "asyncio.Queue[Block | None]", reading: "asyncio.Task[None]") -> Block | None:
    """Return the next block, or raise what ended the reading."""
    getting = asyncio.ensure_future(ready.get())
    try:
        await asyncio.wait({getting, reading}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        if (error := reading.exception()) is not None:
            raise error
        return await getting  # the last word, which was put in a moment ago
    finally:
        getting.cancel()
