"""What stays of a run that made a model: the model, its baseline and its card in the store, and a page in MLflow."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from agents.baselines import BaselineUnusable, baseline_of_rows
from agents.registering import describe_model
from agents.train.card import card_of
from agents.train.data import DEFAULT_DAYS, Data
from agents.train.facts import Card, Rival, part_of
from agents.train.job import Job, Made
from agents.train.judging import Judged
from agents.train.making import Candidate, joined
from ml.models.protocol import Model
from ml.training.split import Split, rarer
from schemas.events import ModelVersion
from schemas.runs import GateResult
from schemas.text import duration
from stores.artifacts import ArtifactStore
from stores.documents import Documents, card_folder
from stores.tracking import TrackedRun, TrackingFailed, track

DRIFT_REPORT = "drift.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that a run found out, and the model that it found it out about."""

    data: Data
    parts: Split
    candidate: Candidate
    model: Model
    judged: Judged


def record(job: Job, result: Result, store: ArtifactStore, clock_ms: Callable[[], int]) -> Made:
    """Put everything into the store, tell MLflow if there is one, and return what is to be registered.

    Doing it twice leaves the same. Raises ArtifactUnavailable; MLflow may fail, which becomes a note.
    """
    version, baseline, notes = _stored(job, result, store)
    candidate, parts = result.candidate, result.parts
    gone = rarer(parts.train, parts.test, job.spec.features)
    notes = (*result.data.notes, *gone, *candidate.fitted.notes, *candidate.notes, *notes)
    files = card_of(_card(job, result, version, notes))
    files[DRIFT_REPORT] = msgspec.json.format(msgspec.json.encode(result.judged.drift), indent=2) + b"\n"
    Documents(job.resources.model_storage_dir).put(card_folder(version.model_id), files)
    if job.resources.mlflow_uri:
        notes = (*notes, _tracked(job, result, version, baseline, files, clock_ms()))
    return Made(
        version=version,
        passed=result.judged.passed,
        gates=tuple(
            GateResult(
                gate=gate.gate,
                passed=gate.passed,
                message=gate.message,
                value=gate.value,
                limit=gate.limit,
                low=gate.low,
                high=gate.high,
            )
            for gate in result.judged.gates
        ),
        samples=len(result.data.table),
        from_time_ms=result.data.from_ms,
        to_time_ms=result.data.to_ms,
        notes=notes,
    )


def _stored(job: Job, result: Result, store: ArtifactStore) -> tuple[ModelVersion, bytes, tuple[str, ...]]:
    """Store the model and its baseline; return its signed version, the baseline, and what there is to say of it.

    The baseline is of the rows that the model was not fitted to: its scores of those are like the ones to come. It
    learnt from the validation rows, too, as they decided when to stop; so its training ends where the test begins.
    """
    fitted, parts = result.candidate.fitted, result.parts
    store.put(fitted.payload)
    described = describe_model(
        job.spec,
        fitted.payload,
        fitted.algorithm,
        "training",
        job.now_ms,
        metrics=_metrics(result),
        parameters=fitted.parameters,
    )
    version = msgspec.structs.replace(
        described,
        parent=job.champion.model_id if job.champion is not None else None,
        training_from_time_ms=result.data.from_ms,
        training_to_time_ms=int(parts.test.event_time_ms[0]),
        training_from_offset=result.data.first_offset,
        training_to_offset=job.stop_offset if result.data.first_offset is not None else None,
        run_id=job.run_id,
    )
    baseline, notes = b"", tuple[str, ...]()
    try:
        baseline = baseline_of_rows(job.spec, result.model, joined(parts.validation, parts.test).matrix)
        version = msgspec.structs.replace(version, baseline=store.put(baseline), baseline_bytes=len(baseline))
    except BaselineUnusable as error:
        notes = (f"there is no baseline to measure its drift against: {error}",)
    return msgspec.structs.replace(version, signature=job.resources.signer.sign(version)), baseline, notes


def _metrics(result: Result) -> dict[str, float]:
    """Return what was measured on the test rows, and beside it the champion's figure and the loss when it was made."""
    judged = result.judged
    found = dict(judged.test.metrics)
    found["validation_loss"] = result.candidate.fitted.loss
    difference = judged.against.difference if judged.against is not None else None
    if difference is not None:
        found[f"champion_{difference.metric}"] = difference.champion
    if judged.validation.best is not None:
        found["best_threshold"] = judged.validation.best.threshold
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _card(job: Job, result: Result, version: ModelVersion, notes: tuple[str, ...]) -> Card:
    spec, parts, judged = job.spec, result.parts, result.judged
    assert spec.training is not None  # else nothing runs
    classes = spec.classes or ("0", "1")
    named = (("training", parts.train), ("validation", parts.validation), ("test", parts.test))
    rival = None
    if job.champion is not None and judged.against is not None:
        rival = Rival(version=job.champion, test=judged.champion, found=judged.against)
    return Card(
        version=version,
        run_id=job.run_id,
        reasons=job.reasons,
        requested_by=job.requested_by,
        asked_because=job.asked_because,
        source=_source(job),
        query=spec.training.sql,
        parts=tuple(part_of(name, table, classes) for name, table in named),
        validation=judged.validation,
        test=judged.test,
        test_at_best=judged.test_at_best,
        rival=rival,
        gates=judged.gates,
        importance=judged.importance,
        notes=(*notes, *_choices(result.candidate)),
    )


def _source(job: Job) -> str:
    training = job.spec.training
    assert training is not None  # else nothing runs
    if training.sql:
        return "The samples come out of a database, by the query of `training.sql`."
    newest = f"{training.samples} events" if training.samples is not None else f"{training.days or DEFAULT_DAYS} days"
    return (
        f"The samples are those of the newest {newest} before offset {job.stop_offset} of `{job.spec.name}.samples`, "
        f"from the archive and the log, without the last {duration(job.spec.ripens_ms)}, whose labels may "
        "still come."
    )


def _choices(candidate: Candidate) -> tuple[str, ...]:
    """Return sentences on how the parameters were chosen."""
    found = []
    if candidate.trials:
        found.append(f"The parameters are the best of {candidate.trials} trials on data before the test.")
    if candidate.fold_losses:
        losses = ", ".join(f"{loss:.4f}" for loss in candidate.fold_losses)
        found.append(
            f"The losses on ever longer beginnings of the data, each judged on what follows: {losses}. Each fit "
            "stopped where that loss was lowest, so they are a little too good."
        )
    return tuple(found)


def _tracked(
    job: Job, result: Result, version: ModelVersion, baseline: bytes, files: Mapping[str, bytes], now_ms: int
) -> str:
    """Tell MLflow of the run; return the sentence that says where it is there, or why it is not."""
    judged, fitted = result.judged, result.candidate.fitted
    run = TrackedRun(
        run_id=job.run_id,
        name=version.model_id,
        parameters=fitted.parameters,
        metrics=version.metrics | {f"validation_{name}": value for name, value in judged.validation.metrics.items()},
        artifacts={
            **{f"card/{name}": payload for name, payload in files.items()},
            f"model/{version.model_id}": fitted.payload,
            **({"baseline.json": baseline} if baseline else {}),
        },
        tags={
            "penstock.stream": job.spec.name,
            "penstock.model_id": version.model_id,
            "penstock.algorithm": version.algorithm,
            "penstock.passed": str(judged.passed).lower(),
            "penstock.reasons": ", ".join(job.reasons),
        },
        start_ms=job.now_ms,
        end_ms=now_ms,
    )
    try:
        return f"The run is in MLflow: {track(job.resources.mlflow_uri, job.resources.mlflow_experiment, run)}"
    except TrackingFailed as error:
        return str(error)
