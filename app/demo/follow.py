"""Follows a stream's topics from the outside, as any consumer could, and counts what comes out.

A record of `<s>.features` is a *source*, named by its partition and offset. It must be answered once: by the
prediction or the dead letter that names it. So counting needs the answers only, and end-to-end latency is the
time at which this reader has a prediction in hand, minus the source's timestamp, which is the producer's clock
at sending.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from app.demo.drift import Drift
from app.demo.feedback import Feedback, Record
from app.demo.retraining import Retraining
from schemas.events import DeadLetter
from schemas.wire import decoder
from stream.consumers import close_consumer, start_consumer
from topics import StreamTopics

SCORE_BINS: Final = 16
_FETCH_MAX_WAIT_MS: Final = 5  # the embedded broker answers a fetch only when this is over
_POLL_MS: Final = 100

Source = tuple[int, int]  # partition and offset in <s>.features


class Seen(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Prediction that are counted."""

    event_id: str
    event_time_ms: int
    model_id: str
    score: float
    partition: int
    offset: int


class Tally:
    """What has come out of a stream since `start_offsets` (of `<s>.features`, by partition), and of its labels.

    Answers to earlier sources are not counted, nor is what `feedback` leaves out. `scores` has SCORE_BINS equal bins
    from 0 to 1; `latencies_ms` has one entry per prediction, in the order in which they were seen. `drift` is what was
    said of drift, `retraining` what was said of training.
    """

    def __init__(self, topics: StreamTopics, start_offsets: dict[int, int], feedback: Feedback) -> None:
        self.feedback = feedback
        self.drift = Drift(topics)
        self.retraining = Retraining(topics, lambda: self.event_time_ms)
        self._told = feedback.takers | self.drift.takers | self.retraining.takers
        self._start_offsets = start_offsets
        self._takers: dict[str, Callable[[Record, float], None]] = {
            topics.features: self._take_feature,
            topics.predictions: self._take_prediction,
            topics.features_dead: self._take_dead_letter,
            topics.labels: self._take_label,
        }
        self._sent_ms: dict[Source, float] = {}
        self._unmatched_ms: dict[Source, float] = {}
        self._answered: set[Source] = set()
        self._event_ids: set[str] = set()
        self.predictions = 0
        self.labels = 0
        self.dead_letters: Counter[str] = Counter()
        self.last_dead_letter: DeadLetter | None = None
        self.model_id = ""
        self.event_time_ms = 0
        self.scores = [0] * SCORE_BINS
        self.latencies_ms = array("f")
        self.first_sent_ms = float("inf")
        self.last_answer_ms = 0.0

    @property
    def answered(self) -> int:
        """How many sources have an answer."""
        return len(self._answered)

    @property
    def duplicates(self) -> int:
        """How many answers are not the first to their source, or predictions not the first of their event id."""
        answers = self.predictions + self.dead_letters.total()
        return max(answers - len(self._answered), self.predictions - len(self._event_ids))

    @property
    def records_out(self) -> int:
        """How many of the producer's records have come out: sources answered (and judged) and labels settled."""
        return max(self.answered - self.drift.behind, 0) + min(self.labels, self.feedback.settled)

    @property
    def throughput_eps(self) -> float:
        """Answers per second, from the first source's sending to the last answer."""
        seconds = (self.last_answer_ms - self.first_sent_ms) / 1000
        return self.answered / seconds if seconds > 0 else 0.0

    def latency_ms(self, start: int = 0) -> dict[str, float]:
        """Return the percentiles p50 and p99 of `latencies_ms[start:]`; empty without a prediction."""
        chosen = np.array(self.latencies_ms[start:])
        if not chosen.size:
            return {}
        p50, p99 = np.percentile(chosen, (50, 99)).tolist()
        return {"p50": round(p50, 2), "p99": round(p99, 2)}

    def take(self, topic: str, records: Iterable[Record], seen_ms: float) -> None:
        """Count `records` of `topic`, in hand since `seen_ms`; about 2 µs for a prediction."""
        if (told := self._told.get(topic)) is not None:
            for record in records:
                told(record)
            return
        taker = self._takers[topic]
        for record in records:
            taker(record, seen_ms)

    def _take_feature(self, record: Record, seen_ms: float) -> None:
        source = (record.partition, record.offset)
        self.first_sent_ms = min(self.first_sent_ms, record.timestamp)
        if (answer_ms := self._unmatched_ms.pop(source, None)) is not None:
            self.latencies_ms.append(answer_ms - record.timestamp)
        elif source not in self._answered:
            self._sent_ms[source] = record.timestamp

    def _take_prediction(self, record: Record, seen_ms: float) -> None:
        prediction = decoder(Seen).decode(record.value or b"")
        source = (prediction.partition, prediction.offset)
        if not self._counts(source):
            return
        self.predictions += 1
        self._event_ids.add(prediction.event_id)
        self.model_id = prediction.model_id
        self.event_time_ms = max(self.event_time_ms, prediction.event_time_ms)
        self.scores[min(int(prediction.score * SCORE_BINS), SCORE_BINS - 1)] += 1
        if source not in self._answered:
            self._answer(source, seen_ms)
            if (sent_ms := self._sent_ms.pop(source, None)) is not None:
                self.latencies_ms.append(seen_ms - sent_ms)
            else:  # another broker's fetch brought the answer first
                self._unmatched_ms[source] = seen_ms

    def _take_dead_letter(self, record: Record, seen_ms: float) -> None:
        letter = decoder(DeadLetter).decode(record.value or b"")
        source = (letter.partition, letter.offset)
        if not self._counts(source):
            return
        self.dead_letters[letter.reason] += 1
        self.last_dead_letter = letter
        self._answer(source, seen_ms)
        self._sent_ms.pop(source, None)

    def _take_label(self, record: Record, seen_ms: float) -> None:
        self.labels += 1

    def _answer(self, source: Source, seen_ms: float) -> None:
        self._answered.add(source)
        self.last_answer_ms = seen_ms

    def _counts(self, source: Source) -> bool:
        partition, offset = source
        return offset >= self._start_offsets.get(partition, 0)


class Follower:
    """A consumer without a group that reads a stream's topics from where they end when it starts.

    On a fresh broker that is their beginning. Start it before the producer, and before the worker. `options` are
    `KafkaConnection.client_options()`; `clock_ms` is the wall clock in milliseconds since the epoch.
    `starts` is where the topics ended when it started.
    """

    def __init__(
        self,
        options: dict[str, Any],
        topics: StreamTopics,
        partitions: int,
        *,
        read_committed: bool,
        clock_ms: Callable[[], float],
    ) -> None:
        wide = (topics.features, topics.predictions, topics.features_dead, topics.labels, topics.labels_dead)
        learning = (topics.samples, topics.performance, topics.updates, topics.models, topics.checkpoints)
        training = (topics.training, topics.deployments)
        drift = (topics.histograms, topics.drift, topics.alerts)
        self._topics = topics
        self._places = [TopicPartition(name, partition) for name in wide for partition in range(partitions)]
        self._places += [TopicPartition(name, 0) for name in (*learning, *training, *drift)]
        self._clock_ms = clock_ms
        self._consumer = AIOKafkaConsumer(
            **options,
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed" if read_committed else "read_uncommitted",
            fetch_max_wait_ms=_FETCH_MAX_WAIT_MS,
        )
        self.starts: Mapping[TopicPartition, int] = {}
        self.tally = self._new_tally({})

    async def start(self) -> None:
        """Connect, and stand at the end of every topic."""
        await start_consumer(self._consumer)
        self._consumer.assign(self._places)
        ends = await self._consumer.end_offsets(self._places)
        for place, end in ends.items():
            self._consumer.seek(place, end)
        self.starts = ends
        self.tally = self._new_tally(ends)

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            batches = await self._consumer.getmany(timeout_ms=_POLL_MS)
            seen_ms = self._clock_ms()
            for place, records in batches.items():
                self.tally.take(place.topic, records, seen_ms)

    def _new_tally(self, ends: dict[TopicPartition, int]) -> Tally:
        def of(topic: str) -> dict[int, int]:
            return {place.partition: end for place, end in ends.items() if place.topic == topic}

        topics = self._topics
        feedback = Feedback(topics, of(topics.labels), of(topics.samples).get(0, 0))
        return Tally(topics, of(topics.features), feedback)

    async def stop(self) -> None:
        """Disconnect."""
        await close_consumer(self._consumer)
