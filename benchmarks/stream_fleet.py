"""Deployments of many streams: their topics, a model registered for each, promoted by a control that runs meanwhile."""

import asyncio
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents.baselines import baseline_of_rows
from agents.registering import describe_model
from app.baselines import with_baseline
from app.clock import now_ms
from app.commands import ask_control
from app.models import register
from app.registry import artifact_store, signer
from app.settings import Settings, load_settings
from benchmarks import synthetic
from benchmarks.plain import Kafka
from benchmarks.spread_events import DRAWN
from benchmarks.workers import Penstock
from ml.models.protocol import Matrix
from ml.models.registry import model_type
from schemas.events import Command
from schemas.streams import StreamSpec
from topics.specs import StreamTopics

_AT_ONCE: Final = 25  # streams that are added together: topics, and one control for them
_TOGETHER: Final = 8  # requests at a time
_KEY: Final = "a key for benchmarks"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model file to be made champion; with `baseline_rows` (n, features), float32, it is counted against them."""

    payload: bytes
    algorithm: str = "xgboost"
    baseline_rows: Matrix | None = None


def penstock_of(folder: Path, bootstrap: str) -> Penstock:
    """Return a deployment without a stream whose models `deploy` can sign."""
    return Penstock(folder, bootstrap, "", model_signing_key=_KEY, page_port=0)


def declare(penstock: Penstock, streams: Mapping[str, Sequence[str]], partitions: int) -> None:
    """Declare just these streams, by their names and features, from now on."""
    tables = [
        f"[streams.{name}]\nfeatures = {json.dumps(list(features))}\npartitions = {partitions}\n"
        for name, features in streams.items()
    ]
    (penstock.folder / "penstock.toml").write_text("\n".join(tables), encoding="utf-8")


def deploy(penstock: Penstock, candidates: Mapping[str, Candidate]) -> None:
    """Make the topics of the declared streams, and each stream's candidate its champion: about 0.5 s for each."""
    penstock.run("topics", "apply")
    control = penstock.worker("control", "learn")
    try:
        control.wait_until_ready()
        asyncio.run(_promote_all(penstock, candidates))
    finally:
        control.end()


async def _promote_all(penstock: Penstock, candidates: Mapping[str, Candidate]) -> None:
    environ = {
        "ML_KAFKA_BOOTSTRAP": penstock.bootstrap,
        "ML_MODEL_STORAGE_DIR": str(penstock.folder / "artifacts"),
        "ML_MODEL_SIGNING_KEY": _KEY,
    }
    settings = load_settings(environ, penstock.folder / "penstock.toml")
    gate = asyncio.Semaphore(_TOGETHER)
    async with asyncio.TaskGroup() as group:
        for spec in settings.streams:
            group.create_task(_promote(settings, spec, candidates[spec.name], gate))


async def _promote(settings: Settings, spec: StreamSpec, candidate: Candidate, gate: asyncio.Semaphore) -> None:
    async with gate:
        connection, store = settings.kafka_connection(), artifact_store(settings)
        version = describe_model(spec, candidate.payload, candidate.algorithm, "benchmarks", now_ms())
        if candidate.baseline_rows is not None:
            model = model_type(candidate.algorithm).load(candidate.payload)
            version = with_baseline(version, store, baseline_of_rows(spec, model, candidate.baseline_rows))
        made = await register(connection, spec, store, signer(settings), version, candidate.payload)
        command = Command(
            stream=spec.name,
            action="promote",
            model_id=made.model_id,
            issued_by="benchmarks",
            issued_time_ms=now_ms(),
            correlation_id=secrets.token_hex(16),
        )
        if (answer := await ask_control(connection, spec, command)).outcome != "done":
            raise RuntimeError(f"the model of {spec.name} was not promoted: {answer.reason}")


class Fleet:
    """Streams alike, `s000`, `s001`, … that share one model file: `grow` adds to them."""

    def __init__(self, penstock: Penstock, partitions: int, seed: int) -> None:
        self.penstock = penstock
        self.streams: list[str] = []
        self._partitions = partitions
        values, booster = synthetic.draw(DRAWN, seed), synthetic.train(seed)
        rows = values.astype("float32")
        self._candidate = Candidate(bytes(booster.save_raw("ubj")), baseline_rows=rows)
        self._scores = list(synthetic.expected_scores(booster, values).values())

    def grow(self, count: int) -> float:
        """Declare the first `count` streams, each with a champion. Returns the seconds that this took."""
        began = time.monotonic()
        while len(self.streams) < count:
            start = len(self.streams)
            added = [f"s{number:03d}" for number in range(start, min(count, start + _AT_ONCE))]
            self._declare(added)
            deploy(self.penstock, dict.fromkeys(added, self._candidate))
            self.streams += added
            print(f"{len(self.streams)} streams have a champion", flush=True)
        self._declare(self.streams[:count])
        return time.monotonic() - began

    def expected(self, first: int, count: int) -> dict[str, float]:
        """Return the score of each event that `spread_events` sends, by its id."""
        return {synthetic.event_id(number): self._scores[number % DRAWN] for number in range(first, first + count)}

    def dead_letters(self) -> list[str]:
        """Return a sentence for each stream of which an event became a dead letter."""
        cluster = Kafka(self.penstock.bootstrap)
        refused = [stream for stream in self.streams if cluster.ends(StreamTopics(stream).features_dead)]
        return [f"{stream} has dead letters" for stream in refused]

    def _declare(self, streams: Iterable[str]) -> None:
        declare(self.penstock, dict.fromkeys(streams, synthetic.FEATURES), self._partitions)
