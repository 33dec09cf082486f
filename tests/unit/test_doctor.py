"""What the doctor says about one thing at a time, without a broker."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from app.doctor import attempt, examine
from app.findings import Finding, ok
from app.health import Pages
from app.local_checks import check_learners, check_port, check_settings, check_signing_key, check_store
from app.registry import LOCAL_KEY
from app.roles import ROLES, inputs_of
from app.settings import Settings
from schemas.errors import RetryableError, SettingsError
from schemas.streams import LearnerSpec, StreamSpec
from stores.artifacts import ArtifactStore, ArtifactUnavailable, load_or_create_key
from stream.metric_values import Metrics
from tests.command_line import free_port

CANARY = "canary-5d02"
FLIGHTS = StreamSpec(name="flights", features=("a",))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something listens that answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def statuses(findings: list[Finding]) -> list[str]:
    return [finding.status for finding in findings]


async def test_a_check_that_raises_is_a_problem_in_its_own_words() -> None:
    async def check() -> list[Finding]:
        raise SettingsError("this is wrong\nand that, too")

    assert await attempt("thing", check) == [
        Finding("thing", "problem", "this is wrong"),
        Finding("thing", "problem", "and that, too"),
    ]


async def test_a_check_with_a_defect_of_its_own_is_a_problem_and_no_traceback() -> None:
    async def check() -> list[Finding]:
        raise ZeroDivisionError("oops")

    assert await attempt("thing", check) == [
        Finding("thing", "problem", "could not be examined: ZeroDivisionError: oops")
    ]


async def test_a_check_that_takes_too_long_is_ended() -> None:
    async def check() -> list[Finding]:
        await asyncio.sleep(60)
        return [ok("thing", "never said")]

    [finding] = await attempt("thing", check, timeout_s=0.01)
    assert (finding.status, finding.sentence) == ("problem", "could not be examined within 0.01 s")


async def test_without_a_broker_the_rest_is_examined_and_what_needs_it_is_skipped() -> None:
    nowhere = Settings(kafka_bootstrap=f"127.0.0.1:{free_port()}", metrics_port=0, streams=(FLIGHTS,))
    found = {finding.subject: finding async for finding in examine(nowhere)}
    assert found["artifact store"].status == found["metrics port"].status == "ok"
    assert "nothing listens there" in found["broker"].sentence
    assert found["broker"].status == "problem"
    assert found["everything else"].status == "skipped"


async def test_a_broker_that_is_not_named_is_a_problem_with_the_way_out() -> None:
    found = {finding.subject: finding async for finding in examine(Settings(metrics_port=0, streams=(FLIGHTS,)))}
    assert found["broker"].status == "problem"
    assert "ML_KAFKA_BOOTSTRAP" in found["broker"].sentence


def test_settings_without_a_stream_are_a_problem_and_with_one_are_fine() -> None:
    assert statuses(check_settings(Settings())) == ["problem"]
    assert statuses(check_settings(Settings(streams=(FLIGHTS,)))) == ["ok"]


@pytest.mark.parametrize(
    ("risky", "words"),
    [
        (Settings(kafka_security_protocol="SASL_PLAINTEXT", streams=(FLIGHTS,)), "password goes over the network"),
        (Settings(metrics_host="0.0.0.0", streams=(FLIGHTS,)), "lets other machines read"),
        (Settings(metrics_host="workers.example", streams=(FLIGHTS,)), "lets other machines read"),
    ],
)
def test_what_is_valid_but_risky_is_a_warning(risky: Settings, words: str) -> None:
    _, finding = check_settings(risky)
    assert finding.status == "warning"
    assert words in finding.sentence


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_loopback_address_is_no_risk(host: str) -> None:
    assert statuses(check_settings(Settings(metrics_host=host, streams=(FLIGHTS,)))) == ["ok"]


def test_a_missing_signing_key_is_a_warning_and_is_not_made() -> None:
    assert statuses(check_signing_key(Settings())) == ["warning"]
    assert not LOCAL_KEY.exists()


def test_a_local_signing_key_is_fine_until_others_may_read_it() -> None:
    load_or_create_key(LOCAL_KEY)
    assert statuses(check_signing_key(Settings())) == ["ok"]
    LOCAL_KEY.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        check_signing_key(Settings())


def test_a_signing_key_of_the_settings_should_be_long_and_is_never_shown() -> None:
    [short] = check_signing_key(Settings(model_signing_key=CANARY))
    [long] = check_signing_key(Settings(model_signing_key=CANARY * 3))
    assert (short.status, long.status) == ("warning", "ok")
    assert CANARY not in f"{short}{long}"


def test_the_store_is_probed_and_nothing_stays_behind() -> None:
    settings = Settings(model_storage_dir="store")
    assert statuses(check_store(settings)) == ["ok"]
    assert [path for path in Path("store").rglob("*") if path.is_file()] == []


def test_a_probe_of_a_remote_store_leaves_nothing_behind() -> None:
    ArtifactStore("memory://probed").probe()
    assert MemoryFileSystem().find("/probed") == []


def test_a_store_that_is_a_file_is_said_so() -> None:
    Path("store").write_text("in the way")
    with pytest.raises(ArtifactUnavailable, match="check that it can be reached"):
        check_store(Settings(model_storage_dir="store"))


async def test_a_free_port_is_fine_and_stays_free() -> None:
    port = free_port()
    for _ in range(2):
        assert statuses(await check_port(Settings(metrics_port=port))) == ["ok"]
    assert statuses(await check_port(Settings(metrics_port=0))) == ["ok"]


async def test_a_port_that_a_stranger_has_is_a_warning(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.local_checks._HEALTH_TIMEOUT_S", 0.1)
    [finding] = await check_port(Settings(metrics_port=taken))
    assert finding.status == "warning"
    assert "no worker" in finding.sentence


@pytest.mark.parametrize(("ready", "status"), [(True, "ok"), (False, "warning")])
async def test_a_port_that_a_worker_has_tells_whether_it_is_ready(ready: bool, status: str) -> None:
    pages = Pages(Metrics(), lambda: None, lambda: {"ready": ready, "alive": True})
    address = await pages.start("127.0.0.1", 0)
    try:
        [finding] = await check_port(Settings(metrics_port=int(address.rpartition(":")[2])))
    finally:
        await pages.stop()
    assert (finding.status, "a worker listens" in finding.sentence) == (status, True)


async def test_an_address_that_is_not_of_this_machine_is_a_problem() -> None:
    [finding] = await check_port(replace(Settings(), metrics_host="192.0.2.1"))
    assert finding.status == "problem"
    assert "cannot be used" in finding.sentence


def test_every_group_of_a_role_is_known_with_all_that_it_reads() -> None:
    stream = learning(online=LearnerSpec(algorithm="river-logistic"))
    assert {group: topics for role in ROLES for group, topics in inputs_of(stream, role).items()} == {
        "score": ("flights.features",),
        "join": ("flights.predictions", "flights.labels"),
        "learn": ("flights.commands",),
        "evaluate": ("flights.samples",),
        "archive": ("flights.samples",),
        "learn-online": ("flights.samples",),
        "compare": ("flights.samples", "flights.variants"),
        "judge": ("flights.histograms",),
        "views": (
            "flights.drift",
            "flights.alerts",
            "flights.models",
            "flights.deployments",
            "flights.experiments",
        ),
        "notify": ("flights.alerts",),
    }


def learning(**learners: LearnerSpec) -> StreamSpec:
    return msgspec.structs.replace(FLIGHTS, learners=learners)


def test_learners_that_can_be_opened_are_fine() -> None:
    stream = learning(
        online=LearnerSpec(algorithm="river-logistic", strategy="incremental", parameters={"learning_rate": 0.1}),
        boosted=LearnerSpec(algorithm="xgboost-online"),
    )
    found = {finding.subject: finding for finding in check_learners(Settings(streams=(stream,)))}
    assert {subject: finding.status for subject, finding in found.items()} == {
        "learner online of flights": "ok",
        "learner boosted of flights": "ok",
    }
    assert "by the strategy incremental" in found["learner online of flights"].sentence
    assert "by the strategy adaptive" in found["learner boosted of flights"].sentence


def test_everything_that_is_wrong_with_the_learners_is_told_at_once() -> None:
    stream = learning(
        frozen=LearnerSpec(algorithm="xgboost"),
        missing=LearnerSpec(algorithm="river-logistik"),
        rates=LearnerSpec(algorithm="river-logistic", parameters={"rate": 1}),
        by_row=LearnerSpec(algorithm="xgboost-online", strategy="incremental"),
        small=LearnerSpec(algorithm="river-logistic", max_buffer=50, parameters={"learning_rate": -1}),
    )
    found = check_learners(Settings(streams=(stream,), online_strategy="mini_batch", online_batch_size=51))
    assert {finding.status for finding in found} == {"problem"}
    for finding, (lineage, words) in zip(
        found,
        [
            ("frozen", "cannot learn from a stream; these can: "),
            ("missing", "no algorithm is called 'river-logistik'"),
            ("rates", "has no parameter 'rate'"),
            ("by_row", "cannot learn by the strategy 'incremental'"),
            ("small", "batch_size 51 is more than max_buffer 50"),
            ("small", "river-logistic cannot take these parameters"),
        ],
        strict=True,
    ):
        assert (finding.subject, words in finding.sentence) == (f"learner {lineage} of flights", True), finding
        assert f"[streams.flights.learners.{lineage}]" in finding.remedy


def test_a_small_buffer_is_fine_where_no_batch_is_waited_for() -> None:
    stream = learning(online=LearnerSpec(algorithm="river-logistic", strategy="periodic", max_buffer=50))
    assert statuses(check_learners(Settings(streams=(stream,), online_batch_size=51))) == ["ok"]


async def test_a_broker_that_fails_in_between_is_a_problem() -> None:
    async def check() -> list[Finding]:
        raise RetryableError("Kafka went away")

    assert statuses(await attempt("thing", check)) == ["problem"]
