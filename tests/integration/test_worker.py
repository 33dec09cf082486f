"""A worker on either broker: each event becomes one prediction or one dead letter, and what is wrong is said."""

import asyncio
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import Producer

from app.worker import Worker
from schemas.errors import FatalError
from schemas.events import Alert, ModelVersion
from schemas.wire import decode, encode
from stream.links import Links
from tests.command_line import free_port
from tests.conftest import Broker
from tests.workers import (
    PARTITIONS,
    PATIENCE_S,
    Deployment,
    Running,
    Sent,
    direct,
    document,
    draw,
    events,
    eventually,
    placed,
    train,
)
from topics import StreamTopics

New = Callable[..., Deployment]


@pytest.fixture
def new(broker: Broker, unique: str, tmp_path: Path) -> New:
    """Make a deployment on the broker at hand; streams are given by the ends of their names, with their classes."""

    def make(environ: dict[str, str] | None = None, **classes: list[str]) -> Deployment:
        named = {f"{unique}-{stream}": names for stream, names in classes.items()}
        return Deployment(broker, unique, tmp_path, environ or {}, **named)

    return make


class Bad(NamedTuple):
    """A spoilt record, and what its dead letter must say."""

    sent: Sent
    reason: str
    words: str


def _bad(number: int) -> list[Bad]:
    """Return one record of each kind that cannot be used, numbered from `number`."""
    row = [0.5, 0.25, 0.125]

    def spoilt(**changes: Any) -> Sent:
        return placed(document(number, row, **changes))

    good = spoilt()
    value = good.value or b""
    elsewhere = (good.partition + 1) % PARTITIONS
    nested = b'{"more": ' + b"[" * 100_000 + b", " + value[1:]
    return [
        Bad(good._replace(value=value[:-7]), "malformed_json", "the value is not JSON: "),
        Bad(good._replace(value=value.replace(b"N", b"\xff")), "malformed_json", "utf-8"),
        Bad(good._replace(value=value.replace(b"0.25", b"NaN")), "malformed_json", "NaN and Infinity are not JSON"),
        Bad(
            good._replace(value=value.replace(b"0.25", b"-Infinity")), "malformed_json", "NaN and Infinity are not JSON"
        ),
        Bad(good._replace(value=nested), "malformed_json", "nested too deeply"),
        Bad(spoilt(features={"a": "high", "b": 1, "c": 1}), "invalid_field", "got `str` - at `$.features.a`"),
        Bad(spoilt(features={"a": 1, "b": 1}), "invalid_field", "missing required field `c`"),
        Bad(spoilt(event_time_ms="noon"), "invalid_field", "`$.event_time_ms`"),
        Bad(spoilt(features={"a": 1, "b": 1e39, "c": 1}), "out_of_range", "feature 'b' is beyond"),
        Bad(good._replace(value=b""), "empty", "no value"),
        Bad(good._replace(value=None), "empty", "no value"),
        Bad(good._replace(key=None), "no_key", "must be keyed by entity_id"),
        Bad(good._replace(key=b"somebody-else"), "wrong_key", "'somebody-else' is not its entity_id"),
        Bad(good._replace(partition=elsewhere), "wrong_partition", f"belongs on partition {good.partition} of 4"),
        Bad(spoilt(padding="x" * 2**21), "too_large", "max_event_bytes is 1048576"),
    ]


def _with_more(record: Sent) -> Sent:
    """Return the record with fields that nobody declared, which must not matter."""
    event = json.loads(record.value or b"")
    return placed(event | {"more": [1], "features": event["features"] | {"d": "new"}})


def _get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


async def test_every_event_becomes_one_prediction_or_one_dead_letter_and_a_restart_repeats_nothing(new: New) -> None:
    deployment = new(flights=[])
    [stream] = deployment.streams
    booster, values, port = train(1), draw(500), free_port()
    [version] = (await deployment.prepare(**{stream: booster})).values()
    bad = _bad(1000) + _bad(1001)
    records = [_with_more(record) for record in events(values[:300])]
    for place, spoilt in enumerate(bad):
        records.insert(7 * place, spoilt.sent)

    async with deployment.worker(metrics_port=port) as running:
        await deployment.promote(version)
        await running.ready()
        await deployment.send(stream, records)
        await deployment.outputs(stream, len(records))
        await eventually(lambda: set(running.worker.tasks()[0].lag_events.values()) == {0})
        page, health = [
            await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/{path}") for path in ("metrics", "health")
        ]
    assert await deployment.uncommitted(stream) == 0
    async with deployment.worker() as running:
        await running.ready()
        await deployment.send(stream, events(values[300:], first=300))
        predictions, letters = await deployment.outputs(stream, len(bad) + 500)

    by_event = {prediction.event_id: prediction for prediction in predictions}
    assert len(predictions) == len(by_event) == 500
    scores = np.array([by_event[f"e{number}"].score for number in range(500)], dtype=np.float32)
    np.testing.assert_array_equal(scores, direct(booster, values))
    places = [(p.partition, p.offset) for p in predictions] + [(p.partition, p.offset) for p in letters]
    assert len(set(places)) == len(places) == 500 + len(bad)
    assert {p.model_id for p in predictions} == {version.model_id}
    assert sorted(letter.reason for letter in letters) == sorted(spoilt.reason for spoilt in bad)
    for spoilt in bad:
        assert any(letter.reason == spoilt.reason and spoilt.words in letter.message for letter in letters), spoilt
    assert f'ml_dead_letters_total{{reason="no_key",stage="score",stream="{stream}"}} 2.0' in page
    assert f',partition="0",topic="{stream}.features"}} 0.0' in page
    assert json.loads(health)["streams"][stream] == {"champion": version.model_id, "shadows": [], "revision": 1}


async def test_streams_of_one_worker_keep_apart_and_a_multiclass_one_names_its_best_class(new: New) -> None:
    deployment = new(flights=[], birds=["owl", "tit", "jay"])
    flights, birds = deployment.streams
    boosters = {flights: train(1), birds: train(2, classes=3)}
    values = draw(200)
    versions = await deployment.prepare(**boosters)
    async with deployment.worker() as running:
        await asyncio.gather(*(deployment.promote(version) for version in versions.values()))
        await running.ready()
        await asyncio.gather(*(deployment.send(stream, events(values)) for stream in (flights, birds)))
        found = {stream: (await deployment.outputs(stream, 200))[0] for stream in (flights, birds)}
    for stream, predictions in found.items():
        predictions.sort(key=lambda prediction: int(prediction.event_id[1:]))
        scores = direct(boosters[stream], values)
        if stream == birds:
            np.testing.assert_array_equal(np.array([p.scores for p in predictions], dtype=np.float32), scores)
            assert [p.label for p in predictions] == [("owl", "tit", "jay")[i] for i in scores.argmax(axis=1)]
            assert {p.label for p in predictions} == {"owl", "tit", "jay"}
        else:
            np.testing.assert_array_equal(np.array([p.score for p in predictions], dtype=np.float32), scores)
            assert {p.scores for p in predictions} == {None}
        assert {p.model_id for p in predictions} == {versions[stream].model_id}


def _champion(running: Running, stream: str) -> str:
    streams: Any = running.worker.health()["streams"]
    return str(streams[stream]["champion"])


async def test_a_promotion_swaps_the_model_between_two_batches_and_loses_nothing(new: New) -> None:
    deployment = new(flights=[])
    [stream] = deployment.streams
    first, second = train(1), train(2)
    values = draw(900)
    [old] = (await deployment.prepare(**{stream: first})).values()
    async with deployment.worker() as running:
        await deployment.promote(old)
        await running.ready()
        new_version = await deployment.register(stream, second)
        promoting = asyncio.create_task(deployment.promote(new_version))
        async with deployment.producer(stream) as send:
            for start in range(0, 900, 20):
                if start == 600:
                    await promoting
                    await eventually(lambda: _champion(running, stream) == new_version.model_id)
                await send(events(values[start : start + 20], first=start))
                await asyncio.sleep(0.03)
        assert (await promoting).outcome == "done"
        predictions, letters = await deployment.outputs(stream, 900)
    assert letters == []
    assert sorted(int(p.event_id[1:]) for p in predictions) == list(range(900))
    scores = {old.model_id: (direct(first, values), 1), new_version.model_id: (direct(second, values), 2)}
    for prediction in predictions:
        wanted, revision = scores[prediction.model_id]
        assert np.float32(prediction.score) == wanted[int(prediction.event_id[1:])]
        assert prediction.deployment_revision == revision
    for partition in range(PARTITIONS):
        revisions = [p.deployment_revision for p in predictions if p.partition == partition]
        assert revisions == sorted(revisions)
        assert set(revisions) == {1, 2}


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)  # as on any other
async def test_a_kafka_that_is_lost_while_a_worker_starts_is_one_error_and_not_a_group(
    new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_: Links) -> None:
        raise KafkaConnectionError("gone")

    deployment = new(stream=[])
    await deployment.prepare()
    monkeypatch.setattr(Links, "start", lost)
    with pytest.raises(KafkaConnectionError, match="gone"):
        await Worker(deployment.settings, deployment.connection, ["score", "learn"]).run()


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)  # as on any other
async def test_too_many_dead_letters_stop_the_worker_with_a_sentence(new: New) -> None:
    deployment = new({"ML_DEAD_LETTER_WINDOW": "100"}, flights=[])
    [stream] = deployment.streams
    [version] = (await deployment.prepare(**{stream: train(1)})).values()
    async with deployment.worker() as running:
        await deployment.promote(version)
        await running.ready()
        await deployment.send(stream, [Sent(0, b"N1", b"{broken")] * 6)
        error = await running.failure()
    assert isinstance(error, FatalError)
    assert str(error).startswith(
        "6 of the last 6 records could not be used (the limit is 5% of 100); the last reason was"
    )
    assert "ML_DEAD_LETTER_SHARE" in str(error)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)  # as on any other
async def test_a_producer_with_librdkafka_s_own_partitioner_stops_the_worker_with_a_sentence(new: New) -> None:
    deployment = new(flights=[])
    [stream] = deployment.streams
    [version] = (await deployment.prepare(**{stream: train(1)})).values()
    async with deployment.worker() as running:
        await deployment.promote(version)
        await running.ready()
        producer = Producer({"bootstrap.servers": deployment.connection.bootstrap})
        for record in events(draw(400)):
            producer.produce(StreamTopics(stream).features, record.value, record.key)
        await asyncio.to_thread(producer.flush, PATIENCE_S)
        error = await running.failure()
    assert isinstance(error, FatalError)
    assert "partitioner=murmur2_random" in str(error)
    assert f"{stream}.features" in str(error)


async def test_a_model_that_cannot_be_served_is_refused_before_it_is_routed(new: New) -> None:
    deployment = new(flights=[], fraud=[])
    flights, fraud = deployment.streams
    versions = await deployment.prepare(**{flights: train(1), fraud: train(2)})
    artifacts = Path(deployment.settings.model_storage_dir)
    corrupted, missing, unsigned = [await deployment.register(flights, train(seed)) for seed in (3, 4, 5)]
    _artifact(artifacts, corrupted).write_bytes(b"x" * corrupted.size_bytes)
    _artifact(artifacts, missing).unlink()
    unsigned = await _register_again(deployment, unsigned, model_id="unsigned", signature="")
    budget = versions[flights].memory_bytes + versions[fraud].memory_bytes - 1
    async with deployment.worker(model_memory_bytes=budget) as running:
        routes = {
            flights: {"champion": versions[flights].model_id, "shadows": [], "revision": 1},
            fraud: {"champion": None, "shadows": [], "revision": 0},
        }
        assert (await deployment.promote(versions[flights])).outcome == "done"
        await eventually(lambda: running.worker.health()["streams"] == routes)  # it has its room on the shelf now
        answers = [await deployment.promote(version) for version in (corrupted, missing, unsigned, versions[fraud])]
        assert running.worker.health()["streams"] == routes
    assert [answer.outcome for answer in answers] == ["refused"] * 4
    for answer, words in zip(
        answers,
        ["was changed since it was stored", "does not exist", "is not signed", "that model_memory_bytes allows"],
        strict=True,
    ):
        assert words in answer.reason


def _artifact(folder: Path, version: ModelVersion) -> Path:
    return folder / version.sha256[:2] / version.sha256


async def _register_again(deployment: Deployment, version: ModelVersion, **changes: Any) -> ModelVersion:
    """Write a changed registration, as somebody could who may write to the topic but has no key."""
    changed = msgspec.structs.replace(version, **changes)
    async with AIOKafkaProducer(bootstrap_servers=deployment.connection.bootstrap) as producer:
        topic = StreamTopics(version.stream).models
        await producer.send_and_wait(topic, encode(changed), key=version.stream.encode(), partition=0)
    return changed


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)  # two workers in turn: slow on the embedded broker
async def test_when_the_champion_s_file_is_gone_the_previous_one_serves_and_an_alert_says_so(new: New) -> None:
    deployment = new(flights=[])
    [stream] = deployment.streams
    first = train(1)
    [old] = (await deployment.prepare(**{stream: first})).values()
    champion = await deployment.register(stream, train(2))
    async with deployment.worker():
        await deployment.promote(old)
        await deployment.promote(champion)
    _artifact(Path(deployment.settings.model_storage_dir), champion).unlink()
    values = draw(50)
    async with deployment.worker() as running:
        await running.ready()
        await deployment.send(stream, events(values))
        predictions, _ = await deployment.outputs(stream, 50)
        async with deployment.reader(StreamTopics(stream).alerts) as reader:
            record = await asyncio.wait_for(reader.getone(), PATIENCE_S)
    alert = decode(Alert, record.value)
    assert (alert.kind, alert.severity, alert.subject) == ("champion_unusable", "critical", champion.model_id)
    assert "does not exist" in alert.message
    assert {p.model_id for p in predictions} == {old.model_id}
    wanted = direct(first, values)
    assert all(np.float32(p.score) == wanted[int(p.event_id[1:])] for p in predictions)
