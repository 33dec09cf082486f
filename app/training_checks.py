"""What the doctor can see of training without a run: trainers, searches, and the extras that they need."""

from importlib.util import find_spec
from typing import Any

from app.findings import Finding, ok, problem, warning
from app.settings import Settings
from ml.errors import ModelError
from ml.training.registry import trainer_type
from ml.training.search_space import grid, probes, read_space
from schemas.streams import StreamSpec
from schemas.training import SearchSpec, TrainingSpec, Value


def check_training(settings: Settings) -> list[Finding]:
    """Say of each stream that is trained whether a run could begin; nothing when there is none.

    Importing a trainer's library takes a second.
    """
    found = []
    trained = [(spec, spec.training) for spec in settings.streams if spec.training is not None]
    for spec, training in trained:
        subject = f"training of {spec.name}"
        refused, tried = _refused(settings, spec, training)
        if wrong := (refused[:1] if len(refused) == tried else []) + _problems(settings, training):
            remedy = f"mend [streams.{spec.name}.training] or what is said here; until then each run fails"
            found += [problem(subject, sentence, remedy) for sentence in wrong]
        elif refused:
            remedy = f"narrow [streams.{spec.name}.training.search.space]"
            found.append(warning(subject, f"some trials of the search will fail: {refused[0]}", remedy))
        else:
            found.append(ok(subject, f"the trainer {training.trainer} and all that it needs are there"))
        if find_spec("matplotlib") is None:
            found.append(warning(subject, "model cards have no plots", "pip install 'penstock[train]'"))
    if trained and settings.mlflow_uri and find_spec("mlflow") is None:
        sentence = "mlflow_uri is set, but its client is missing, so runs are not tracked"
        found.append(warning("mlflow", sentence, "pip install 'penstock[mlflow]'"))
    return found


def _refused(settings: Settings, spec: StreamSpec, training: TrainingSpec) -> tuple[list[str], int]:
    """Return why the trainer does not take some parameters, and how many it was given."""
    refused = []
    try:
        tried = _searched(training.search) if training.search is not None else [{}]
        kind = trainer_type(training.trainer)
    except ModelError as error:
        return [str(error)], 1
    for values in tried:
        given: dict[str, Any] = {**training.parameters, **values}
        try:
            kind(spec.features, len(spec.classes) or 1, threads=settings.training_threads, **given)
        except ModelError as error:
            refused.append(str(error))
    return refused, len(tried)


def _problems(settings: Settings, training: TrainingSpec) -> list[str]:
    found = []
    if training.search is not None and find_spec("optuna") is None:
        found.append("a search needs Optuna: pip install 'penstock[train]'")
    if training.sql and not settings.training_sql_url:
        found.append("training.sql is set, but training_sql_url does not say where the database is")
    if training.sql and find_spec("sqlalchemy") is None:
        found.append("training.sql needs SQLAlchemy: pip install 'penstock[train]'")
    return found


def _searched(search: SearchSpec) -> list[dict[str, Value]]:
    """Return values that the search may try, both ends of each range. Raises TrainingImpossible if it cannot begin."""
    space = read_space(search.space)
    if search.method == "grid":
        grid(space, most=search.trials, seed=0)
    return probes(space)
