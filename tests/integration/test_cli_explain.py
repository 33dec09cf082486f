"""`penstock explain`, as a person uses it, on both brokers: of what a worker has scored and of records made by hand."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ml.models.registry import learner_type
from schemas.events import ModelVersion, Prediction
from schemas.wire import encode
from stream.partitioner import partitions_of
from tests.command_line import Deployment, Penstock, eventually, registered

pytestmark = pytest.mark.usefixtures("no_settings")
LONG_AGO = "--from=2020-01-01"


def scored(here: Deployment, event_id: str, features: dict[str, float | None]) -> Any:
    """Send an event to the worker and return its prediction."""
    home = int(partitions_of([b"e1"], 4)[0])
    event = {"event_id": event_id, "entity_id": "e1", "event_time_ms": 1, "features": features}
    asyncio.run(here.send("features", b"e1", json.dumps(event).encode(), home))

    def found() -> Any:
        return [one for one in asyncio.run(here.events("predictions")) if one["event_id"] == event_id]

    return eventually(found)[0]


def written(
    here: Deployment, event_id: str, model_id: str, score: float, features: Sequence[float | None] = (1.5, None)
) -> Prediction:
    """Write a prediction beside the worker."""
    prediction = Prediction(
        event_id=event_id,
        entity_id="e1",
        event_time_ms=1,
        scored_time_ms=2,
        model_id=model_id,
        variant="champion",
        deployment_revision=1,
        score=score,
        scores=None,
        label=0,
        features=tuple(features),
        partition=0,
        offset=0,
    )
    asyncio.run(here.send("predictions", b"e1", encode(prediction), 0))
    return prediction


def test_a_prediction_is_executed_again_to_the_bit_and_its_contributions_add_up(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    prediction = scored(here, "probe", {"a": 1.25, "b": None})
    found = penstock("explain", "probe", LONG_AGO, "--json")
    assert found.code == 0, found
    document = found.document
    assert (document["identical"], document["prediction"]["event_id"]) == (True, "probe")
    served = document["served"]
    assert served["model_id"] == champion
    assert served["score"] == served["logged"] == prediction["score"]
    shown = penstock("models", "show", champion, "--json").document
    assert (served["sha256"], served["status"]) == (shown["sha256"], shown["status"])
    said = document["contributions"]
    assert (said["scale"], said["method"]) == ("log-odds", "model")
    assert {row["feature"]: row["value"] for row in said["features"]} == {"a": 1.25, "b": None}
    sizes = [abs(row["contribution"]) for row in said["features"]]
    assert sizes == sorted(sizes, reverse=True)
    total = said["base"] + sum(row["contribution"] for row in said["features"])
    assert 1 / (1 + np.exp(-total)) == pytest.approx(prediction["score"], abs=1e-6)

    by_place = penstock("explain", document["place"])
    assert by_place.code == 0, by_place
    for words in ("event probe of e1", "the same", shown["sha256"], "missing", "(base value)"):
        assert words in by_place.out
    assert ["a", "1.25"] in [line.split()[:2] for line in by_place.out.splitlines()]
    assert penstock("explain", document["place"], "--json").document == document


def test_random_predictions_are_executed_again_and_counted(here: Deployment, penstock: Penstock, champion: str) -> None:
    for number in range(5):
        scored(here, f"random-{number}", {"a": number / 7, "b": 1.0})
    found = penstock("explain", "--random", "3", "--seed", "1", "--json")
    assert (found.code, found.document["n"], found.document["identical"]) == (0, 3, 3), found
    assert sum(counts["n"] for counts in found.document["models"].values()) == 3
    found = penstock("explain", "--random", "100000")
    assert found.code == 0, found
    assert "(there are no more, of 100,000 asked for)" in found.out


def test_a_model_without_contributions_of_its_own_is_explained_by_others_that_were_scored(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    random = np.random.default_rng(3)
    matrix = random.normal(size=(200, 2)).astype(np.float32)
    learner = learner_type("river-logistic")(2)
    learner.learn(matrix, (matrix[:, 0] > 0).astype(np.int64))
    Path("river.model").write_bytes(learner.dump())
    model_id = penstock(
        "models", "register", "--file", "river.model", "--algorithm", "river-logistic", "--json"
    ).document["model_id"]
    for number, row in enumerate(matrix[:4]):
        written(here, f"river-{number}", model_id, float(learner.predict(row[None])[0]), row.tolist())
    found = penstock("explain", "river-2", LONG_AGO, "--json")
    assert found.code == 0, found
    said = found.document["contributions"]
    assert (said["scale"], said["method"]) == ("score", "exact")
    assert said["background"] >= 3
    assert said["output"] == pytest.approx(found.document["served"]["score"], abs=1e-9)
    assert said["features"][0]["feature"] == "a"
    assert penstock("explain", "river-2", LONG_AGO, "--json").document["contributions"]["features"] == said["features"]


def test_a_score_that_was_changed_is_not_reproduced(here: Deployment, penstock: Penstock, champion: str) -> None:
    prediction = scored(here, "honest", {"a": 0.5, "b": 0.5})
    changed = float(np.nextafter(np.float32(prediction["score"]), np.float32(1)))
    written(here, "changed", champion, changed, (0.5, 0.5))
    found = penstock("explain", "changed", LONG_AGO)
    assert found.code == 1
    assert f"{changed!r}" in found.out
    assert f"{prediction['score']!r}" in found.out
    assert "NOT THE SAME" in found.out
    assert "1 of these scores was not reproduced" in found.err
    found = penstock("explain", "--random", "100000", "--json")
    assert (found.code, found.document["n"] - found.document["identical"]) == (1, 1), found
    [wrong] = found.document["wrong"]
    assert (wrong["logged"], wrong["score"]) == (changed, prediction["score"])


def test_what_cannot_be_explained_is_refused_in_one_sentence(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    version = registered(penstock, seed=3)
    pruned = msgspec.convert(version | {"pruned": True, "status": "archived"}, ModelVersion)
    asyncio.run(here.send("models", here.stream.encode(), encode(pruned), 0))
    written(here, "pruned", version["model_id"], 0.5)
    damaged = registered(penstock, seed=4)
    here.artifact(damaged).write_bytes(b"rot")
    written(here, "damaged", damaged["model_id"], 0.5)
    written(here, "wide", champion, 0.5, (1.0, 2.0, 3.0))
    for _ in range(2):
        written(here, "twice", champion, 0.5)
    for arguments, words in (
        (["pruned", LONG_AGO], f"model {version['model_id']} was pruned: its file was deleted"),
        (["damaged", LONG_AGO], "was changed since it was stored"),
        (["wide", LONG_AGO], f"is of 3 features, and model {champion} takes 2"),
        (["twice", LONG_AGO], "event 'twice' has 2 predictions in that time; give the place of one of them: 0:"),
        (["nobody", LONG_AGO], "no prediction of event 'nobody' was logged from 2020-01-01 00:00:00 to "),
        (["wide", LONG_AGO, "--to=2020-01-02T00:00:00+01:00"], "to 2020-01-01 23:00:00 UTC"),
        (["9:0"], f"{here.stream}.predictions has no partition 9"),
        (["0:100000"], "holds no record at 0:100000"),
    ):
        ended = penstock("explain", *arguments)
        assert ended.is_one_sentence(1), ended
        assert words in ended.err
    sample = penstock("explain", "--random", "100000", "--json")
    lost = {one["model_id"]: one["n"] for one in sample.document["not_executed"]}
    assert lost == {version["model_id"]: 1, damaged["model_id"]: 1, champion: 1}, sample
    assert sample.document["n_not_executed"] == 3
    assert "3 could not be executed again" in sample.err


def test_arguments_that_do_not_go_together_are_refused(penstock: Penstock) -> None:
    for arguments in ([], ["0:1", "--random=3"], ["event"], ["0:1", "--to=2026-01-01"], ["0:1", "--seed=3"]):
        ended = penstock("explain", *arguments)
        assert (ended.code, ended.out) == (2, ""), ended
    assert "is no ISO 8601 time" in penstock("explain", "event", "--from=yesterday").err
