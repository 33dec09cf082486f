"""`penstock drift`, as a person uses it, on both brokers, with a worker that runs."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.drift.baseline import Baseline
from stream.partitioner import partitions_of
from tests.command_line import Deployment, Ended, Penstock, eventually, registered

pytestmark = pytest.mark.usefixtures("no_settings")
TABLES = """
[streams.{stream}.drift]
window_events = 100
"""


def table(rows: int, seed: int = 0) -> str:
    """Return rows of two features as CSV, of which some are missing, and a column that is none."""
    random = np.random.default_rng(seed)
    lines = [f"{a:.4f},{b:.4f},x" if a > -1.5 else f",{b:.4f},x" for a, b in random.normal(size=(rows, 2)).tolist()]
    return "\n".join(["a,b,carrier", *lines]) + "\n"


def stored(here: Deployment, version: dict[str, Any]) -> Baseline:
    payload = here.artifact({"sha256": version["baseline"]}).read_bytes()
    assert len(payload) == version["baseline_bytes"]
    return Baseline.decode(payload)


def finding(ended: Ended, subject: str) -> tuple[str, str]:
    [found] = [found for found in ended.document if found["subject"] == subject]
    return found["status"], found["sentence"]


def score(here: Deployment, rows: int) -> None:
    """Send events and wait until all are scored."""

    async def send() -> None:
        home = int(partitions_of([b"e1"], 4)[0])
        for i, (a, b) in enumerate(np.random.default_rng(rows).normal(size=(rows, 2)).tolist()):
            event = {"event_id": str(i), "entity_id": "e1", "event_time_ms": i, "features": {"a": a, "b": b}}
            await here.send("features", b"e1", json.dumps(event).encode(), home)

    before = len(asyncio.run(here.events("predictions")))
    asyncio.run(send())
    assert eventually(lambda: len(asyncio.run(here.events("predictions"))) == before + rows)


def test_a_champion_gets_a_baseline_of_its_training_data_and_is_watched_from_then_on(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    subject = f"drift of {here.stream}"
    status, sentence = finding(penstock("doctor", "--json"), subject)
    assert (status, f"champion {champion} has no baseline" in sentence) == ("warning", True)
    shown = penstock("drift", "show")
    assert shown.is_one_sentence(1), shown
    assert "has no baseline" in shown.err

    before = penstock("models", "show", champion, "--json").document
    Path("training.csv").write_text(table(500))
    version = penstock("drift", "baseline", champion, "--data", "training.csv", "--json").document
    assert version.pop("rows") == 500
    assert penstock("models", "show", champion, "--json").document == before | version
    unchanged = {name: value for name, value in version.items() if not name.startswith("baseline")}
    assert unchanged.items() <= before.items()
    baseline = stored(here, version)
    assert [(column.name, column.n + column.missing) for column in baseline.columns] == [
        ("a", 500),
        ("b", 500),
        ("score", 500),
    ]
    assert baseline.features[0].missing > 0
    assert finding(penstock("doctor", "--json"), subject)[0] == "ok"
    eventually(lambda: f"measured by baseline {version['baseline'][:8]}" in here.log)

    score(here, 150)
    shown = eventually(lambda: (ended := penstock("drift", "show", "--json")).code == 0 and ended)
    report = shown.document
    assert (report["model_id"], report["baseline"]) == (champion, version["baseline"])
    assert [column["name"] for column in report["features"]] == ["a", "b"]
    assert f"{here.stream}" in penstock("drift", "show").out


def test_a_baseline_is_made_of_the_newest_events_and_replaces_the_one_before(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    score(here, 130)
    values = [p["features"] for p in asyncio.run(here.events("predictions"))][-120:]
    version = penstock("drift", "baseline", champion, "--events", "120", "--json").document
    baseline = stored(here, version)
    assert [column.n for column in baseline.columns] == [120, 120, 120]
    assert baseline.features[1].mean == pytest.approx(np.mean([b for _, b in values]), abs=1e-6)
    again = penstock("drift", "baseline", champion, "--events", "120", "--json").document
    assert again == version
    assert version["rows"] == 120
    said = penstock("drift", "baseline", champion, "--events", "120").out
    assert f"baseline {version['baseline']} from now on, made of 120 rows\n" in said
    said = penstock("drift", "baseline", champion, "--events", "20000").out
    assert re.search(r"made of \d{3} rows \(there were no more, of 20,000 asked for\)", said), said


def test_a_model_is_registered_together_with_its_baseline(here: Deployment, penstock: Penstock) -> None:
    registered(penstock, seed=11)
    Path("training.csv").write_text(table(300, seed=1))
    ended = penstock("models", "register", "--file", "model.ubj", "--baseline-data", "training.csv", "--json")
    assert [column.n for column in stored(here, ended.document).predictions] == [300]
    Path("training.csv").write_text(table(3))
    listed = penstock("models", "list").out
    ended = penstock("models", "register", "--file", "model.ubj", "--baseline-data", "training.csv")
    assert ended.is_one_sentence(1), ended
    assert penstock("models", "list").out == listed


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("a,c\n1,2\n", 2, "training.csv has no column 'b'; its header has a, c"),
        (table(200) + "inf,1,x\n", 2, "training.csv: row 201, column 'a': 'inf' is infinite"),
        (table(200) + "many,1,x\n", 2, "row 201, column 'a': 'many' is not a number"),
        (table(99), 1, "at least 100 rows that the model can score, and there are 99"),
    ],
)
def test_data_that_no_baseline_can_be_made_of_is_one_sentence_and_changes_nothing(
    here: Deployment, penstock: Penstock, champion: str, text: str, code: int, words: str
) -> None:
    before = penstock("models", "show", champion).out
    Path("training.csv").write_text(text)
    ended = penstock("drift", "baseline", champion, "--data", "training.csv")
    assert ended.is_one_sentence(code), ended
    assert words in ended.err
    assert penstock("models", "show", champion).out == before


def test_what_cannot_have_a_baseline_is_refused(here: Deployment, penstock: Penstock, champion: str) -> None:
    Path("training.csv").write_text(table(200))
    ended = penstock("drift", "baseline", "nobody", "--data", "training.csv")
    assert ended.is_one_sentence(1), ended
    assert "has no model 'nobody'" in ended.err
    version = registered(penstock, seed=12)
    here.artifact(version).unlink()
    ended = penstock("drift", "baseline", version["model_id"], "--data", "training.csv")
    assert ended.is_one_sentence(1), ended
    assert "does not exist" in ended.err
    for options in ([], ["--data", "training.csv", "--events", "5"]):
        ended = penstock("drift", "baseline", champion, *options)
        assert (ended.code, "give either --data FILE or --events N" in ended.err) == (2, True)
