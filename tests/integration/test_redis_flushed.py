"""Redis is flushed in the middle of an experiment: views come back, and nothing else has noticed. On both brokers."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from aiokafka import AIOKafkaProducer

from app.experiments import assignment_of
from schemas.events import Deployment as Routing
from stream.partitioner import partitions_of
from tests.command_line import Deployment, Penstock, eventually, registered

pytestmark = pytest.mark.usefixtures("no_settings")
ENTITIES = [f"N{number}" for number in range(40)]
ROUNDS = 32
BACK_S = 5.0


@pytest.fixture
def client(here: Deployment, champion: str) -> Iterator["redis.Redis[str]"]:
    """The embedded Redis of the worker."""
    socket = Path(here.log.partition("embedded Redis at unix://")[2].partition(",")[0])
    with redis.Redis(unix_socket_path=str(socket), decode_responses=True) as client:
        yield client


@pytest.fixture
def experiment(here: Deployment, penstock: Penstock, champion: str) -> Routing:
    """The deployment of an experiment of two variants with half of the entities each, which the worker serves."""
    challenger = registered(penstock, seed=31)["model_id"]
    started = penstock("experiments", "start", "halves", "--variant", f"B={challenger}:50%", "--max-score-psi", "off")
    assert started.code == 0, started
    routing = msgspec.convert(asyncio.run(here.events("deployments"))[-1], Routing)
    eventually(lambda: here.health()["streams"][here.stream]["revision"] == routing.revision)
    return routing


def send(here: Deployment, rounds: range) -> None:
    """Send so many events of each entity."""

    async def sending() -> None:
        homes = partitions_of([entity.encode() for entity in ENTITIES], 4)
        async with AIOKafkaProducer(bootstrap_servers=here.environ["ML_KAFKA_BOOTSTRAP"]) as producer:
            for number in rounds:
                for entity, home in zip(ENTITIES, homes, strict=True):
                    event = {"event_id": f"{entity}-{number}", "entity_id": entity, "event_time_ms": 1_000 * number}
                    value = json.dumps(event | {"features": {"a": 0.5, "b": 1.0}}).encode()
                    await producer.send(f"{here.stream}.features", value, entity.encode(), int(home))

    asyncio.run(sending())


def shown(client: "redis.Redis[str]", stream: str) -> dict[str, Any]:
    """What is shown of models and experiments, but for the report, which goes on."""
    keys = [*client.keys(f"ml:model:{stream}:*"), *client.keys(f"ab:experiment:{stream}:*")]
    found = {key: json.loads(value) for key in keys if (value := client.get(key))}
    return {key: value | {"report": None} for key, value in found.items()}


def events_of(report: dict[str, Any]) -> dict[str, int]:
    return {figures["variant"]: figures["events"] for figures in report["variants"]}


def test_a_flush_in_the_middle_of_an_experiment_changes_no_assignment_and_no_report(
    here: Deployment, penstock: Penstock, experiment: Routing, client: "redis.Redis[str]"
) -> None:
    key = f"ab:experiment:{here.stream}:halves"
    send(here, range(1))
    assert experiment.experiment is not None
    challenger = f"ml:model:{here.stream}:{experiment.experiment.variants[1].model_id}"
    eventually(lambda: key in (seen := shown(client, here.stream)) and seen[challenger]["status"] == "testing")
    before = shown(client, here.stream)
    assert before[key]["shares"] == {"champion": 0.5, "B": 0.5}
    assert before[challenger]["routed"] == ["variant B"]
    assert before[f"ml:model:{here.stream}:{experiment.champion}"]["routed"] == ["champion"]
    client.flushall()
    flushed = time.monotonic()
    send(here, range(1, 2))
    eventually(lambda: shown(client, here.stream) == before)
    assert time.monotonic() - flushed < BACK_S
    client.flushall()
    send(here, range(2, ROUNDS))

    def all_scored() -> Any:
        found = [p for p in asyncio.run(here.events("predictions")) if p["deployment_revision"] == experiment.revision]
        return found if len(found) == ROUNDS * len(ENTITIES) else None

    predictions = eventually(all_scored)
    for prediction in predictions:
        assigned = assignment_of(experiment, prediction["entity_id"])
        assert (prediction["variant"], prediction["model_id"]) == (assigned.variant, assigned.model_id)
    counts = Counter(prediction["variant"] for prediction in predictions)
    assert counts.keys() == {"champion", "B"}

    def counted_since() -> Any:
        reports = [r for r in asyncio.run(here.events("experiments")) if r["experiment_id"] == "halves"]
        return reports if reports and sum(events_of(reports[-1]).values()) >= 1_000 else None

    reports = eventually(counted_since)
    sums = [Counter[str]()]
    for record in asyncio.run(here.events("variants")):
        sums.append(sums[-1] + Counter({variant["variant"]: variant["n"] for variant in record["variants"]}))
    assert sums[-1] == counts
    assert all(events_of(report) in sums for report in reports)  # each is of all that was counted until then
    eventually(lambda: json.loads(client.get(key) or "{}").get("report") == reports[-1])
    assert penstock("experiments", "stop", "halves").code == 0
    eventually(lambda: json.loads(client.get(key) or "{}").get("running") is False)
