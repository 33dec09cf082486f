"""Making a candidate: the parameters are chosen on the data before the test, and then one model is fitted."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from agents.train.job import Job, Kept, Progress, Said
from ml.training.protocol import Fitted, TrainingImpossible, Unwatched, Watch
from ml.training.registry import trainer_type
from ml.training.search import SearchRules, search
from ml.training.split import Split, folds, untriable_folds
from ml.training.table import Table
from schemas.training import SearchSpec, TrainingSpec, Value
from stores.artifacts import ArtifactCorrupted, ArtifactMissing, ArtifactStore, ArtifactUnavailable

log = logging.getLogger("penstock.train")

Say = Callable[[Said], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A trainer by its name, and all that it is made from but the parameters that are searched. Can be pickled."""

    trainer: str
    feature_names: tuple[str, ...]
    classes: int
    seed: int
    threads: int
    parameters: Mapping[str, Value]

    def fit(
        self, searched: Mapping[str, Value], train: Table, validation: Table, watch: Watch, resume: bytes = b""
    ) -> Fitted:
        """Fit a model, as Trainer.fit does. Raises TrainingImpossible, also when there is no such trainer."""
        kind = trainer_type(self.trainer)
        given = {**self.parameters, **searched}
        trainer = kind(self.feature_names, self.classes, seed=self.seed, threads=self.threads, **given)
        return trainer.fit(train, validation, watch, resume)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What some parameters come to: the loss on the validation rows, or over folds in time. Can be pickled.

    The folds `left_out` are not tried; the first is 1. Each fit stops where the loss that it is judged by is lowest.
    """

    recipe: Recipe
    train: Table
    validation: Table
    folds: int
    left_out: frozenset[int] = frozenset()

    def __call__(self, parameters: Mapping[str, Value], watch: Watch) -> float:
        """Return the loss; of folds the mean, by the events that each is judged on."""
        if not self.folds:
            return self.recipe.fit(parameters, self.train, self.validation, watch).loss
        return mean_loss(self.fold_losses(parameters, watch))

    def fold_losses(self, parameters: Mapping[str, Value], watch: Watch) -> tuple[tuple[int, float], ...]:
        """Return of each fold the events that it was judged on, and the loss. The watch is told the mean so far."""
        losses: list[tuple[int, float]] = []
        for number, (train, judged) in enumerate(folds(joined(self.train, self.validation), self.folds), 1):
            if number not in self.left_out:
                losses.append((len(judged), self.recipe.fit(parameters, train, judged, Unwatched()).loss))
                watch.progress(number, self.folds, mean_loss(tuple(losses)))
        return tuple(losses)

    def digest(self) -> str:
        """Return what is another when a loss of the same parameters may be. About 1 ms per megabyte."""
        recipe = self.recipe
        told = (recipe.trainer, recipe.feature_names, recipe.classes, recipe.seed, recipe.parameters, self.folds)
        whole = hashlib.sha256(msgspec.json.encode(told, order="sorted"))
        whole.update(self.train.digest() + self.validation.digest())
        return whole.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A fitted model and how it came to be: the trials of the search, the loss in each fold, and why one has none."""

    fitted: Fitted
    trials: int = 0
    fold_losses: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def make(job: Job, parts: Split, unfinished: "Unfinished", say: Say) -> Candidate:
    """Search, validate and fit as the stream wants it, or go on with the fit that is unfinished.

    Raises TrainingImpossible, OSError of a study's storage, and ArtifactUnavailable.
    """
    training = _training_of(job)
    recipe = recipe_of(job, training)
    trial = Trial(recipe=recipe, train=parts.train, validation=parts.validation, folds=training.folds)
    untried = _untried(trial)
    if untried and training.search is not None:
        raise TrainingImpossible(f"training.folds: {untried[min(untried)]}; with fewer folds each is longer")
    trial = replace(trial, left_out=frozenset(untried))
    searched: Mapping[str, Value] = {}
    trials = 0
    if training.search is not None:
        searched, trials = _search(job, training.search, trial, say)
    fold_losses: tuple[float, ...] = ()
    if training.folds > len(untried):
        say(Progress(phase="validate", share=0.0))
        fold_losses = tuple(loss for _, loss in trial.fold_losses(searched, _Folds(say)))
    say(Progress(phase="fit", share=0.0))
    fitted = recipe.fit(searched, parts.train, parts.validation, _Fit(say, unfinished), unfinished.resume())
    return Candidate(
        fitted=fitted, trials=trials, fold_losses=fold_losses, notes=tuple(dict.fromkeys(untried.values()))
    )


def recipe_of(job: Job, training: TrainingSpec) -> Recipe:
    """Return what the stream's models are made by.

    Raises TrainingImpossible when the declaration names what the run sets as a parameter.
    """
    if training.misnamed:
        raise TrainingImpossible(f"training: {training.misnamed}")
    return Recipe(
        trainer=training.trainer,
        feature_names=job.spec.features,
        classes=len(job.spec.classes) or 1,
        seed=seed_of(job),
        threads=job.resources.threads,
        parameters=training.parameters,
    )


def seed_of(job: Job) -> int:
    """Return a number that follows from the samples and the declaration.

    Every attempt makes the same model, and so does every run that is asked for again: nobody can ask until it passes.
    """
    asked = msgspec.json.encode((job.spec.name, job.stop_offset, job.spec.training), order="sorted")
    return int.from_bytes(hashlib.sha256(asked).digest()[:4]) >> 1


def joined(first: Table, second: Table) -> Table:
    """Return the rows of two tables that follow one another in time, of which entities have one numbering."""
    columns = ("matrix", "labels", "weights", "event_time_ms", "entities", "served")
    matrix, labels, weights, times_ms, entities, served = (
        np.concatenate([getattr(first, name), getattr(second, name)]) for name in columns
    )
    return Table(matrix, labels, weights, times_ms, entities, served, first.entities_known)


def mean_loss(losses: tuple[tuple[int, float], ...]) -> float:
    """Return the mean of (events, loss) over the events."""
    return sum(count * loss for count, loss in losses) / sum(count for count, _ in losses)


class Unfinished:
    """The unfinished work of a run's fit in the artifact store, from which another attempt goes on; see `leftovers`.

    An attempt that finds nothing there, or something damaged, begins anew, and comes to the same model. The newest two
    are kept: what the newest replaces may be all that the stage has noted yet.
    """

    def __init__(self, store: ArtifactStore, job: Job, say: Say) -> None:
        self._store = store
        self._say = say
        self._head = job.run_id.encode() + b"\n"  # nobody else's bytes, so that removing them takes nothing from others
        self._found = job.kept
        self._stored = [*job.kept.before, job.kept.sha256] if job.kept is not None else []

    def resume(self) -> bytes:
        """Return what the attempt before came to; empty without one. Raises ArtifactUnavailable."""
        if self._found is None:
            return b""
        try:
            whole = self._store.get(self._found.sha256, self._found.size_bytes)
        except (ArtifactMissing, ArtifactCorrupted) as error:
            log.warning("the run begins anew: %s", error)
            return b""
        return whole.removeprefix(self._head)

    def keep(self, payload: bytes) -> None:
        """Store what the fit has come to, and say so. When the store is away the fit goes on all the same."""
        whole = self._head + payload
        try:
            sha256 = self._store.put(whole)
        except ArtifactUnavailable as error:
            log.warning("unfinished work is not kept: %s", error)
            return
        before = tuple(stored for stored in self._stored if stored != sha256)
        self._say(Kept(sha256=sha256, size_bytes=len(whole), before=before))
        self._stored = [*before, sha256]
        try:
            while len(self._stored) > 2:
                self._store.remove(self._stored[0])
                del self._stored[0]
        except ArtifactUnavailable as error:
            log.warning("older unfinished work stays in the store for now: %s", error)


class _Fit:
    """Watches the fit of the candidate."""

    def __init__(self, say: Say, unfinished: Unfinished) -> None:
        self._say = say
        self._unfinished = unfinished

    def progress(self, done: int, of: int, loss: float | None = None) -> None:
        told = f"round {done} of at most {of}" + (f", loss {loss:.4f}" if loss is not None else "")
        self._say(Progress(phase="fit", message=told, share=_share(done, of)))

    def keep(self, payload: bytes) -> None:
        self._unfinished.keep(payload)


class _Folds(Unwatched):
    """Watches the folds."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def progress(self, done: int, of: int, loss: float | None = None) -> None:
        told = f"fold {done} of {of}" + (f", mean loss {loss:.4f}" if loss is not None else "")
        self._say(Progress(phase="validate", message=told, share=_share(done, of)))


def _search(job: Job, wanted: SearchSpec, trial: Trial, say: Say) -> tuple[Mapping[str, Value], int]:
    """Return the best parameters of the search, and how many were tried."""

    def told(done: int, of: int, loss: float | None) -> None:
        best = f", lowest loss {loss:.4f}" if loss is not None else ""
        say(Progress(phase="search", message=f"trial {done} of {of}{best}", share=_share(done, of)))

    say(Progress(phase="search", share=0.0))
    rules = SearchRules(
        method=wanted.method,
        trials=wanted.trials,
        parallel=wanted.parallel,
        seconds=wanted.minutes * 60,
        prune=wanted.prune,
    )
    each = max(1, trial.recipe.threads // wanted.parallel)
    found = search(
        wanted.space,
        rules,
        replace(trial, recipe=replace(trial.recipe, threads=each)),
        storage=job.resources.optuna_storage or job.resources.training_dir,
        study_name=job.run_id,
        meaning=trial.digest(),
        seed=seed_of(job),
        on_trial=told,
    )
    return found.parameters, len(found.trials)


def _untried(trial: Trial) -> dict[int, str]:
    """Return which folds cannot be tried, and a sentence on why."""
    if not trial.folds:
        return {}
    try:
        return untriable_folds(joined(trial.train, trial.validation), trial.folds, trial.recipe.classes)
    except TrainingImpossible as error:
        return dict.fromkeys(range(1, trial.folds + 1), str(error))


def _training_of(job: Job) -> TrainingSpec:
    assert job.spec.training is not None  # else nothing runs
    return job.spec.training


def _share(done: int, of: int) -> float:
    return min(done / of, 1.0) if of else 1.0
