"""The command line, as a person uses it, on both brokers, with a worker that runs."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import numpy as np
import pytest
import xgboost
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.cli.main import main
from app.embedded import EmbeddedBroker
from schemas.events import ModelVersion
from schemas.wire import encode
from stream.partitioner import partitions_of

PROGRAM = Path(sys.executable).with_name("penstock")
STREAM = '[streams.flights]\nfeatures = ["a"]\n'
CANARY = "canary-2f9d-do-not-show-this-one"
KAFKA_COMMANDS = [
    ["worker"],
    ["topics", "check"],
    ["topics", "apply"],
    ["models", "list"],
    ["models", "show", "m"],
    ["models", "promote", "m"],
    ["dead-letters", "list"],
    ["dead-letters", "replay"],
]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def is_one_sentence(self, code: int) -> bool:
        """Whether the command was refused with this exit code, in one line of error and nothing else."""
        return (self.code, self.out, self.err.count("\n"), self.err[:10]) == (code, "", 1, "penstock: ")


Penstock = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor the folder of whoever runs the tests has a say."""
    for name in [name for name in os.environ if name.startswith("ML_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def penstock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Penstock:
    """Run a command in this process."""

    def run(*arguments: str, **environ: str) -> Ended:
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["penstock", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def real_command(*arguments: str, **environ: str) -> Ended:
    """Run the installed command in a process of its own."""
    done = subprocess.run(
        [PROGRAM, *arguments], env=without_settings() | environ, capture_output=True, text=True, timeout=60
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def without_settings() -> dict[str, str]:
    """The environment of these tests, without the settings of whoever runs them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ML_")}


@pytest.mark.parametrize(
    ("toml", "environ", "words"),
    [
        (STREAM, {"ML_KAFKA_BOOTSTRP": "a:1"}, "did you mean ML_KAFKA_BOOTSTRAP?"),
        (f"kafka_bootstrp = 'a:1'\n{STREAM}", {}, "did you mean kafka_bootstrap?"),
        (STREAM, {"ML_METRICS_PORT": "many"}, 'is "many", but must be a whole number from 0 to 65535'),
        (f"{STREAM}partitions = 'x'\n", {}, "must be a whole number"),
        ("no toml", {}, "is not valid TOML"),
        (STREAM, {}, "no Kafka is named"),
        (STREAM, {"ML_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, "nothing listens there"),
    ],
)
def test_what_is_wrong_at_start_is_one_sentence_and_exit_code_2(
    toml: str, environ: Mapping[str, str], words: str
) -> None:
    Path("penstock.toml").write_text(toml)
    ended = real_command("worker", **environ)
    assert ended.is_one_sentence(2), ended
    assert words in ended.err


def test_a_worker_without_a_stream_or_with_a_taken_port_ends_with_one_sentence(embedded: EmbeddedBroker) -> None:
    ended = real_command("worker", ML_KAFKA_BOOTSTRAP=embedded.bootstrap)
    assert ended.is_one_sentence(2), ended
    assert "no stream is declared" in ended.err
    Path("penstock.toml").write_text(STREAM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        ended = real_command("worker", ML_KAFKA_BOOTSTRAP=embedded.bootstrap, ML_METRICS_PORT=port)
    assert ended.is_one_sentence(2), ended
    assert f"metrics_port {port} on 127.0.0.1 cannot be used" in ended.err


@pytest.mark.parametrize("arguments", KAFKA_COMMANDS, ids=" ".join)
def test_every_command_says_in_one_sentence_that_kafka_is_not_there(penstock: Penstock, arguments: list[str]) -> None:
    Path("penstock.toml").write_text(STREAM)
    ended = penstock(*arguments, ML_KAFKA_BOOTSTRAP=f"127.0.0.1:{free_port()}")
    assert ended.is_one_sentence(2), ended
    assert "nothing listens there" in ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nonsense"], "No such command"), (["dead-letters", "replay", "--offset", "x"], "such as 3:1204")],
)
def test_a_command_that_does_not_exist_is_answered_with_usage(
    penstock: Penstock, arguments: list[str], words: str
) -> None:
    ended = penstock(*arguments)
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_the_version_and_the_help_are_no_errors(penstock: Penstock) -> None:
    assert penstock("--version").out.startswith("penstock, version ")
    assert penstock("dead-letters", "--help").code == 0


def test_a_stream_is_proposed_on_the_screen_or_in_a_file_that_is_never_overwritten(penstock: Penstock) -> None:
    Path("cards.csv").write_text("amount,hour,is_fraud\n1.5,1,0\n2.5,2,1\n3.5,3,0\n")
    printed = penstock("stream", "init", "--csv", "cards.csv")
    assert "[streams.cards]" in printed.out
    assert penstock("stream", "init", "--csv", "cards.csv", "--output", "penstock.toml").code == 0
    assert Path("penstock.toml").read_text() == printed.out
    again = penstock("stream", "init", "--csv", "cards.csv", "--name", "other", "--output", "penstock.toml")
    assert again.is_one_sentence(1), again
    assert Path("penstock.toml").read_text() == printed.out
    assert penstock("stream", "init", "--csv", "cards.csv", "--json").document == {"toml": printed.out}


def test_the_doctor_names_wrong_settings_and_ends_with_2(penstock: Penstock) -> None:
    ended = penstock("doctor", "--json", ML_KAFKA_SASL_PASSWORD=CANARY, ML_X="1")
    assert ended.code == 2
    assert {finding["status"] for finding in ended.document} == {"problem"}
    assert CANARY not in ended.out


@dataclass
class Deployment:
    """A folder with a stream, its topics and a worker that runs."""

    kind: str
    stream: str
    folder: Path
    environ: dict[str, str]
    worker: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def health(self) -> Any:
        try:
            with urlopen(f"http://127.0.0.1:{self.environ['ML_METRICS_PORT']}/health", timeout=5) as answer:
                return json.load(answer)
        except URLError as error:  # 503 until it is ready
            return {"ready": False, "why": str(error)}

    async def events(self, kind: str) -> list[Any]:
        """Every committed record of one of the stream's topics, as documents."""
        places = [TopicPartition(f"{self.stream}.{kind}", partition) for partition in range(4)]
        options = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "fetch_max_wait_ms": 20}
        async with AIOKafkaConsumer(bootstrap_servers=self.environ["ML_KAFKA_BOOTSTRAP"], **options) as consumer:
            topics = await consumer.topics()
            if places[0].topic not in topics:
                return []
            places = places[:1] if self.kind == "kafka" and kind in ("audit", "deployments") else places
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            found = []
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += [json.loads(record.value) for record in records]
        return found

    async def send(self, topic: str, key: bytes | None, value: bytes, partition: int) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.environ["ML_KAFKA_BOOTSTRAP"]) as producer:
            await producer.send_and_wait(f"{self.stream}.{topic}", value, key, partition)

    def artifact(self, version: Mapping[str, Any]) -> Path:
        sha256: str = version["sha256"]
        return self.folder / "store" / sha256[:2] / sha256


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def deployment(
    request: pytest.FixtureRequest, run_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """One deployment for all tests on a broker: starting a worker takes longer than most of them."""
    folder = tmp_path_factory.mktemp(request.param)
    stream = f"cli-{run_name}"
    (folder / "penstock.toml").write_text(f'[streams.{stream}]\nfeatures = ["a", "b"]\n')
    with EmbeddedBroker() as embedded:
        bootstrap = embedded.bootstrap if request.param == "embedded" else request.getfixturevalue("kafka").bootstrap
        environ = {
            "ML_CONFIG": str(folder / "penstock.toml"),
            "ML_KAFKA_BOOTSTRAP": bootstrap,
            "ML_KAFKA_GROUP_PREFIX": stream,
            "ML_METRICS_PORT": str(free_port()),
            "ML_MODEL_STORAGE_DIR": str(folder / "store"),
            "ML_MODEL_SIGNING_KEY": CANARY,
            "ML_LOG_LEVEL": "DEBUG",
        }
        assert real_command("topics", "apply", **environ).code == 0
        with (folder / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [PROGRAM, "worker"], env=without_settings() | environ, cwd=folder, stderr=log, stdout=log
            )
        try:
            yield Deployment(request.param, stream, folder, environ, worker)
        finally:
            worker.kill()
            worker.wait()


@pytest.fixture
def here(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """The deployment, for commands of this process."""
    monkeypatch.chdir(deployment.folder)
    for name, value in deployment.environ.items():
        monkeypatch.setenv(name, value)
    return deployment


def eventually(look: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Return what `look` sees as soon as it sees something."""
    give_up = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)
    return seen


def registered(penstock: Penstock, seed: int) -> Any:
    """Train a model that no other test has and register it; return what was recorded."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(60, 2)).astype(np.float32)
    rows = xgboost.DMatrix(matrix, label=(matrix[:, 0] > 0).astype(int))
    xgboost.train({"objective": "binary:logistic", "max_depth": 2}, rows, 2).save_model("model.ubj")
    ended = penstock("models", "register", "--file", "model.ubj", "--json")
    assert ended.code == 0, ended
    return ended.document


@pytest.fixture
def champion(here: Deployment, penstock: Penstock) -> str:
    """The id of the model that serves."""
    if not here.health().get("streams", {}).get(here.stream, {}).get("champion"):
        model_id = registered(penstock, seed=0)["model_id"]
        assert penstock("models", "promote", model_id).code == 0
    return str(eventually(lambda: here.health()["ready"] and here.health()["streams"][here.stream]["champion"]))


def test_a_model_is_registered_listed_shown_and_promoted_and_then_serves(here: Deployment, penstock: Penstock) -> None:
    version = registered(penstock, seed=1)
    model_id = version["model_id"]
    assert version["registered_by"]
    assert here.artifact(version).read_bytes() == Path("model.ubj").read_bytes()
    assert f"  {model_id} " in penstock("models", "list").out
    assert penstock("models", "show", model_id, "--json").document == {"champion": False} | version
    promoted = penstock("models", "promote", model_id)
    assert (promoted.code, promoted.out.startswith("done: ")) == (0, True), promoted
    eventually(lambda: f"* {model_id} " in penstock("models", "list").out)
    eventually(lambda: here.health()["ready"] and here.health()["streams"][here.stream]["champion"] == model_id)


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
    for arguments in (["show", "nobody"], ["promote", "nobody"]):
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
        assert sentence_on(well, f"score of {here.stream}").startswith("1 worker(s)")
    path = here.artifact(penstock("models", "show", champion, "--json").document)
    kept = path.read_bytes()
    path.write_bytes(b"rot")
    broken = penstock("doctor")
    path.write_bytes(kept)
    assert broken.code == 1
    assert f"problem  champion of {here.stream}: cannot serve: " in broken.out
    assert "was changed since it was stored" in broken.out
    assert "Traceback" not in broken.out + broken.err


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
