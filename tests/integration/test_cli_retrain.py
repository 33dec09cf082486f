"""`penstock retrain --wait` with a worker that really trains, on both brokers."""

import asyncio
import json

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from stream.partitioner import partitions_of
from tests.command_line import Deployment, Penstock, eventually

pytestmark = pytest.mark.usefixtures("no_settings")
TABLES = """
[streams.{stream}.join]
window_minutes = 1
lateness_minutes = 0
[streams.{stream}.training]
min_samples = 300
approve = "auto"
[streams.{stream}.training.parameters]
rounds = 30
[streams.{stream}.training.gates]
min_auc = 0.9
"""
EVENTS, MINUTE_MS = 600, 60_000


async def live_on(here: Deployment) -> None:
    """Send events and their labels, which the second feature foretells."""
    random = np.random.default_rng(1)
    async with AIOKafkaProducer(bootstrap_servers=here.environ["ML_KAFKA_BOOTSTRAP"]) as producer:
        for i, (a, b) in enumerate(random.normal(size=(EVENTS, 2)).tolist()):
            ids = {"event_id": f"e{i}", "entity_id": f"n{i % 97}"}
            event = ids | {"event_time_ms": i * MINUTE_MS, "features": {"a": a, "b": b}}
            label = ids | {"label": int(b > 0), "label_time_ms": i * MINUTE_MS + 1}
            key = ids["entity_id"].encode()
            partition = int(partitions_of([key], 4)[0])
            for topic, record in (("features", event), ("labels", label)):
                await producer.send(f"{here.stream}.{topic}", json.dumps(record).encode(), key, partition)


def test_without_samples_it_ends_in_a_sentence_and_with_them_in_a_champion_that_was_right(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    ended = penstock("retrain", "--wait", "--json", "--timeout", "80")
    assert ended.code == 1, (ended, here.log)
    failed = ended.document
    assert (failed["outcome"], failed["reasons"], failed["champion"]) == ("failed", ["manual"], champion)
    assert "has no sample yet" in failed["message"]

    asyncio.run(live_on(here))
    assert eventually(lambda: len(asyncio.run(here.events("samples"))) == EVENTS)
    ended = penstock("retrain", "--wait", "--json", "--timeout", "80")
    assert ended.code == 0, (ended, here.log)
    accepted = ended.document
    assert all(gate["passed"] for gate in accepted["gates"])
    model_id = accepted["model_id"]
    assert eventually(lambda: here.health()["streams"][here.stream]["champion"] == model_id)

    runs = penstock("runs", "list", "--json").document
    assert [run["outcome"] for run in runs] == ["failed", "accepted"]
    phases = [phase["phase"] for phase in penstock("runs", "show", accepted["run_id"], "--json").document["phases"]]
    assert [phase for phase in phases if phase != "waiting"] == ["read", "fit", "evaluate", "record", "ended"]
    version = penstock("models", "show", model_id, "--json").document
    assert (version["run_id"], version["metrics"]) == (accepted["run_id"], accepted["metrics"])
    card = penstock("models", "card", model_id, "--to", "card")
    assert card.code == 0, card
    assert model_id in (here.folder / "card" / "card.md").read_text()
