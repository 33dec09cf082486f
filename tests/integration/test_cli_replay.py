"""`penstock replay`, as a person uses it, on both brokers, of what a worker has scored and joined."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from stream.partitioner import partitions_of
from tests.command_line import Deployment, Penstock, eventually, real_command, registered

pytestmark = pytest.mark.usefixtures("no_settings")
TABLES = """
[streams.{stream}.evaluation]
window_samples = 50
min_samples = 20
reference_windows = 1

[streams.{stream}.archive]
samples = 100

[streams.{stream}.learners.online]
algorithm = "river-logistic"
strategy = "mini_batch"
batch_size = 20
publish_every = 50
"""
EVENTS = 300
DAWN_MS = 1_700_000_000_000


def events() -> list[tuple[bytes, dict[str, Any], dict[str, Any]]]:
    """Return key, event and label of some entities; the label agrees with the first feature but for every seventh."""
    random = np.random.default_rng(3)
    found = []
    for number, (a, b) in enumerate(random.normal(size=(EVENTS, 2)).tolist()):
        key = f"entity-{number % 17}"
        known = {"event_id": f"e{number}", "entity_id": key}
        time_ms = DAWN_MS + 1000 * number
        event = known | {"event_time_ms": time_ms, "features": {"a": a, "b": None if number % 9 == 0 else b}}
        label = known | {"label": int(a > 0) ^ int(number % 7 == 0), "label_time_ms": time_ms + 500}
        found.append((key.encode(), event, label))
    return found


async def send(here: Deployment) -> None:
    async with AIOKafkaProducer(bootstrap_servers=here.environ["ML_KAFKA_BOOTSTRAP"]) as producer:
        for key, event, label in events():
            home = int(partitions_of([key], 4)[0])
            for topic, document in (("features", event), ("labels", label)):
                await producer.send(f"{here.stream}.{topic}", json.dumps(document).encode(), key, home)
        await producer.flush()


@pytest.fixture
def history(here: Deployment, champion: str) -> str:
    """The champion that has scored the events, all of which have their label."""
    if not asyncio.run(here.events("predictions")):
        asyncio.run(send(here))
    assert eventually(lambda: len(asyncio.run(here.events("samples"))) == EVENTS, 60)
    return champion


def test_what_was_served_comes_out_to_the_bit_and_two_reports_are_the_same_bytes(
    here: Deployment, penstock: Penstock, history: str
) -> None:
    once, again = (real_command("replay", "--json", **here.environ) for _ in range(2))
    assert once.code == again.code == 0, once
    assert once.out == again.out
    assert "events/s" in once.err
    document = once.document
    assert (document["events"], document["samples"], document["unusable"]) == (EVENTS, EVENTS, 0)
    assert [(s["variant"], s["model_id"], s["events"], s["identical"]) for s in document["scores"]] == [
        ("champion", history, EVENTS, EVENTS)
    ]
    assert document["decisions"]["changed"] == 0
    assert document["served"] == document["replayed"]
    [roc_auc] = [d for d in document["overall"]["differences"] if d["metric"] == "roc_auc"]
    assert (roc_auc["value"], roc_auc["low"], roc_auc["high"]) == (0, 0, 0)
    told = [p for p in asyncio.run(here.events("performance")) if p["mature"] or p["number"] < 6]
    assert {p["number"]: p["variants"] for p in told} == {
        w["number"]: w["variants"] for w in document["served"]["windows"]
    }


def test_another_model_is_compared_with_what_was_served(here: Deployment, penstock: Penstock, history: str) -> None:
    other = registered(penstock, seed=77)["model_id"]
    found = penstock("replay", "--model", other, "--json")
    assert found.code == 0, found
    document = found.document
    assert document["scores"] == []
    assert document["decisions"]["events"] == EVENTS
    assert {v["model_id"] for w in document["replayed"]["windows"] for v in w["variants"]} == {other}
    assert {v["model_id"] for w in document["served"]["windows"] for v in w["variants"]} == {history}
    assert document["learnt_from"]["events"] is None
    shown = penstock("replay", "--model", other)
    assert shown.code == 0
    assert f"nobody said up to when model {other} learnt" in shown.out
    assert f"baseline of {other}: there is none" in shown.out
    assert "0 drift windows" in shown.out
    assert "roc_auc" in shown.out


def test_a_threshold_a_span_and_a_setting_change_what_is_replayed(
    here: Deployment, penstock: Penstock, history: str
) -> None:
    found = penstock(
        *(
            "replay",
            "--threshold",
            "0.99",
            "--set",
            "evaluation.window_samples=25",
            "--set",
            "evaluation.min_samples=5",
        ),
        *("--from", "2023-11-14T22:13:30Z", "--to", "2023-11-14T22:15:00Z", "--json"),
    )
    assert found.code == 0, found
    document = found.document
    assert document["events"] == document["samples"] == 90
    assert {change["replayed"] for change in document["decisions"]["changes"]} == {0}
    assert len(document["replayed"]["windows"]) == 3
    assert len(document["served"]["windows"]) == 1


def test_a_learner_takes_over_in_a_replay(here: Deployment, penstock: Penstock, history: str) -> None:
    found = penstock("replay", "--learner", "online", "--json")
    assert found.code == 0, found
    learned = found.document["learned"]
    assert learned["updates"] == EVENTS // 20
    assert learned["published"]
    assert set(learned["served"]) <= set(learned["published"])
    assert found.document["samples"] == EVENTS


def test_what_is_not_there_is_refused_in_a_sentence(here: Deployment, penstock: Penstock, history: str) -> None:
    assert "no model 'nobody'" in penstock("replay", "--model", "nobody").err
    assert "has no learner 'nobody'; it has online" in penstock("replay", "--learner", "nobody").err
    assert "would change nothing" in penstock("replay", "--set", "join.window_minutes=1").err
    assert "did you mean min_psi" in penstock("replay", "--set", "drift.min_psy=1").err
    assert "no prediction and no sample in this time" in penstock("replay", "--from", "2031-01-01").err


@pytest.mark.parametrize("deployment", ["kafka"], indirect=True)  # the embedded broker cannot delete records
def test_what_kafka_forgot_comes_from_the_archive(here: Deployment, penstock: Penstock, history: str) -> None:
    before = penstock("replay", "--json").document
    assert eventually(lambda: len(list(here.folder.glob("store/archive/**/*.parquet"))) >= 2, 60)
    asyncio.run(forget(here))
    found = penstock("replay", "--json")
    assert found.code == 0, found
    after = found.document
    assert after["history"]["archived_samples"] > 0
    assert after["history"]["archived_predictions"] > 0
    for same in ("events", "samples", "scores", "overall"):
        assert after[same] == before[same]
    assert after["served"]["windows"] == before["served"]["windows"]


async def forget(here: Deployment) -> None:
    """Delete the older half of all predictions, and of the samples that are in the archive."""
    bootstrap = here.environ["ML_KAFKA_BOOTSTRAP"]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        gone = {TopicPartition(f"{here.stream}.samples", 0): RecordsToDelete(100)}
        gone |= {TopicPartition(f"{here.stream}.predictions", p): RecordsToDelete(10) for p in range(4)}
        await admin.delete_records(gone)
    finally:
        await admin.close()
