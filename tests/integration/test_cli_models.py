"""`penstock models`, as a person uses it, on both brokers, with a worker that runs."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xgboost

from schemas.events import ModelVersion
from schemas.wire import encode
from stream.partitioner import partitions_of
from tests.command_line import Deployment, Penstock, eventually, registered

pytestmark = pytest.mark.usefixtures("no_settings")


def test_a_model_is_registered_listed_shown_and_promoted_and_then_serves(here: Deployment, penstock: Penstock) -> None:
    version = registered(penstock, seed=1)
    model_id = version["model_id"]
    assert version["registered_by"]
    assert here.artifact(version).read_bytes() == Path("model.ubj").read_bytes()
    assert f"  {model_id} " in penstock("models", "list", "--status", "draft").out
    shown = penstock("models", "show", model_id, "--json").document
    assert [change["status"] for change in shown.pop("history")] == ["draft"]
    assert shown == {"champion": False, "shadow": False, "variant": "", "previous": False} | version
    promoted = penstock("models", "promote", model_id)
    assert (promoted.code, promoted.out.startswith("done: ")) == (0, True), promoted
    eventually(lambda: f"*  {model_id} " in penstock("models", "list").out)
    eventually(lambda: here.health()["ready"] and here.health()["streams"][here.stream]["champion"] == model_id)


def test_a_shadow_scores_beside_the_champion_until_it_is_told_to_end(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    model_id = registered(penstock, seed=2)["model_id"]
    home = int(partitions_of([b"e1"], 4)[0])

    def scored() -> Any:
        """Send an event and return what became of the newest that was sent."""
        event = {"event_id": "probe", "entity_id": "e1", "event_time_ms": 1, "features": {"a": 1.0, "b": None}}
        asyncio.run(here.send("features", b"e1", json.dumps(event).encode(), home))
        predictions = [p for p in asyncio.run(here.events("predictions")) if p["event_id"] == "probe"]
        return max(predictions, key=lambda p: p["offset"], default={})

    shadowed = penstock("models", "shadow", model_id, "--json").document
    assert (shadowed["outcome"], shadowed["reason"]) == ("done", f"model {model_id} is a shadow")
    prediction = eventually(lambda: (seen := scored()).get("shadows") and seen)
    assert prediction["model_id"] == champion
    [shadow] = prediction["shadows"]
    assert (shadow["variant"], shadow["model_id"]) == (model_id, model_id)
    assert 0 < shadow["score"] < 1
    assert prediction["latency_ms"] < 60_000

    rows = {row["model_id"]: row for row in penstock("models", "list", "--json").document}
    assert [i for i, row in rows.items() if row["shadow"]] == [model_id]
    assert (rows[model_id]["status"], rows[model_id]["lineage"]) == ("testing", "")
    assert f"+  {model_id} " in penstock("models", "list").out
    again = penstock("models", "shadow", model_id)
    assert again.is_refusal("is a shadow already"), again

    assert penstock("models", "unshadow", model_id).out.startswith(f"done: model {model_id} is no shadow any more")
    eventually(lambda: "shadows" not in scored())
    again = penstock("models", "unshadow", model_id)
    assert again.is_refusal("is no shadow; the shadows are: none"), again


def test_a_pruned_model_is_listed_only_on_demand(here: Deployment, penstock: Penstock, champion: str) -> None:
    version = registered(penstock, seed=3)
    pruned = msgspec.convert(version | {"status": "archived", "pruned": True}, ModelVersion)
    asyncio.run(here.send("models", here.stream.encode(), encode(pruned), 0))
    for options in ([], ["--json"]):
        assert champion in penstock("models", "list", *options).out
        assert version["model_id"] not in penstock("models", "list", *options).out
        assert version["model_id"] in penstock("models", "list", "--all", *options).out


def damage(here: Deployment, version: dict[str, Any]) -> None:
    path = here.artifact(version)
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def remove(here: Deployment, version: dict[str, Any]) -> None:
    here.artifact(version).unlink()


def forge(here: Deployment, version: dict[str, Any], signature: str) -> None:
    """Register the same bytes beside `penstock models register`, under another id."""
    version["model_id"] += "-forged"
    forged = msgspec.convert(version | {"signature": signature}, ModelVersion)
    asyncio.run(here.send("models", here.stream.encode(), encode(forged), 0))


REFUSALS: dict[str, tuple[Callable[[Deployment, dict[str, Any]], None], list[str], str]] = {
    "stale revision": (lambda *_: None, ["--expected-revision", "0"], "the routing is at revision"),
    "corrupted": (damage, [], "was changed since it was stored"),
    "missing": (remove, [], "does not exist"),
    "unsigned": (lambda here, version: forge(here, version, ""), [], "is not signed"),
    "signed with another key": (lambda here, version: forge(here, version, "0" * 64), [], "the signature of model"),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_promotion_that_must_not_be_is_refused_with_the_reason_and_changes_nothing(
    here: Deployment, penstock: Penstock, champion: str, reason: str
) -> None:
    spoil, options, words = REFUSALS[reason]
    version = registered(penstock, seed=100 + list(REFUSALS).index(reason))
    spoil(here, version)
    audited, deployed = (asyncio.run(here.events(kind)) for kind in ("audit", "deployments"))
    ended = penstock("models", "promote", version["model_id"], *options)
    assert ended.is_refusal(words), ended
    assert ended.err.startswith("penstock: refused: ")
    assert ended.err.endswith("; nothing was changed\n")
    [decision] = asyncio.run(here.events("audit"))[len(audited) :]
    assert (decision["outcome"], decision["model_id"]) == ("refused", version["model_id"])
    assert words in decision["reason"]
    assert asyncio.run(here.events("deployments")) == deployed
    assert here.health()["streams"][here.stream]["champion"] == champion


def test_a_model_that_nobody_registered_is_not_shown_and_what_is_asked_of_it_is_refused_and_audited(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    for arguments in (["show", "nobody"], ["compare", champion, "nobody"]):
        ended = penstock("models", *arguments)
        assert ended.is_one_sentence(1), ended
        assert "has no model 'nobody'" in ended.err
    for action in ("promote", "shadow", "archive"):
        ended = penstock("models", action, "nobody")
        assert ended.is_refusal("refused: no model 'nobody' is registered"), ended
        decision = penstock("audit", "--limit", "1", "--json").document[0]
        assert (decision["outcome"], decision["model_id"]) == ("refused", "nobody")


def test_models_are_numbered_and_compared_with_what_was_said_of_them(here: Deployment, penstock: Penstock) -> None:
    first = registered(penstock, seed=10)
    registered(penstock, seed=11)
    file = ["--file", "model.ubj", "--version", "7.0.0"]
    said = ["--metric", "auc=0.75", "--parameter", "depth=2", "--parameter", "note=new"]
    span = ["--training-from", "2024-01-31", "--training-to", "2024-02-01T12:00+02:00"]
    second = penstock("models", "register", *file, *said, *span, "--json").document
    assert (second["metrics"], second["parameters"]) == ({"auc": 0.75}, {"depth": 2, "note": "new"})
    assert (second["version"], second["status"]) == ("7.0.0", "draft")
    times = (second["training_from_time_ms"], second["training_to_time_ms"])
    assert times == (1_706_659_200_000, 1_706_781_600_000)
    third = registered(penstock, seed=12)
    assert third["version"] == "7.1.0"
    taken = penstock("models", "register", *file)
    assert taken.is_refusal(f"is model {second['model_id']} already"), taken
    compared = penstock("models", "compare", first["model_id"], second["model_id"], "--json").document
    assert not compared["same_bytes"]
    assert compared["metrics"] == {"auc": {"values": [None, 0.75], "difference": None}}
    assert compared["properties"]["version"] == [first["version"], "7.0.0"]
    assert "parameter depth" in penstock("models", "compare", first["model_id"], second["model_id"]).out
    audited = penstock("audit", "--json").document
    assert [e["action"] for e in audited if e["model_id"] == third["model_id"]] == ["register"]
    assert audited[-1]["issued_by"] == third["registered_by"]


def test_a_status_moves_along_its_ways_and_its_history_says_who_when_and_why(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    model_id = registered(penstock, seed=13)["model_id"]
    assert penstock("models", "move", model_id, "staging", "--reason", "it looks good").code == 0
    assert penstock("models", "archive", model_id, "--reason", "it was not").code == 0
    for status in ("testing", "production"):
        assert penstock("models", "move", model_id, status).code == 1
    promoted = penstock("models", "promote", model_id)
    assert promoted.is_refusal(f"penstock models move {model_id} staging"), promoted
    assert penstock("models", "archive", champion).code == 1
    assert penstock("models", "move", model_id, "staging").code == 0
    history = penstock("models", "show", model_id, "--json").document["history"]
    assert [(change["status"], change["reason"]) for change in history] == [
        ("draft", "registered"),
        ("staging", "it looks good"),
        ("archived", "it was not"),
        ("staging", ""),
    ]
    assert all(change["by"] and change["time_ms"] for change in history)
    assert model_id in penstock("models", "list", "--status", "staging").out
    assert model_id not in penstock("models", "list", "--status", "archived", "--status", "draft").out


def test_a_roll_back_brings_the_model_before_back_and_what_it_replaces_stays_in_staging(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    model_id = registered(penstock, seed=14)["model_id"]
    assert penstock("models", "promote", model_id).code == 0
    assert f"<  {champion} " in penstock("models", "list").out
    answer = penstock("models", "rollback", "--reason", "it was worse", "--json").document
    assert (answer["outcome"], answer["model_id"]) == ("done", champion)
    eventually(lambda: here.health()["streams"][here.stream]["champion"] == champion)
    rows = {row["model_id"]: row for row in penstock("models", "list", "--json").document}
    assert (rows[champion]["status"], rows[champion]["champion"]) == ("production", True)
    assert (rows[model_id]["status"], "it was worse" in rows[model_id]["reason"]) == ("staging", True)
    told = penstock("audit", "--limit", "1").out
    assert " done     rollback  " in told
    assert rows[model_id]["changed_by"] in told


def test_a_file_that_is_no_model_of_the_stream_is_not_registered(here: Deployment, penstock: Penstock) -> None:
    before = penstock("models", "list").out
    Path("junk.ubj").write_bytes(b"junk")
    rows = xgboost.DMatrix(np.eye(3, dtype=np.float32), label=[0, 1, 0])
    xgboost.train({"objective": "binary:logistic"}, rows, 1).save_model("wide.ubj")
    for file, words in (("junk.ubj", "not a model that can be registered"), ("wide.ubj", "takes 3 features")):
        ended = penstock("models", "register", "--file", file)
        assert ended.is_one_sentence(1), ended
        assert words in ended.err
    assert penstock("models", "list").out == before
