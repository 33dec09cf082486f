"""The consumers that docs/own-stream.md shows do read predictions."""

import asyncio
import builtins
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from app.embedded import EmbeddedBroker
from schemas.events import Prediction
from schemas.wire import encode
from tests.documents import blocks

PREDICTION = Prediction(
    event_id="e1",
    entity_id="n1",
    event_time_ms=1,
    scored_time_ms=2,
    model_id="m1",
    variant="champion",
    deployment_revision=1,
    score=0.75,
    scores=None,
    label=1,
    features=(1.0,),
    partition=0,
    offset=0,
    latency_ms=1,
)


class Enough(Exception):
    """The consumer has shown a prediction."""


@pytest.mark.parametrize("code", blocks("docs/own-stream.md", "python"), ids=["exactly_once", "lowest_latency"])
def test_the_consumer_of_the_page_shows_predictions(
    code: str, embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[Any, ...]] = []

    def show(*words: Any) -> None:
        shown.append(words)
        raise Enough

    monkeypatch.setattr(builtins, "print", show)
    with predictions_that_keep_coming(embedded.bootstrap), pytest.raises(Enough):
        exec(compile(code.replace("localhost:9092", embedded.bootstrap), "docs/own-stream.md", "exec"), {})
    assert shown == [("e1", 0.75, 1, "m1")]


@contextmanager
def predictions_that_keep_coming(bootstrap: str) -> Iterator[None]:
    """Send the same prediction again and again: one of the consumers begins with what comes from now on."""
    enough = threading.Event()

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            while not enough.is_set():
                await producer.send_and_wait("flights.predictions", encode(PREDICTION), b"n1")
                await asyncio.sleep(0.05)

    sender = threading.Thread(target=lambda: asyncio.run(send()))
    sender.start()
    try:
        yield
    finally:
        enough.set()
        sender.join()
