"""Redis is flushed in the middle of an experiment: views come back, and nothing else has noticed. On both brokers."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest
import redis

from app.experiments import assignment_of
from schemas.events import Deployment as Routing
from stream.partitioner import partitions_of
from tests.command_line import Deployment, Penstock, eventually, registered

pytestmark = pytest.mark.usefixtures("no_settings")
ENTITIES = [f"N{number}" for number in range(40)]
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
    started = penstock("experiments", "start", "halves", "--variant", f"B={challenger}:50%", "--min-samples", "5")
    assert started.code == 0, started
    routing = msgspec.convert(asyncio.run(here.events("deployments"))[-1], Routing)
    eventually(lambda: here.health()["streams"][here.stream]["revision"] == routing.revision)
    return routing


def send(here: Deployment, round_number: int) -> None:
    """Send one event of each entity."""

    async def sending() -> None:
        for entity, home in zip(ENTITIES, partitions_of([e.encode() for e in ENTITIES], 4), strict=True):
            event = {
                "event_id": f"{entity}-{round_number}",
                "entity_id": entity,
                "event_time_ms": 1_000 * round_number,
                "features": {"a": 0.5, "b": 1.0},
            }
            await here.send("features", entity.encode(), json.dumps(event).encode(), int(home))

    asyncio.run(sending())


def shown(client: "redis.Redis[str]", stream: str) -> dict[str, Any]:
    """What is shown of models and experiments, but for the report, which goes on."""
    keys = [*client.keys(f"ml:model:{stream}:*"), *client.keys(f"ab:experiment:{stream}:*")]
    found = {key: json.loads(value) for key in keys if (value := client.get(key))}
    return {key: value | {"report": None} for key, value in found.items()}


def compared(here: Deployment) -> bool:
    """Whether the compare stage has taken in all that there is."""
    with urlopen(f"http://127.0.0.1:{here.environ['ML_METRICS_PORT']}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    lags = [line for line in lines if line.startswith("ml_consumer_lag_events{") and "-compare" in line]
    return bool(lags) and all(line.endswith(" 0.0") for line in lags)


def events_of(report: dict[str, Any]) -> dict[str, int]:
    return {figures["variant"]: figures["events"] for figures in report["variants"]}


def test_a_flush_in_the_middle_of_an_experiment_changes_no_assignment_and_no_report(
    here: Deployment, penstock: Penstock, experiment: Routing, client: "redis.Redis[str]"
) -> None:
    key = f"ab:experiment:{here.stream}:halves"
    send(here, 0)
    assert experiment.experiment is not None
    challenger = f"ml:model:{here.stream}:{experiment.experiment.variants[1].model_id}"
    eventually(lambda: key in (seen := shown(client, here.stream)) and seen[challenger]["status"] == "testing")
    before = shown(client, here.stream)
    assert before[key]["shares"] == {"champion": 0.5, "B": 0.5}
    assert before[challenger]["routed"] == ["variant B"]
    assert before[f"ml:model:{here.stream}:{experiment.champion}"]["routed"] == ["champion"]
    client.flushall()
    flushed = time.monotonic()
    send(here, 1)
    eventually(lambda: shown(client, here.stream) == before)
    assert time.monotonic() - flushed < BACK_S
    client.flushall()
    send(here, 2)

    def all_scored() -> Any:
        found = [p for p in asyncio.run(here.events("predictions")) if p["deployment_revision"] == experiment.revision]
        return found if len(found) == 3 * len(ENTITIES) else None

    predictions = eventually(all_scored)
    for prediction in predictions:
        assigned = assignment_of(experiment, prediction["entity_id"])
        assert (prediction["variant"], prediction["model_id"]) == (assigned.variant, assigned.model_id)
    counts = Counter(prediction["variant"] for prediction in predictions)
    assert counts.keys() == {"champion", "B"}

    def counted() -> bool:
        reports = [r for r in asyncio.run(here.events("experiments")) if r["experiment_id"] == "halves"]
        return bool(reports) and events_of(reports[-1]) == counts

    eventually(lambda: compared(here))
    assert penstock("experiments", "stop", "halves").code == 0  # with its end comes a report of all that was counted
    eventually(counted)

    def ended() -> Any:
        value = json.loads(client.get(key) or "{}")
        return value and not value["running"] and events_of(value["report"]) == counts

    eventually(ended)
