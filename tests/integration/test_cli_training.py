"""`penstock retrain`, `runs` and `models card`, on both brokers; the test itself plays the trainer."""

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.training_log import NotEnded, send_and_follow
from schemas.events import RetrainRequest
from schemas.runs import GateResult, TrainingEvent
from schemas.wire import decode, encode
from stores.documents import Documents, card_folder
from stream.connection import KafkaConnection
from tests.command_line import Penstock, registered
from tests.conftest import Broker

pytestmark = pytest.mark.usefixtures("no_settings")
SECOND = 1_000


@dataclass
class Place:
    """A stream with its topics, on which no worker runs."""

    stream: str
    bootstrap: str

    async def tell(self, events: Sequence[TrainingEvent]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            for event in events:
                await producer.send_and_wait(f"{self.stream}.training", encode(event), self.stream.encode(), 0)

    def event(self, run_id: str = "run-1", **changes: Any) -> TrainingEvent:
        told = TrainingEvent(
            stream=self.stream,
            run_id=run_id,
            request_ids=("a",),
            reasons=("drift",),
            attempt=1,
            phase="read",
            time_ms=10 * SECOND,
            started_time_ms=10 * SECOND,
        )
        return msgspec.structs.replace(told, **changes)


@dataclass
class Trainer:
    """Answers the first request with `answers`, which become events of its run, and keeps the request."""

    place: Place
    answers: list[dict[str, Any]]
    asked: list[RetrainRequest] = field(default_factory=list)

    def __enter__(self) -> "Trainer":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._answer()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _answer(self) -> None:
        source = TopicPartition(f"{self.place.stream}.retrain", 0)
        async with asyncio.timeout(15), AIOKafkaConsumer(bootstrap_servers=self.place.bootstrap) as consumer:
            consumer.assign([source])
            await consumer.seek_to_beginning(source)
            request = decode(RetrainRequest, (await consumer.getone()).value)
        self.asked.append(request)
        events = [
            self.place.event(**{"request_ids": ("earlier", request.id), "reasons": ("drift", "manual")} | answer)
            for answer in self.answers
        ]
        await self.place.tell(events)


@pytest.fixture
def place(broker: Broker, unique: str, penstock: Penstock, monkeypatch: pytest.MonkeyPatch) -> Place:
    Path("penstock.toml").write_text(f'[streams.{unique}]\nfeatures = ["a", "b"]\n[streams.{unique}.training]\n')
    monkeypatch.setenv("ML_KAFKA_BOOTSTRAP", broker.bootstrap)
    monkeypatch.setenv("ML_MODEL_STORAGE_DIR", "store")
    monkeypatch.setenv("ML_MODEL_SIGNING_KEY", "a key")
    assert penstock("topics", "apply").code == 0
    return Place(unique, broker.bootstrap)


def test_a_request_that_is_not_waited_for_is_in_its_topic(place: Place, penstock: Penstock) -> None:
    with Trainer(place, []) as trainer:
        said = penstock("retrain", "--reason", "a new season", "--json")
    [request] = trainer.asked
    assert said.document == msgspec.to_builtins(request)
    assert (request.reason, request.evidence) == ("manual", {"asked_because": "a new season"})
    assert request.requested_by
    assert "penstock runs list" in penstock("retrain").out


def test_the_run_is_shown_in_plain_lines_and_the_outcome_alone_is_on_standard_output(
    place: Place, penstock: Penstock
) -> None:
    gate = GateResult(gate="min_auc", passed=True, message="ROC AUC 0.8 is at least 0.7")
    answers = [
        {"run_id": "run-0", "request_ids": ("x",), "phase": "ended", "outcome": "failed"},  # somebody else's
        {"phase": "read", "message": "1,000 samples"},
        *({"phase": "fit", "share": share} for share in (0.1, 0.2, 0.3)),
        {
            "phase": "ended",
            "outcome": "accepted",
            "model_id": "m2",
            "champion": "m1",
            "gates": (gate,),
            "samples": 1_000,
            "follow_up": "promote it",
        },
    ]
    with Trainer(place, answers):
        ended = penstock("retrain", "--wait", "--timeout", "15")
    assert ended.code == 0
    assert ended.out.splitlines()[0] == "accepted model m2"
    assert "  passed  min_auc: ROC AUC 0.8 is at least 0.7" in ended.out
    assert "promote it" in ended.out
    told = [line.split("attempt 1  ")[1] for line in ended.err.splitlines() if "run-1" in line]
    assert told == ["read  1,000 samples", "fit 10%", "fit 30%", "accepted"]


@pytest.mark.parametrize(("outcome", "code"), [("rejected", 3), ("failed", 1), ("skipped", 4)])
def test_the_exit_code_tells_the_outcome(place: Place, penstock: Penstock, outcome: str, code: int) -> None:
    with Trainer(place, [{"phase": "ended", "outcome": outcome, "message": "one class only"}]):
        ended = penstock("retrain", "--wait", "--json", "--timeout", "15")
    assert (ended.code, ended.document["outcome"]) == (code, outcome)
    assert ended.document["message"] == "one class only"


def test_without_a_trainer_the_wait_ends_in_a_sentence(place: Place, penstock: Penstock) -> None:
    ended = penstock("retrain", "--wait", "--timeout", "0.3")
    assert (ended.code, ended.out) == (5, "")
    assert "training did not end within 0.3 s" in ended.err
    ended = penstock("retrain", "--wait", "--timeout", "0.3", "--json")
    assert (ended.code, ended.document["outcome"]) == (5, "not_ended")


async def test_when_nothing_is_told_that_is_said_once(place: Place) -> None:
    connection, said = KafkaConnection(bootstrap=place.bootstrap), []
    request = RetrainRequest(id="r", stream=place.stream, reason="manual", evidence={}, requested_time_ms=0)
    with pytest.raises(NotEnded, match=r"within 0\.5 s"):
        await send_and_follow(
            connection, request, pytest.fail, lambda: said.append("silent"), timeout_s=0.5, silence_s=0.1
        )
    assert said == ["silent"]


def test_runs_are_listed_by_their_newest_event_and_shown_with_their_phases(place: Place, penstock: Penstock) -> None:
    assert penstock("runs", "list").out == "There was no run yet.\n"
    gate = GateResult(gate="gain", passed=False, message="0.1% better is less than 2%")
    events = [
        place.event(phase="read", message="reads"),
        place.event(phase="fit", share=0.5, time_ms=20 * SECOND),
        place.event(phase="read", attempt=2, time_ms=30 * SECOND),
        place.event("run-2", phase="ended", outcome="failed", message="one class only", time_ms=31 * SECOND),
        place.event(
            phase="ended",
            attempt=2,
            outcome="rejected",
            model_id="m2",
            gates=(gate,),
            metrics={"roc_auc": 0.7},
            time_ms=95 * SECOND,
        ),
        place.event("run-3", phase="fit", share=0.404, time_ms=96 * SECOND),
    ]
    asyncio.run(place.tell(events))
    header, *rows = [line.split() for line in penstock("runs", "list").out.splitlines()]
    assert header == ["run", "began", "took", "attempt", "asked", "for", "by", "outcome", "model"]
    assert [(row[0], *row[3:]) for row in rows] == [
        ("run-2", "21", "s", "1", "drift", "failed", "-"),
        ("run-1", "1", "min", "2", "drift", "rejected", "m2"),
        ("run-3", "1", "min", "1", "drift", "fit", "40%", "-"),
    ]
    assert [row["run_id"] for row in penstock("runs", "list", "--limit", "2", "--json").document] == ["run-1", "run-3"]

    document = penstock("runs", "show", "run-1", "--json").document
    phases = [(phase["attempt"], phase["phase"], phase["from_time_ms"]) for phase in document["phases"]]
    assert phases == [
        (1, "read", 10 * SECOND),
        (1, "fit", 20 * SECOND),
        (2, "read", 30 * SECOND),
        (2, "ended", 95 * SECOND),
    ]
    shown = penstock("runs", "show", "run-1").out
    assert "  FAILED  gain: 0.1% better is less than 2%" in shown
    assert "roc_auc                  0.7" in shown
    assert penstock("runs", "show", "run-9").is_refusal("has no run 'run-9'")


def test_a_card_is_shown_and_written_with_its_plots(place: Place, penstock: Penstock) -> None:
    model_id = registered(penstock, seed=1)["model_id"]
    assert penstock("models", "card", model_id).is_refusal("has no card in the model store: no training run made it")
    files = {"card.md": b"# A model\n\nGood.\n", "roc.svg": b"<svg/>", "report.json": b"{}"}
    Documents("store").put(card_folder(model_id), files)
    assert penstock("models", "card", model_id).out == "# A model\n\nGood.\n"
    said = penstock("models", "card", model_id, "--to", "here/card")
    assert "here/card/card.md, and 2 files beside it" in said.out
    assert {path.name: path.read_bytes() for path in Path("here/card").iterdir()} == files
    document = json.loads(penstock("models", "card", model_id, "--json").out)
    assert (document["files"], document["card"]) == (sorted(files), "# A model\n\nGood.\n")
    Path("file").write_text("")
    assert penstock("models", "card", model_id, "--to", "file/x").is_refusal("the card cannot be written to file/x")


def test_a_stream_that_is_not_trained_is_told_how_it_would_be(place: Place, penstock: Penstock) -> None:
    Path("penstock.toml").write_text(f'[streams.{place.stream}]\nfeatures = ["a", "b"]\n')
    assert penstock("retrain").is_refusal(f"write a table [streams.{place.stream}.training]")
    ended = penstock("retrain", "--timeout", "3")
    assert (ended.code, "--timeout needs --wait" in ended.err) == (2, True)
