"""MLflow: what a training run came to, for people who look there. Needs the extra `mlflow`.

MLflow's client goes on trying for minutes, takes its settings from the environment and reports home. So it runs in a
process of its own, which is told not to, and is killed when the caller will not wait any longer.
"""

import glob
import logging
import math
import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from schemas.errors import PenstockError

if TYPE_CHECKING:
    from mlflow import MlflowClient

TIMEOUT_S: Final = 120.0
RUN_ID_TAG: Final = "penstock.run_id"
_PARAMETERS_AT_ONCE: Final = 100  # as many as the server takes
_SHOWN_CHARACTERS: Final = 300
_CLIENT: Final = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


class TrackingFailed(PenstockError):
    """MLflow has not, or not all of, what a run came to; the message says why and has no password in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """What MLflow is to know of one run, which `run_id` names for ever.

    `artifacts` are files by their relative paths. Times are milliseconds since the epoch. Metrics that are not finite
    are left out.
    """

    run_id: str
    name: str
    parameters: Mapping[str, str | int | float | bool | None]
    metrics: Mapping[str, float]
    artifacts: Mapping[str, bytes]
    tags: Mapping[str, str] = field(default_factory=dict)
    start_ms: int
    end_ms: int


def track(uri: str, experiment: str, run: TrackedRun, timeout_s: float = TIMEOUT_S) -> str:
    """Write the run to the MLflow at `uri`, and return the address of its page, or `runs:/<id>` if that has no pages.

    A run that is there already, by its tag `penstock.run_id`, is completed, so the same call twice makes one run.
    Blocks for at most `timeout_s`, of which 2 s are spent on loading MLflow. Raises TrackingFailed.
    """
    try:
        address = _without_login(uri)
    except ValueError:  # not shown: it may quote a piece of the password
        raise TrackingFailed("mlflow_uri is no address: write http://host:port") from None
    if find_spec("mlflow") is None:
        raise TrackingFailed("the run is not in MLflow, because its client is missing: pip install 'penstock[mlflow]'")
    try:
        with tempfile.TemporaryDirectory(prefix=_prefix(run.run_id)) as folder:
            _write(Path(folder), run.artifacts)
            said = _ask(uri, experiment, run, folder, timeout_s)
    except OSError as error:
        raise TrackingFailed(f"the run could not be prepared for MLflow: {error}") from error
    if said is None:
        raise TrackingFailed(f"MLflow at {address} did not take the run within {timeout_s:g} s; check that it runs")
    if isinstance(said, _Refused):
        raise TrackingFailed(f"MLflow at {address} failed: {_scrubbed(said.words, uri)}")
    if urlsplit(uri).scheme in ("http", "https"):
        return f"{address.rstrip('/')}/#/experiments/{said.experiment_id}/runs/{said.id}"
    return f"runs:/{said.id}"


def forget(run_id: str) -> None:
    """Remove the files of a run that was killed while it told MLflow of itself, if there are any. Raises OSError."""
    for folder in Path(tempfile.gettempdir()).glob(f"{glob.escape(_prefix(run_id))}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(run_id: str) -> str:
    return f"penstock-tracking-{run_id}-"


@dataclass(frozen=True, slots=True)
class _Written:
    """The run as MLflow knows it."""

    experiment_id: str
    id: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """What MLflow or its client said."""

    words: str


def _write(folder: Path, artifacts: Mapping[str, bytes]) -> None:
    for name, content in artifacts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _ask(uri: str, experiment: str, run: TrackedRun, folder: str, timeout_s: float) -> _Written | _Refused | None:
    """Let a process do it; None when the time is up."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    told = replace(run, artifacts={})
    process = spawn.Process(target=_work, args=(theirs, uri, experiment, told, folder), name="mlflow", daemon=True)
    process.start()
    theirs.close()  # so that we notice when the process dies
    try:
        if not ours.poll(timeout_s):
            return None
        said = ours.recv()
    except EOFError:
        return _Refused("the process that spoke with it died")
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
    assert isinstance(said, _Written | _Refused)
    return said


def _work(connection: Connection, uri: str, experiment: str, run: TrackedRun, folder: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(_CLIENT)
    logging.disable()
    try:
        from mlflow import MlflowClient

        connection.send(_written(MlflowClient(uri), experiment, run, folder))
    except Exception as error:  # noqa: BLE001  # besides MLflow's own, that of any library that it uses
        connection.send(_Refused(_words(error)))


def _words(error: BaseException) -> str:
    """Return what is wrong; where nothing answered at all, this instead of the pages that the client says about it."""
    from requests import exceptions

    cause: BaseException | None = error
    while cause is not None:
        silent = isinstance(cause, exceptions.ConnectionError | exceptions.Timeout)
        if silent and not isinstance(cause, exceptions.SSLError):
            return "nothing answers there; check that it runs"
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _written(client: "MlflowClient", experiment: str, run: TrackedRun, folder: str) -> _Written:
    from mlflow.entities import Metric, Param

    experiment_id = _experiment(client, experiment)
    found = client.search_runs([experiment_id], f"tags.`{RUN_ID_TAG}` = '{run.run_id}'", max_results=1)
    tags = {**run.tags, RUN_ID_TAG: run.run_id}
    made = found[0] if found else client.create_run(experiment_id, run.start_ms, tags, run.name)
    parameters = [Param(name, str(value)) for name, value in sorted(run.parameters.items())]
    for first in range(0, len(parameters), _PARAMETERS_AT_ONCE):
        client.log_batch(made.info.run_id, params=parameters[first : first + _PARAMETERS_AT_ONCE])
    metrics = [Metric(name, value, run.end_ms, 0) for name, value in run.metrics.items() if math.isfinite(value)]
    client.log_batch(made.info.run_id, metrics=metrics)
    client.log_artifacts(made.info.run_id, folder)
    client.set_terminated(made.info.run_id, "FINISHED", run.end_ms)
    return _Written(experiment_id, made.info.run_id)


def _experiment(client: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # somebody else may have made it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _without_login(uri: str) -> str:
    login = _login(uri)
    return uri.replace(f"{login}@", "", 1) if login else uri


def _login(uri: str) -> str:
    return urlsplit(uri).netloc.rpartition("@")[0]


def _scrubbed(words: str, uri: str) -> str:
    """Return the words in one line, of a length that people read, without the login."""
    line = " ".join(words.split())
    for secret in filter(None, (_login(uri), urlsplit(uri).password)):
        line = line.replace(secret, "***")
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"
