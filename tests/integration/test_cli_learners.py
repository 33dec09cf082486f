"""`penstock learners`, as a person uses it, on both brokers, with a worker that learns."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from stream.partitioner import partitions_of
from tests.command_line import Deployment, Ended, Penstock, eventually

pytestmark = pytest.mark.usefixtures("no_settings")
TABLES = """
[streams.{stream}.learners.online]
algorithm = "river-logistic"
strategy = "incremental"
publish_every = 10
shadow = true
[streams.{stream}.learners.batches]
algorithm = "river-logistic"
"""


def standings(penstock: Penstock) -> dict[str, Any]:
    return {row.pop("lineage"): row for row in penstock("learners", "list", "--json").document}


def waiting(ended: Ended, subject: str) -> str:
    [sentence] = [finding["sentence"] for finding in ended.document if finding["subject"] == subject]
    return str(sentence)


def test_learners_that_have_learnt_nothing_are_listed_under_a_header(here: Deployment, penstock: Penstock) -> None:
    header, *rows = penstock("learners", "list").out.splitlines()
    assert header.split() == ["lineage", "algorithm", "strategy", "newest", "routed", "behind"]
    assert [row.split() for row in rows] == [
        ["online", "river-logistic", "incremental", "-", "-", "0"],
        ["batches", "river-logistic", "adaptive", "-", "-", "0"],
    ]


def test_a_learner_shows_its_newest_version_and_learns_what_waits_when_it_is_told_to(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    home = int(partitions_of([b"e1"], 4)[0])
    for i in range(12):
        event = {"event_id": str(i), "entity_id": "e1", "event_time_ms": i, "features": {"a": i / 10, "b": 1.0}}
        label = {"event_id": str(i), "entity_id": "e1", "label": i % 2, "label_time_ms": i + 1}
        asyncio.run(here.send("features", b"e1", json.dumps(event).encode(), home))
        asyncio.run(here.send("labels", b"e1", json.dumps(label).encode(), home))
    online = eventually(lambda: (seen := standings(penstock)["online"])["routed"] and seen)
    assert (online["routed"], online["newest"]["lineage"]) == ("shadow", "online")
    assert f" {online['newest']['model_id']} " in penstock("learners", "list").out
    assert eventually(lambda: len(asyncio.run(here.events("predictions"))) == 12)
    assert standings(penstock)["batches"]["newest"] is None

    def told() -> list[Any]:
        return [update for update in asyncio.run(here.events("updates")) if update["reason"] == "manual"]

    assert told() == []
    eventually(lambda: penstock("learners", "update", "batches", "--json").document["offset"] >= 12)
    [update, *_] = eventually(told)
    assert (update["lineage"], update["action"], update["samples"]) == ("batches", "learnt", 12)


def test_an_update_that_would_do_nothing_is_refused(here: Deployment, penstock: Penstock) -> None:
    for lineage, words in (("online", "is incremental: it learns each sample at once"), ("other", "online, batches")):
        ended = penstock("learners", "update", lineage)
        assert ended.is_one_sentence(1), ended
        assert words in ended.err


@pytest.mark.parametrize("deployment", ["kafka"], indirect=True)
def test_learners_of_a_stream_without_topics_are_not_waited_for(here: Deployment, penstock: Penstock) -> None:
    Path("other.toml").write_text('[streams.other]\nfeatures = ["a"]\n' + TABLES.format(stream="other"))
    for arguments in (["list"], ["update", "batches"]):
        ended = penstock("learners", *arguments, ML_CONFIG="other.toml")
        assert ended.code == 2
        assert "topic other.features and " in ended.err
        assert "more do not exist: run `penstock topics apply`" in ended.err


def test_the_doctor_and_the_list_tell_what_waits_for_a_learner_that_has_ended(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    groups = [f"{group} of {here.stream}" for group in ("evaluate", "learn-online", "learn-batches")]
    well = penstock("doctor", "--json")
    assert waiting(well, f"learner batches of {here.stream}").endswith("by the strategy adaptive")
    if here.kind == "kafka":
        assert [waiting(well, group).partition(";")[0] for group in groups] == ["1 worker(s)"] * 3
    here.worker.send_signal(signal.SIGTERM)
    assert here.worker.wait(20) == 0, here.log[-2000:]
    before = standings(penstock)
    for _ in range(5):
        assert penstock("learners", "update", "batches").code == 0
    after = standings(penstock)
    assert [after[name]["behind"] - before[name]["behind"] for name in after] == [5, 5]
    ill = penstock("doctor", "--json")
    for group in groups:
        assert f"records of {here.stream}.samples wait" in waiting(ill, group)
    if here.kind == "kafka":
        assert all(waiting(ill, group).startswith("no worker runs this role; ") for group in groups)
