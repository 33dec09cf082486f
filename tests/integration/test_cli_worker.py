"""What a person sees of a worker that runs, on both brokers: dead letters, the doctor, no secrets, its end."""

import asyncio
import json
import signal
from typing import Any

import pytest

from stream.partitioner import partitions_of
from tests.command_line import CANARY, Deployment, Ended, Penstock, eventually, registered

pytestmark = pytest.mark.usefixtures("no_settings")


def test_dead_letters_are_listed_and_those_that_can_be_scored_are_replayed_once(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    event = {"event_id": "lost", "entity_id": "e1", "event_time_ms": 1, "features": {"a": 1.0, "b": None}}
    home = int(partitions_of([b"e1"], 4)[0])
    elsewhere = (home + 1) % 4
    asyncio.run(here.send("features", b"e1", json.dumps(event).encode(), elsewhere))
    asyncio.run(here.send("features", b"e2", b"\x1b[2Jjunk", elsewhere))
    asyncio.run(here.send("commands", here.stream.encode(), b"junk", 0))

    def waiting() -> dict[str, int]:
        document = penstock("dead-letters", "list", "--json").document
        return {f"{row['topic']}/{r['reason']}": r["waiting"] for row in document for r in row["reasons"]}

    features, commands = f"{here.stream}.features", f"{here.stream}.commands"
    junk = {f"{features}/malformed_json": 1, f"{commands}/malformed_json": 1}
    eventually(lambda: waiting() == junk | {f"{features}/wrong_partition": 1})
    shown = penstock("dead-letters", "list", "--reason", "malformed_json", "--topic", "features").out
    assert f"{features} {elsewhere}:" in shown
    assert "\\x1b[2Jjunk" in shown
    assert "\x1b" not in shown
    assert "would be sent          1  wrong_partition" in penstock("dead-letters", "replay", "--dry-run").out
    replayed = penstock("dead-letters", "replay", "--json").document
    assert replayed["sent"] == {"wrong_partition": 1}
    assert [(kept["reason"], kept["count"]) for kept in replayed["kept"]] == [("malformed_json", 1)]
    assert penstock("dead-letters", "replay", "--json").document["sent"] == {}

    def predictions() -> list[Any]:
        return [p for p in asyncio.run(here.events("predictions")) if p["event_id"] == "lost"]

    [prediction] = eventually(predictions)
    assert (prediction["partition"], prediction["features"]) == (home, [1.0, None])
    eventually(lambda: waiting() == junk | {f"{features}/wrong_partition": 0})


def test_the_doctor_finds_all_well_and_then_what_is_broken(here: Deployment, penstock: Penstock, champion: str) -> None:
    well = penstock("doctor", "--json")
    assert well.code == 0, well
    assert f"{champion} " in sentence_on(well, f"champion of {here.stream}")
    assert "is ready" in sentence_on(well, "metrics port")
    if here.kind == "kafka":
        for group in ("score", "join", "learn", "evaluate"):
            assert sentence_on(well, f"{group} of {here.stream}").startswith("1 worker(s)")
    assert sentence_on(well, f"join of {here.stream}").endswith(f"nothing of {here.stream}.labels waits")
    path = here.artifact(penstock("models", "show", champion, "--json").document)
    kept = path.read_bytes()
    path.write_bytes(b"rot")
    broken = penstock("doctor")
    path.write_bytes(kept)
    assert broken.code == 1
    assert f"problem  champion of {here.stream}: cannot serve: " in broken.out
    assert "was changed since it was stored" in broken.out
    assert "Traceback" not in broken.out + broken.err


def test_the_doctor_loads_the_shadows_beside_the_champion(here: Deployment, penstock: Penstock, champion: str) -> None:
    shadow = registered(penstock, seed=7)
    subject = f"shadow {shadow['model_id']} of {here.stream}"
    assert penstock("models", "shadow", shadow["model_id"]).code == 0
    assert "fits beside the champion" in sentence_on(penstock("doctor", "--json"), subject)
    size = penstock("models", "show", champion, "--json").document["memory_bytes"]
    short = penstock("doctor", "--json", ML_MODEL_MEMORY_BYTES=str(size + 1))
    assert short.code == 0, short
    assert f"take {size:,} of the {size + 1:,} that model_memory_bytes allows" in sentence_on(short, subject)
    assert "fits" in sentence_on(short, f"champion of {here.stream}")
    assert penstock("models", "unshadow", shadow["model_id"]).code == 0
    assert subject not in {finding["subject"] for finding in penstock("doctor", "--json").document}


def sentence_on(ended: Ended, subject: str) -> str:
    [sentence] = [finding["sentence"] for finding in ended.document if finding["subject"] == subject]
    return str(sentence)


def test_no_output_shows_a_secret_not_even_at_debug(here: Deployment, penstock: Penstock, champion: str) -> None:
    assert "DEBUG" in here.log
    for arguments in (["doctor"], ["doctor", "--json"], ["models", "show", champion], ["topics", "check"]):
        ended = penstock(*arguments)
        assert CANARY not in ended.out + ended.err
    assert CANARY not in here.log


def test_a_worker_that_is_told_to_end_does_so_and_then_nobody_answers(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    here.worker.send_signal(signal.SIGTERM)
    assert here.worker.wait(20) == 0, here.log[-2000:]
    ended = penstock("models", "promote", champion, "--timeout", "0.5")
    assert ended.is_one_sentence(1), ended
    assert "is a worker with the role learn running?" in ended.err
    if here.kind == "kafka":
        assert "no worker runs this role; at most 1 records" in sentence_on(
            penstock("doctor", "--json"), f"learn of {here.stream}"
        )
