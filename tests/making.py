"""What the tests of training runs share: a stream, its samples as Arrow tables, a history in memory, and a listener."""

from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from agents.archive.rows import table_of
from agents.train.job import Failed, Job, Made, Progress, Resources, Said
from agents.train.run import run_job
from schemas.events import Sample
from schemas.streams import DriftSpec, EvaluationSpec, JoinSpec, StreamSpec
from schemas.training import GatesSpec, TrainingSpec
from schemas.wire import encode
from stores.artifacts import Signer
from stream.connection import KafkaConnection
from tests.support import Entry, sample_of

DAY_MS = 24 * 60 * 60_000
MINUTE_MS = 60_000
FEATURES = ("a", "b", "c")
SIGNER = Signer(b"key")
END_MS = 1_700_000_100_000


def training_of(**changes: Any) -> TrainingSpec:
    """Return how the stream is trained: small trees, and a gate that asks for any gain."""
    fields: dict[str, Any] = {
        "min_samples": 100,
        "gates": GatesSpec(min_gain=0.0),
        "parameters": {"max_depth": 3, "learning_rate": 0.3},
    }
    return TrainingSpec(**(fields | changes))


def stream_of(name: str = "flights", **changes: Any) -> StreamSpec:
    """Return a stream of three features, whose labels have come an hour and a half after the event."""
    fields: dict[str, Any] = {
        "name": name,
        "features": FEATURES,
        "partitions": 4,
        "join": JoinSpec(window_minutes=60, lateness_minutes=30),
        "evaluation": EvaluationSpec(maturity_minutes=60),
        "drift": DriftSpec(threshold=0.01),
        "training": training_of(),
    }
    return StreamSpec(**(fields | changes))


def samples_of(count: int, seed: int = 0, *, noise: float = 1.0, **changes: Any) -> list[Sample]:
    """Return samples a minute apart, of 40 entities; the label follows from a and b, and c says nothing."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, len(FEATURES))).round(4)
    labels = values[:, 0] - values[:, 1] + noise * random.normal(size=count) > 0
    return [
        sample_of(
            number,
            entity_id=f"N{number % 40}",
            event_time_ms=DAY_MS + number * MINUTE_MS,
            label_time_ms=DAY_MS + (number + 30) * MINUTE_MS,
            features=tuple(row),
            label=int(label),
            **changes,
        )
        for number, (row, label) in enumerate(zip(values.tolist(), labels.tolist(), strict=True))
    ]


def rows_of(spec: StreamSpec, samples: Sequence[Sample]) -> pa.Table:
    """Return the samples as the archive has them, one at each offset."""
    return table_of(
        spec,
        [Entry(offset, encode(sample), b"s", sample.label_time_ms) for offset, sample in enumerate(samples)],
    )


def job_of(spec: StreamSpec, root: Path, **changes: Any) -> Job:
    """Return a job whose store and studies are below `root`, without a champion. `changes` are of it or its resources.

    Nothing answers where Kafka should be.
    """
    resources: dict[str, Any] = {
        "connection": KafkaConnection(bootstrap="127.0.0.1:1", request_timeout_ms=1_000),
        "read_committed": True,
        "model_storage_dir": str(root / "store"),
        "signer": SIGNER,
        "training_dir": str(root / "training"),
        "threads": 1,
        "sql_url": "",
        "optuna_storage": "",
        "mlflow_uri": "",
        "mlflow_experiment": "penstock",
    }
    resources |= {name: changes.pop(name) for name in resources if name in changes}
    fields: dict[str, Any] = {
        "spec": spec,
        "run_id": f"{spec.name}-run-1",
        "reasons": ("manual",),
        "requested_by": "tests",
        "asked_because": "",
        "attempt": 1,
        "now_ms": 1_700_000_000_000,
        "stop_offset": 2**50,
        "champion": None,
        "kept": None,
        "resources": Resources(**resources),
    }
    return Job(**(fields | changes))


class Heard:
    """Listens to a run."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    def __call__(self, said: Said) -> None:
        self.said.append(said)

    @property
    def phases(self) -> list[str]:
        """The phases, each once, in their order."""
        return list(dict.fromkeys(said.phase for said in self.said if isinstance(said, Progress)))

    @property
    def made(self) -> Made:
        """What was made; the run must have made something."""
        assert isinstance(self.said[-1], Made), self.said[-1]
        return self.said[-1]

    @property
    def failed(self) -> Failed:
        """How the run failed; it must have failed."""
        assert isinstance(self.said[-1], Failed), self.said[-1]
        return self.said[-1]


class History:
    """A SampleHistory of one table, which gives pieces of so many rows, and of which some are missing."""

    def __init__(self, rows: pa.Table, piece: int = 1_000, missing: int = 0) -> None:
        self.rows = rows
        self.piece = piece
        self.lost = missing

    async def missing(self, *, stop_offset: int, from_ms: int) -> int:
        return self.lost

    async def pieces(self, *, stop_offset: int, columns: Sequence[str]) -> AsyncGenerator[pa.Table, None]:
        rows = await self.read(stop_offset=stop_offset, columns=columns)
        for start in range(0, rows.num_rows, self.piece):
            yield rows.slice(start, self.piece)

    async def end(self) -> int:
        return int(pc.max(self.rows["offset"]).as_py() or 0) + 1

    async def read(
        self,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        stop_offset: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        times = self.rows["event_time"].to_numpy().astype("datetime64[ms]").astype(np.int64)
        keep: NDArray[np.bool_] = np.ones(len(times), dtype=np.bool_)
        if from_ms is not None:
            keep &= times >= from_ms
        if to_ms is not None:
            keep &= times < to_ms
        if stop_offset is not None:
            keep &= self.rows["offset"].to_numpy() < stop_offset
        rows = self.rows.filter(pa.array(keep))
        return rows if columns is None else rows.select(list(columns))


Run = Callable[..., Heard]
"""Runs a job of a stream on samples and returns what it said."""


def runner(root: Path, patching: pytest.MonkeyPatch) -> Run:
    """Return what runs a job in this process, with a store in `root`. Cards have plots only where they are wanted."""

    def run(
        spec: StreamSpec | None = None, samples: Sequence[Sample] | None = None, *, plots: bool = False, **changes: Any
    ) -> Heard:
        spec = spec or stream_of()
        history = History(rows_of(spec, samples_of(1200) if samples is None else samples))
        heard = Heard()
        with patching.context() as patch:
            patch.setattr("agents.train.run.SampleHistory", lambda *_: history)
            if not plots:
                patch.setattr("agents.train.card.plots_of", lambda _: {})
            run_job(job_of(spec, root, **changes), heard, lambda: END_MS)
        return heard

    return run
