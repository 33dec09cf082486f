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
    assert f"  {model_id} " in penstock("models", "list").out
    assert penstock("models", "show", model_id, "--json").document == {"champion": False, "shadow": False} | version
    promoted = penstock("models", "promote", model_id)
    assert (promoted.code, promoted.out.startswith("done: ")) == (0, True), promoted
    eventually(lambda: f"* {model_id} " in penstock("models", "list").out)
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
    assert (rows[model_id]["status"], rows[model_id]["lineage"]) == ("registered", "")
    assert f"+ {model_id} " in penstock("models", "list").out
    again = penstock("models", "shadow", model_id)
    assert (again.code, "is a shadow already" in again.out) == (1, True), again

    assert penstock("models", "unshadow", model_id).out.startswith(f"done: model {model_id} is no shadow any more")
    eventually(lambda: "shadows" not in scored())
    again = penstock("models", "unshadow", model_id)
    assert (again.code, "is no shadow; the shadows are: none" in again.out) == (1, True), again


def test_a_pruned_model_is_listed_only_on_demand(here: Deployment, penstock: Penstock, champion: str) -> None:
    version = registered(penstock, seed=3)
    pruned = msgspec.convert(version | {"status": "pruned"}, ModelVersion)
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
    assert (ended.code, ended.out.startswith("refused: ")) == (1, True), ended
    assert words in ended.out
    assert ended.err == "penstock: the command was refused; nothing was changed\n"
    [decision] = asyncio.run(here.events("audit"))[len(audited) :]
    assert (decision["outcome"], decision["model_id"]) == ("refused", version["model_id"])
    assert words in decision["reason"]
    assert asyncio.run(here.events("deployments")) == deployed
    assert here.health()["streams"][here.stream]["champion"] == champion


def test_a_model_that_nobody_registered_is_not_asked_for(here: Deployment, penstock: Penstock, champion: str) -> None:
    audited = asyncio.run(here.events("audit"))
    for arguments in (["show", "nobody"], ["promote", "nobody"], ["shadow", "nobody"], ["unshadow", "nobody"]):
        ended = penstock("models", *arguments)
        assert ended.is_one_sentence(1), ended
        assert "has no model 'nobody'" in ended.err
    assert asyncio.run(here.events("audit")) == audited


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
