"""What was fetched and waits for a task: a lane for each of its inputs."""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol

from stream.batches import Batch, TopicPartition

LANE_BATCHES = 2  # of an input wait before its partition is held; or so many, while they are little together:
LITTLE_LANE_BATCHES = 16
LITTLE_ROWS = 256  # fewer records are little
LITTLE_BYTES = 1024**2  # if their values are not more than that


class Source(Protocol):
    """What can be fetched, and is, unless it is held."""

    def resume(self, source: TopicPartition) -> None: ...
    def hold(self, source: TopicPartition) -> None: ...
    def unread(self, source: TopicPartition) -> int: ...


class Lanes:
    """Batches in the order in which they came. An input is held from when enough of it waits until less does."""

    def __init__(self, inputs: Collection[TopicPartition], source: Source) -> None:
        self._source = source
        self._lanes: dict[TopicPartition, deque[Batch]] = {each: deque() for each in inputs}
        self._ending = False

    def __bool__(self) -> bool:
        return any(self._lanes.values())

    @property
    def rows(self) -> int:
        """How many records wait."""
        return sum(len(batch.records) for lane in self._lanes.values() for batch in lane)

    def put(self, batch: Batch) -> None:
        """Take a batch in."""
        lane = self._lanes[batch.source]
        lane.append(batch)
        if _full(lane):
            self._source.hold(batch.source)

    def take(self, *, aligned: bool) -> Batch | None:
        """Take the batch that begins earliest, by Kafka's time; None while an input that lags may have earlier.

        So `aligned` inputs are read side by side, as they were written, also when there is much to catch up with. Small
        batches that would be taken one after the other are taken as one.
        """
        lane = self._earliest(aligned)
        if lane is None:
            return None
        was_full = _full(lane)
        batch = lane.popleft()
        if lane and len(batch.records) < LITTLE_ROWS:
            records = [*batch.records]
            while self._earliest(aligned) is lane and len(records) + len(lane[0].records) <= LITTLE_ROWS:
                records += lane.popleft().records
            batch = Batch(batch.source, records, batch.epoch)
        if was_full and not _full(lane) and not self._ending:
            self._source.resume(batch.source)
        return batch

    def end(self) -> None:
        """Fetch nothing more: what waits is to be taken, in any order, and then the lanes are cleared."""
        self._ending = True
        for source in self._lanes:
            self._source.hold(source)

    def clear(self) -> None:
        """Forget what waits, and hold all inputs: they will be opened again."""
        self.end()
        self._ending = False
        for lane in self._lanes.values():
            lane.clear()

    def _earliest(self, aligned: bool) -> deque[Batch] | None:
        waiting = [lane for lane in self._lanes.values() if lane]
        if not waiting or (aligned and not self._ending and self._awaited()):
            return None
        return min(waiting, key=lambda lane: lane[0].records[0].timestamp)

    def _awaited(self) -> bool:
        """Whether an input has records on their way while another's wait here."""
        return any(not lane and self._source.unread(source) for source, lane in self._lanes.items())


def _full(lane: Sequence[Batch]) -> bool:
    """Tell whether enough waits to hold a partition: two batches, or many small ones."""
    return len(lane) >= LANE_BATCHES and (len(lane) >= LITTLE_LANE_BATCHES or not _little(lane))


def _little(lane: Sequence[Batch]) -> bool:
    rows = sum(len(batch.records) for batch in lane)
    return rows < LITTLE_ROWS and _bytes(lane) <= LITTLE_BYTES


def _bytes(lane: Sequence[Batch]) -> int:
    return sum(len(record.value or b"") for batch in lane for record in batch.records)
