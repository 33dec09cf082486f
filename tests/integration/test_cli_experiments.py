"""`penstock experiments` and `penstock rollouts`, as a person uses them, on both brokers, with a worker that runs."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from stream.partitioner import partitions_of
from tests.command_line import Deployment, Ended, Penstock, eventually, registered
from tests.redis_server import RedisServer

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def challenger(here: Deployment, penstock: Penstock, champion: str, request: pytest.FixtureRequest) -> str:
    """The id of a model that nothing is routed to, another one for each test."""
    seed = 1_000 + sum(map(ord, request.node.name))
    return str(registered(penstock, seed=seed)["model_id"])


@pytest.fixture
def nothing_runs(here: Deployment, penstock: Penstock, champion: str) -> Iterator[None]:
    """Whatever a test leaves running is stopped."""
    yield
    for course in penstock("experiments", "list", "--json").document:
        if course["running"]:
            penstock("experiments", "stop", course["experiment"]["experiment_id"])
    if champion != newest(here)["champion"]:
        assert penstock("models", "rollback").code == 0
    eventually(lambda: here.health()["streams"][here.stream]["champion"] == champion)  # the next test asks for it


def newest(here: Deployment) -> Any:
    return asyncio.run(here.events("deployments"))[-1]


def name_of(here: Deployment, suffix: str) -> str:
    return f"{suffix}-{here.kind}"


def predicted(here: Deployment, entity: str) -> Any:
    """Send an event of the entity and return the newest prediction of one."""
    event = {"event_id": f"of {entity}", "entity_id": entity, "event_time_ms": 1, "features": {"a": 1.0, "b": None}}
    home = int(partitions_of([entity.encode()], 4)[0])
    asyncio.run(here.send("features", entity.encode(), json.dumps(event).encode(), home))
    found = [p for p in asyncio.run(here.events("predictions")) if p["entity_id"] == entity]
    return max(found, key=lambda p: p["offset"], default={})


@pytest.mark.usefixtures("nothing_runs")
def test_an_experiment_runs_with_the_shares_that_were_asked_for_until_it_is_stopped(
    here: Deployment, penstock: Penstock, champion: str, challenger: str
) -> None:
    name = name_of(here, "colours")
    options = ["--metric", "accuracy", "--min-samples", "50", "--max-call-ms", "off", "--guard", "brier"]
    started = penstock("experiments", "start", name, "--variant", f"B={challenger}:20%", *options)
    assert (started.code, started.out.startswith("done: ")) == (0, True), started
    experiment = newest(here)["experiment"]
    assert [(v["name"], v["model_id"], v["buckets"]) for v in experiment["variants"]] == [
        ("champion", champion, 8_000),
        ("B", challenger, 2_000),
    ]
    plan = experiment["plan"]
    assert (plan["metric"], plan["min_samples"], plan["max_call_ms"]) == ("accuracy", 50, None)
    assert plan["guard_metrics"] == ["brier"]
    assert f"~  {challenger} " in penstock("models", "list").out
    assert "champion 80%, B 20%" in penstock("experiments", "show").out

    assert penstock("experiments", "shares", name, "B=60", "--reason", "it looks good").code == 0
    shown = penstock("experiments", "show", name, "--json").document
    assert [(step["epoch"], step["shares"]["B"]) for step in shown["steps"]] == [(0, 0.2), (1, 0.6)]
    assert (shown["running"], shown["steps"][1]["reason"]) == (True, "it looks good")

    assert penstock("experiments", "stop", name, "--reason", "enough").code == 0
    assert newest(here).get("experiment") is None
    assert f"champion {champion} stayed" in penstock("experiments", "show", name).out
    [row] = [r for r in penstock("experiments", "list", "--json").document if r["experiment"]["experiment_id"] == name]
    assert (row["running"], row["ended"]["reason"]) == (False, "enough")
    assert name in penstock("experiments", "list").out
    told = penstock("experiments", "show")
    assert told.is_refusal(f"{name}; `penstock experiments show {name}` shows the last"), told


@pytest.mark.usefixtures("nothing_runs")
def test_an_entity_is_served_by_the_variant_that_its_assignment_names(
    here: Deployment, penstock: Penstock, challenger: str
) -> None:
    name = name_of(here, "assigned")
    ended = penstock("experiments", "assignment", "e1")
    assert ended.is_refusal("serves every entity"), ended
    assert penstock("experiments", "assignment", "").is_refusal("is not empty")
    assert penstock("experiments", "start", name, "--variant", f"B={challenger}:50").code == 0
    found = [penstock("experiments", "assignment", f"e{number}", "--json").document for number in range(8)]
    by_variant = {assigned["variant"]: assigned for assigned in found}
    assert by_variant.keys() == {"champion", "B"}
    for variant, assigned in by_variant.items():
        wanted = (variant, assigned["model_id"])
        eventually(lambda a=assigned, w=wanted: served(predicted(here, a["entity_id"])) == w)
    assert (
        f"bucket {by_variant['B']['bucket']} "
        in penstock("experiments", "assignment", by_variant["B"]["entity_id"]).out
    )

    shown = eventually(lambda: reported(penstock("experiments", "show", name)))
    assert "verdict: too_early" in shown
    report = penstock("experiments", "show", name, "--json").document["report"]
    assert {figures["variant"] for figures in report["variants"]} == {"champion", "B"}


def reported(ended: Ended) -> str:
    return ended.out if "why: " in ended.out else ""


def served(prediction: dict[str, Any]) -> tuple[Any, Any]:
    return prediction.get("variant"), prediction.get("model_id")


@pytest.mark.usefixtures("nothing_runs")
def test_an_assignment_that_is_asked_for_is_shown_in_redis(
    here: Deployment, penstock: Penstock, challenger: str, server: RedisServer
) -> None:
    name = name_of(here, "mirrored")
    assert start(penstock, name, f"B={challenger}:50").code == 0
    asked = penstock("experiments", "assignment", "e:1", "--json", ML_REDIS_URL=server.url)
    assert asked.code == 0, asked
    with Redis.from_url(server.url) as redis:
        assert json.loads(redis.get(f"ab:assignment:{here.stream}:{name}:e:1")) == asked.document
    server.kill()
    without = penstock("experiments", "assignment", "e:1", ML_REDIS_URL=server.url)
    assert (without.code, f"of experiment {name}: " in without.out) == (0, True), without
    assert without.err.startswith("warning: the answer was not written to Redis: ")
    server.start()


@pytest.mark.usefixtures("nothing_runs")
def test_a_rollout_is_advanced_by_a_person_to_its_promotion(
    here: Deployment, penstock: Penstock, champion: str, challenger: str
) -> None:
    assert penstock("rollouts", "advance").is_one_sentence(1)
    started = penstock("rollouts", "start", challenger, "--steps", "10,50", "--by-step")
    assert (started.code, started.out.startswith("done: ")) == (0, True), started
    assert "steps 10%, 50%, each taken by a person" in penstock("rollouts", "show").out
    off_step = penstock("experiments", "shares", challenger, "challenger=30")
    assert off_step.is_refusal("is no step of this rollout"), off_step
    assert penstock("rollouts", "advance", "--reason", "it looks good").code == 0
    assert newest(here)["experiment"]["variants"][1]["buckets"] == 5_000
    assert penstock("rollouts", "advance").code == 0
    promoted = newest(here)
    assert (promoted["champion"], promoted["previous"]) == (challenger, champion)
    shown = penstock("rollouts", "show", challenger)
    assert f"challenger {challenger} was promoted" in shown.out


@pytest.mark.usefixtures("nothing_runs")
def test_a_rollout_can_be_given_up_and_an_experiment_is_no_rollout(
    here: Deployment, penstock: Penstock, champion: str, challenger: str
) -> None:
    name = name_of(here, "given-up")
    assert penstock("rollouts", "start", challenger, "--id", name).code == 0
    assert penstock("rollouts", "stop", "--reason", "not today").code == 0
    assert newest(here)["champion"] == champion
    assert penstock("experiments", "start", f"{name}-2", "--variant", f"B={challenger}:20").code == 0
    for action in ("advance", "stop"):
        ended = penstock("rollouts", action)
        assert ended.is_refusal("is no rollout"), ended


@pytest.mark.usefixtures("nothing_runs")
def test_the_doctor_loads_the_variants_and_the_champion_before(
    here: Deployment, penstock: Penstock, champion: str, challenger: str
) -> None:
    name, other = name_of(here, "doctored"), str(registered(penstock, seed=2_002)["model_id"])
    assert penstock("models", "promote", other).code == 0
    assert start(penstock, name, f"B={challenger}:20").code == 0

    def found() -> dict[str, tuple[str, str]]:
        return {f["subject"]: (f["status"], f["sentence"]) for f in penstock("doctor", "--json").document}

    subjects = (f"variant B of {here.stream}", f"previous champion of {here.stream}")
    assert all(found()[subject] == ("ok", FITS) for subject in subjects)
    path = here.artifact(penstock("models", "show", challenger, "--json").document)
    kept = path.read_bytes()
    path.write_bytes(b"rot")
    try:
        status, sentence = found()[subjects[0]]
    finally:
        path.write_bytes(kept)
    assert status == "warning"
    assert sentence.startswith("the champion scores its events, which count as errors: ")


FITS = "it is verified, opens and fits beside the champion"


def start(penstock: Penstock, name: str, *variants: str, **options: str) -> Ended:
    named = [argument for variant in variants for argument in ("--variant", variant)]
    return penstock("experiments", "start", name, *named, *(f"--{k}={v}" for k, v in options.items()))


@pytest.mark.usefixtures("nothing_runs")
def test_what_makes_no_sense_is_refused_with_the_reason_audited_and_changes_nothing(
    here: Deployment, penstock: Penstock, champion: str, challenger: str
) -> None:
    name, other = name_of(here, "bad"), str(registered(penstock, seed=2_001)["model_id"])
    assert penstock("models", "archive", other).code == 0
    revision = newest(here)["revision"]

    def refused(ended: Ended, words: str, action: str = "start") -> None:
        assert ended.is_refusal(words), ended
        assert ended.err.startswith("penstock: refused: ")
        [decision] = penstock("audit", "--limit", "1", "--json").document
        assert (decision["outcome"], decision["action"], words in decision["reason"]) == ("refused", action, True)
        assert decision["issued_by"]

    deployed = asyncio.run(here.events("deployments"))
    refused(start(penstock, name, "B=nobody:20"), "'nobody' is")
    refused(start(penstock, name, f"B={challenger}:60", f"C={other}:60"), "more than 100 %")
    refused(start(penstock, name, f"B={challenger}:-5"), "is -5 %")
    refused(start(penstock, name, f"champion={challenger}:20"), "'champion'")
    refused(start(penstock, name, f"B={champion}:20"), "is the champion")
    refused(start(penstock, name, f"B={other}:20"), "archived")
    stale = start(penstock, name, f"B={challenger}:20", **{"expected-revision": str(revision - 1)})
    refused(stale, f"the routing is at revision {revision}")
    refused(penstock("experiments", "stop", name), "no experiment", "stop")
    assert asyncio.run(here.events("deployments")) == deployed

    assert start(penstock, name, f"B={challenger}:20").code == 0
    deployed = asyncio.run(here.events("deployments"))
    assert penstock("models", "move", other, "staging").code == 0
    refused(start(penstock, f"{name}-2", f"B={other}:20"), f"{name!r} runs")
    refused(penstock("models", "promote", other), f"{name!r} runs", "promote")
    refused(penstock("models", "archive", challenger), challenger, "move")
    refused(penstock("experiments", "shares", name, "B=101"), "is 101 %", "reshare")
    refused(penstock("experiments", "shares", name, "D=10"), "'B' is missing", "reshare")
    assert asyncio.run(here.events("deployments")) == deployed


def test_what_cannot_be_a_command_is_told_before_it_is_sent(
    here: Deployment, penstock: Penstock, champion: str
) -> None:
    audited = asyncio.run(here.events("audit"))
    assert start(penstock, "x", "B=m", "C=m:20").code == 2
    assert start(penstock, "x", "B=m:20", "B=n:20").code == 2
    assert start(penstock, "x" * 300, "B=m:20").is_refusal("no command that control could read")
    ended = penstock("experiments", "show", "nothing")
    assert ended.is_refusal("there was no experiment or rollout 'nothing'"), ended
    assert asyncio.run(here.events("audit")) == audited
