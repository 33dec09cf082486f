"""Dead letters read and replayed on brokers that run: each original once, whatever comes between."""

import asyncio
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.cli.context import leave_out_kafka
from app.clock import now_ms
from app.dead_letter_replay import Outcome, Replay
from app.dead_letters import Lane, look
from schemas.errors import InvalidEvent, PenstockError, SettingsError
from schemas.events import DeadLetter, Sample
from schemas.streams import MINUTE_MS, StreamSpec
from schemas.wire import decode
from stream.admin import apply
from stream.connection import KafkaConnection
from stream.deadletters import KEPT_BYTES, dead_letter
from stream.partitioner import partitions_of
from tests.conftest import Broker
from tests.workers import Deployment, Sent, document, home_of, placed, train
from topics import StreamTopics, topics_of


@dataclass(frozen=True)
class Record:
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0


@dataclass(frozen=True)
class Field:
    """A stream with its topics, and how to replay its dead feature events."""

    broker: Broker
    spec: StreamSpec
    replay: Replay

    async def bury(self, *records: Record, reason: str = "some_reason") -> None:
        """Write the dead letters of `records`, which lay on partition 0."""
        source = TopicPartition(self.replay.lane.topic, 0)
        async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap) as producer:
            for record in records:
                error = InvalidEvent(reason, "a sentence")
                written = dead_letter(record, source, "score", error, now_ms=record.offset)
                await producer.send(self.replay.lane.dead, written.value, written.key, partition=0)

    async def _settle(self) -> None:
        """Wait until the last transaction is visible: Kafka says that it is committed a little earlier."""
        if self.broker.kind == "kafka":
            fencing = AIOKafkaProducer(
                bootstrap_servers=self.broker.bootstrap, transactional_id=self.replay.transactional_id
            )
            await fencing.start()
            await fencing.stop()

    async def sent(self) -> list[tuple[int, bytes, bytes]]:
        """Partition, key and value of every committed feature event."""
        await self._settle()
        places = [TopicPartition(self.replay.lane.topic, partition) for partition in range(4)]
        options = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "fetch_max_wait_ms": 20}
        async with AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap, **options) as consumer:
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            found = []
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for place, records in (await consumer.getmany(timeout_ms=100)).items():
                    found += [(place.partition, record.key, record.value) for record in records]
        return sorted(found)

    async def waiting(self) -> int:
        """How many letters wait."""
        await self._settle()
        overview = await look(self.replay.connection, self.replay.lane)
        return sum(count.waiting for count in overview.counts)


@pytest.fixture
async def field(broker: Broker, unique: str) -> Field:
    connection = KafkaConnection(bootstrap=broker.bootstrap)
    spec = StreamSpec(name=unique, features=("a",))
    await apply(connection, topics_of(spec))
    return Field(
        broker,
        spec,
        Replay(
            connection=connection,
            lane=Lane.of(unique, "features"),
            spec=spec,
            max_event_bytes=1024**2,
            by="tests",
            clock_ms=lambda: 1_000,
            transactional_id=f"{unique}-replay",
        ),
    )


def good(number: int) -> Record:
    """An event that is fit to be scored, but lay where it should not have."""
    event = {"event_id": str(number), "entity_id": f"e{number}", "event_time_ms": 1, "features": {"a": number}}
    return Record(number, f"e{number}".encode(), json.dumps(event).encode())


def home(record: Record) -> tuple[int, bytes | None, bytes | None]:
    assert record.key is not None
    return int(partitions_of([record.key], 4)[0]), record.key, record.value


async def test_originals_are_sent_once_to_the_partition_of_their_key_and_the_unusable_stay(field: Field) -> None:
    junk, cut = Record(90, b"e1", b"junk"), Record(91, b"e1", b" " * (KEPT_BYTES + 1))
    await field.bury(good(1), good(2), junk, cut)
    outcome = await field.replay.run()
    assert outcome.sent == {"some_reason": 2}
    assert {kept.reason: kept.place for kept in outcome.kept.values()} == {
        "malformed_json": (0, 90),
        "incomplete": (0, 91),
    }
    assert await field.sent() == sorted([home(good(1)), home(good(2))])
    again = await field.replay.run()
    assert not again.sent
    assert again.kept == outcome.kept
    assert len(await field.sent()) == 2


async def test_a_rehearsal_tells_the_same_and_sends_nothing(field: Field) -> None:
    await field.bury(good(1), Record(2, None, b""))
    rehearsed = await field.replay.rehearse()
    assert await field.sent() == []
    assert await field.waiting() == 2
    assert rehearsed == await field.replay.run()


async def test_only_the_chosen_letters_are_sent(field: Field) -> None:
    await field.bury(good(1), good(2), good(3), reason="wrong_partition")
    await field.bury(good(4), reason="no_score")
    await replace(field.replay, reasons=["no_score"]).run()
    await replace(field.replay, places=[(0, 2)]).run()
    assert await field.sent() == sorted([home(good(4)), home(good(2))])
    assert await field.waiting() == 2


async def test_an_event_that_dies_again_after_its_replay_waits_as_a_new_letter(field: Field) -> None:
    await field.bury(good(1))
    await field.replay.run()
    await field.bury(replace(good(1), offset=50))
    assert await field.waiting() == 1
    assert (await field.replay.run()).sent == {"some_reason": 1}
    assert len(await field.sent()) == 2


async def test_a_look_shows_the_newest_that_wait_and_counts_them_all(field: Field) -> None:
    await field.bury(*map(good, range(10)))
    await replace(field.replay, places=[(0, 9)]).run()
    assert await field.waiting() == 9
    overview = await look(field.replay.connection, field.replay.lane, limit=3)
    assert [letter.event.offset for letter in overview.newest] == [6, 7, 8]
    assert overview.newest[0].original == good(6).value
    assert [(count.waiting, count.replayed) for count in overview.counts] == [(9, 1)]


async def test_a_stream_without_dead_letters_has_none_to_show_or_to_send(field: Field) -> None:
    assert (await look(field.replay.connection, field.replay.lane)).counts == []
    outcome = await field.replay.run()
    assert outcome == Outcome()


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_a_replay_that_is_cut_short_is_finished_by_the_next_without_a_double(field: Field) -> None:
    letters = [good(i) for i in range(1_200)]
    await field.bury(*letters)
    ticks = itertools.count()

    def failing_clock() -> int:
        if next(ticks) == 700:
            raise RuntimeError("the machine is switched off here")
        return 1_000

    with pytest.raises(RuntimeError, match="switched off"):
        await replace(field.replay, clock_ms=failing_clock).run()
    committed = len(await field.sent())
    assert 0 < committed < len(letters)
    assert await field.waiting() == len(letters) - committed
    await field.replay.run()
    assert await field.sent() == sorted(map(home, letters))


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_two_replays_at_once_send_nothing_twice(field: Field) -> None:
    asyncio.get_running_loop().set_exception_handler(leave_out_kafka)
    letters = [good(i) for i in range(1_000)]
    await field.bury(*letters)
    outcomes = await asyncio.gather(*[field.replay.run() for _ in range(2)], return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, PenstockError), repr(outcome)
            assert "another replay" in str(outcome)
    assert await field.sent() == sorted(map(home, letters))
    assert await field.waiting() == 0


async def test_a_label_for_an_event_that_was_scored_too_late_is_replayed_and_becomes_one_sample(
    broker: Broker, unique: str, tmp_path: Path
) -> None:
    tables = f"[streams.{unique}.join]\nwindow_minutes = 60\nlateness_minutes = 0\n"
    deployment, topics = Deployment(broker, unique, tmp_path, {}, tables, **{unique: []}), StreamTopics(unique)
    versions = await deployment.prepare(**{unique: train(1)})
    first, later = (placed(document(i, [1.0, 2.0, 3.0], event_time_ms=i * MINUTE_MS)) for i in (0, 50))
    early, other = (labelled(i, (i + 1) * MINUTE_MS) for i in (0, 50))
    async with deployment.worker() as running:
        await deployment.promote(versions[unique])
        await running.ready()
        await deployment.send(unique, [later])
        await deployment.send(unique, [early, other], "labels")
        (dead,) = await deployment.records(topics.labels_dead, 1)
        assert decode(DeadLetter, dead.value).reason == "no_prediction"
        await deployment.send(unique, [first])
        await deployment.records(topics.predictions, 2)
        replay = Replay(
            connection=deployment.connection,
            lane=Lane.of(unique, "labels"),
            spec=deployment.streams[unique],
            max_event_bytes=1024**2,
            by="tests",
            clock_ms=now_ms,
            transactional_id=f"{unique}-replay",
        )
        assert (await replay.run()).sent == {"no_prediction": 1}
        samples = [decode(Sample, record.value) for record in await deployment.records(topics.samples, 2)]
    assert {(sample.event_id, sample.label_time_ms) for sample in samples} == {
        ("e0", MINUTE_MS),
        ("e50", 51 * MINUTE_MS),
    }
    assert not (await replay.run()).sent


def labelled(number: int, time_ms: int) -> Sent:
    """The label of event `number`."""
    key = f"N{number % 50}".encode()
    event = {"event_id": f"e{number}", "entity_id": key.decode(), "label": 1, "label_time_ms": time_ms}
    return Sent(home_of(key), key, json.dumps(event).encode())


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_a_missing_topic_is_said_at_once(broker: Broker, unique: str) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(SettingsError, match="does not exist: run `penstock topics apply`"):
            await look(KafkaConnection(bootstrap=broker.bootstrap), Lane.of(unique, "features"))
