"""What the train stage gives to the process of a run, and what it hears of it. All of this can be pickled."""

from dataclasses import dataclass

from schemas.events import ModelVersion
from schemas.runs import GateResult, Phase
from schemas.streams import StreamSpec
from stores.artifacts import Signer
from stream.connection import KafkaConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Unfinished work of a run in the artifact store, to go on from. Older work, `before`, may still be there."""

    sha256: str
    size_bytes: int
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a run may use; of the settings of the same names. Secrets are left out of `repr` where they are made."""

    connection: KafkaConnection
    read_committed: bool
    model_storage_dir: str
    signer: Signer
    training_dir: str
    threads: int
    sql_url: str
    optuna_storage: str
    mlflow_uri: str
    mlflow_experiment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: it reads the samples before `stop_offset` of `<s>.samples`, so every attempt reads the same.

    `spec` leaves nothing of `drift` to the settings. `champion` is what the candidate is compared with, None before the
    first. `now_ms` is when the run began: what it makes is dated so, and has the same id in every attempt that comes to
    the same bytes.
    """

    spec: StreamSpec
    run_id: str
    reasons: tuple[str, ...]
    requested_by: str
    asked_because: str
    attempt: int
    now_ms: int
    stop_offset: int
    champion: ModelVersion | None
    kept: Kept | None
    resources: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the run is at."""

    phase: Phase
    message: str = ""
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The run made a candidate: model, baseline and card are in the artifact store.

    `version` lacks its number, and is signed. `passed` when every gate was. Times of events are [from, to).
    """

    version: ModelVersion
    passed: bool
    gates: tuple[GateResult, ...]
    samples: int
    from_time_ms: int
    to_time_ms: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The run made none; `message` is a sentence. It is tried again if `again`: the fault was not in the data."""

    message: str
    again: bool
    samples: int = 0
    from_time_ms: int = 0
    to_time_ms: int = 0


Said = Progress | Kept | Made | Failed
"""What a run's process sends, in this order: any number of Progress and Kept, then one Made or Failed."""
