"""From a CSV file to predictions and samples by commands alone, on both brokers, with a worker that runs."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.partitioner import partitions_of
from tests.command_line import PROGRAM, Deployment, Penstock, eventually

pytestmark = pytest.mark.usefixtures("no_settings")
ROWS = 400
PLAIN = ["--csv", "plain.csv", "--event-id", "c", "--entity", "c", "--time", "t"]
TABLES = """[streams.{stream}.csv]
event_id = "order_id"
entity = "customer_id"
time = "ordered_at"
label = "late"
"""


def write_rows(path: str, first: int, rows: int, labelled: int | None = None) -> list[str]:
    """Write events, one a minute; the first `labelled` of them have their label. Return their ids."""
    random = np.random.default_rng(first)
    lines = ["order_id,customer_id,ordered_at,a,b,late"]
    for number, (a, b) in enumerate(random.normal(size=(rows, 2)).tolist()):
        minute = first + number
        late = int(a + 0.5 * random.normal() > 0) if labelled is None or number < labelled else ""
        time = f"2026-03-{1 + minute // 1440:02}T{minute // 60 % 24:02}:{minute % 60:02}:00Z"
        lines.append(f"o{minute},c{minute % 50},{time},{a:.4f},{b:.4f},{late}")
    Path(path).write_text("\n".join(lines) + "\n")
    return [f"o{first + number}" for number in range(rows)]


@pytest.fixture
def champion(here: Deployment, penstock: Penstock) -> Any:
    """A model that was trained from a file, and serves; as it was answered."""
    if not (answer := here.folder / "trained.json").exists():
        write_rows("history.csv", 0, ROWS)
        trained = penstock("models", "train", "--csv", "history.csv", "--json")
        assert trained.code == 0, trained
        answer.write_text(trained.out)
        assert penstock("models", "promote", trained.document["model_id"]).code == 0
    version = json.loads(answer.read_text())
    eventually(lambda: here.health()["ready"] and here.health()["streams"][here.stream]["champion"])
    return version


def test_a_model_is_trained_from_a_file_and_registered_with_its_figures_and_baseline(
    here: Deployment, penstock: Penstock, champion: Any
) -> None:
    assert champion["rows"] == {"train": 280, "validation": 40, "test": 80, "unlabelled": 0}
    auc = champion["against_guessing"][0]
    assert (auc["metric"], auc["model"]) == ("roc_auc", pytest.approx(champion["metrics"]["roc_auc"]))
    assert 0 < auc["low"] < auc["difference"] < auc["high"]
    shown = penstock("models", "show", champion["model_id"], "--json").document
    assert (shown["status"], shown["baseline"]) == ("production", champion["baseline"])
    assert here.artifact({"sha256": champion["baseline"]}).exists()
    assert here.artifact(champion).exists()

    told = penstock("models", "train", "--csv", "history.csv")
    assert told.code == 0, told
    *_, model_id, last = told.out.splitlines()
    late = sum(line.endswith(",1") for line in Path("history.csv").read_text().splitlines())
    assert told.out.splitlines()[:4] == [
        "event_id       order_id",
        "entity_id      customer_id",
        "event_time_ms  ordered_at",
        f"label          late, {late} of {ROWS} are 1",
    ]
    assert champion["columns"] == {
        "event_id": "order_id",
        "entity": "customer_id",
        "time": "ordered_at",
        "label": "late",
    }
    assert last.endswith(f"penstock models promote {model_id} --stream {here.stream}")


def test_rows_are_scored_and_labels_become_samples(here: Deployment, penstock: Penstock, champion: Any) -> None:
    ids = write_rows("new.csv", 1_000, 300, labelled=200)
    sent = penstock("stream", "send", "--csv", "new.csv", "--labels")
    assert sent.code == 0, sent
    for line in ("event_id       order_id", "entity_id      customer_id", "event_time_ms  ordered_at"):
        assert line in sent.out
    assert re.search(r"^label          late, \d+ of 200 are 1$", sent.out, re.MULTILINE)
    assert f"300 events are in {here.stream}.features, 200 labels in {here.stream}.labels" in sent.out

    def seen(topic: str) -> list[Any]:
        tail = penstock("stream", "tail", topic, "-n", "10000", "--whole")
        assert tail.code == 0, tail
        records = [json.loads(line) for line in tail.out.splitlines()]
        return [record for record in records if record["value"]["event_id"] in ids]

    eventually(lambda: len(seen("predictions")) == 300)
    eventually(lambda: len(seen("samples")) == 200)
    predictions = seen("predictions")
    assert {record["value"]["event_id"] for record in predictions} == set(ids)
    assert {record["value"]["event_id"] for record in seen("samples")} == set(ids[:200])
    homes = partitions_of([record["key"].encode() for record in predictions], 4)
    assert [record["partition"] for record in predictions] == homes.tolist()
    assert all(record["key"] == record["value"]["entity_id"] for record in predictions)
    times = [record["time_ms"] for record in predictions]
    assert times == sorted(times)
    newest = penstock("stream", "tail", f"{here.stream}.predictions", "-n", "2").out.splitlines()
    assert [json.loads(line) for line in newest] == [record["value"] for record in predictions[-2:]]


def samples(penstock: Penstock) -> list[str]:
    return penstock("stream", "tail", "samples", "-n", "10000").out.splitlines()


def test_features_alone_leave_at_the_rate_that_was_asked_for(
    here: Deployment, penstock: Penstock, champion: Any
) -> None:
    write_rows("slow.csv", 2_000, 60)
    before = len(samples(penstock))
    sent = penstock("stream", "send", "--csv", "slow.csv", "--rate", "100", "--json")
    assert sent.document["events"] == 60
    assert sent.document["labels"] == 0
    records = [
        json.loads(line) for line in penstock("stream", "tail", "features", "-n", "60", "--whole").out.splitlines()
    ]
    assert records[-1]["time_ms"] - records[0]["time_ms"] > 400
    assert {record["value"]["event_id"] for record in records} == {f"o{2_000 + n}" for n in range(60)}
    assert len(samples(penstock)) == before


def test_a_file_of_one_row_for_each_entity_is_sent_by_the_same_columns_as_a_long_one(
    here: Deployment, penstock: Penstock
) -> None:
    [event_id] = write_rows("short.csv", 40_000, 1)
    sent = penstock("stream", "send", "--csv", "short.csv", "--positive", "lost", "--json")
    assert sent.code == 0, sent
    assert sent.document["columns"]["entity"] == "customer_id"
    tail = penstock("stream", "tail", "features", "-n", "1", "--whole")
    assert tail.code == 0, tail
    record = json.loads(tail.out)
    assert (record["value"]["event_id"], record["value"]["entity_id"], record["key"]) == (event_id, "c0", "c0")


def test_who_follows_a_topic_sees_what_comes_until_he_ends_it(
    here: Deployment, penstock: Penstock, champion: Any
) -> None:
    """The command is interrupted as Ctrl-C does it, and leaves neither a traceback nor a warning."""
    command = [str(PROGRAM), "stream", "tail", "predictions", "-n", "0", "--follow"]
    with Path("followed").open("w") as out:
        following = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, env=os.environ, text=True)
    try:
        for first in range(3_000, 3_200):  # it tells nobody when it has begun to follow
            write_rows("one.csv", first, 1)
            assert penstock("stream", "send", "--csv", "one.csv").code == 0
            if Path("followed").read_text().count("\n") >= 2:
                break
    finally:
        following.send_signal(signal.SIGINT)
        _, told = following.communicate(timeout=20)
    assert (following.returncode, told.strip()) == (130, "")
    followed = [json.loads(line)["event_id"] for line in Path("followed").read_text().splitlines()]
    assert len(set(followed)) == len(followed) >= 2
    assert set(followed) <= {f"o{number}" for number in range(3_000, first + 1)}


def test_following_ends_when_nobody_reads_any_more(here: Deployment, penstock: Penstock) -> None:
    """As with `head`, which goes when it has seen enough, though nothing new comes."""
    command = [str(PROGRAM), "stream", "tail", "commands.dead", "--follow"]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True)
    assert following.stdout is not None
    following.stdout.close()
    try:
        assert following.wait(20) == 0
    finally:
        following.kill()
        following.wait()
        assert following.stderr is not None
        with following.stderr as told:
            assert "Traceback" not in told.read()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["models", "train", *PLAIN], "has no column 'late', the label of stream"),
        (["models", "train", *PLAIN, "--label", "lat"], "has no column 'lat'; its header has a, b, c, t"),
        (["models", "train", *PLAIN, "--label", "a"], "'a' is a feature of stream"),
        (["models", "train", *PLAIN, "--label", "c", "--positive", "y"], "has no row whose 'c' is 'y'"),
        (["stream", "send", *PLAIN, "--labels"], "has no column 'late', the label of stream"),
        (["stream", "send", *PLAIN], "event id 'x' comes 3 times; name another column with --event-id"),
        (["stream", "send", "--csv", "plain.csv"], "has no column 'order_id', which [streams."),
        (["stream", "send", *PLAIN, "--csv", "narrow.csv"], "has no column 'b'; its header has a, c, t"),
        (["stream", "tail", "prediction"], "has no topic 'prediction'; its topics are alerts"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    here: Deployment, penstock: Penstock, command: list[str], words: str
) -> None:
    Path("plain.csv").write_text("a,b,c,t\n" + 3 * "1,2,x,2026-03-01\n")
    Path("narrow.csv").write_text("a,c,t\n1,2,2026-03-01\n")
    ended = penstock(*command)
    assert ended.is_one_sentence(2), ended
    assert words in ended.err


def test_a_topic_without_a_record_is_told_so(here: Deployment, penstock: Penstock) -> None:
    ended = penstock("stream", "tail", "commands.dead")
    assert (ended.code, ended.out, ended.err) == (0, "", f"{here.stream}.commands.dead has no record.\n")
