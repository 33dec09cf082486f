"""One study of Optuna: what to try next, and what came of it. Only one process asks and tells; others may look."""

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ml.training.protocol import TrainingImpossible
from ml.training.search_space import Grid, Space, Value, distributions, grid

Outcome = Literal["complete", "pruned", "failed"]
_INDEX: Final = "index"
_MESSAGE: Final = "message"


class StudyUnavailable(OSError):
    """The storage of studies failed; another try may find it well again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was tried as number `index`, and what came of it.

    `loss` is the last one known, None of a trial that failed, for which `message` says why.
    """

    index: int
    parameters: dict[str, Value]
    outcome: Outcome
    loss: float | None
    message: str = ""


class Study:
    """At most `most` trials of a space, kept in a storage under a name.

    Trials are known by their index, from 0. An index is free when no trial of it ended or runs, so one that was killed
    gives its index, and by this its seed or its point of the grid, to another.
    """

    def __init__(
        self, space: Space, method: str, trials: int, *, prune: bool, seed: int, storage: str, name: str
    ) -> None:
        """Open the study or make it; what runs in it counts as killed.

        Raises TrainingImpossible when an extra is missing or the space is no grid, and StudyUnavailable.
        """
        self._grid: Grid | None = grid(space, trials, seed) if method == "grid" else None
        self._method, self._seed, self._prune = method, seed, prune
        self.most = trials if self._grid is None else len(self._grid)
        self._running: dict[int, Any] = {}
        with _working():
            self._study = _open(storage, name)
            self._distributions = distributions(space)
            self._forget_killed()

    def ask(self) -> tuple[int, dict[str, Value]] | None:
        """Begin the next trial; return its index and its parameters, or None when all have begun."""
        with _working():
            taken = self._taken() | self._running.keys()
            index = next((number for number in range(self.most) if number not in taken), None)
            if index is None:
                return None
            if self._grid is not None:
                self._study.enqueue_trial(self._grid[index], user_attrs={_INDEX: index})
            self._study.sampler = self._sampler(index)
            trial = self._study.ask(self._distributions)
            trial.set_user_attr(_INDEX, index)
            self._running[index] = trial
            return index, dict(trial.params)

    def is_behind(self, index: int, step: int, loss: float) -> bool:
        """Note the loss of a running trial at a step, and return whether it should be given up."""
        with _working():
            trial = self._running[index]
            trial.report(loss, step)
            return self._prune and bool(trial.should_prune())

    def tell(self, index: int, loss: float | None, *, pruned: bool = False, message: str = "") -> None:
        """End a trial: with its loss, or without one because it was given up or because of the `message`."""
        from optuna.trial import TrialState

        if loss is not None and not math.isfinite(loss):
            loss, message = None, f"the loss is {loss:g}"
        with _working():
            trial = self._running.pop(index)
            if loss is not None:
                self._study.tell(trial, loss)
            elif pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                trial.set_user_attr(_MESSAGE, message or "it came to no loss")
                self._study.tell(trial, state=TrialState.FAIL)

    def trials(self) -> tuple[Trial, ...]:
        """Return the trials that ended, by index; not those that were killed."""
        with _working():
            return tuple(sorted(map(_trial, self._ended()), key=lambda trial: trial.index))

    @property
    def ended(self) -> int:
        """How many trials ended."""
        with _working():
            return len(self._ended())

    @property
    def lowest(self) -> float | None:
        """The lowest loss of a trial that was not given up."""
        losses = [trial.loss for trial in self.trials() if trial.outcome == "complete" and trial.loss is not None]
        return min(losses, default=None)

    @property
    def busy_seconds(self) -> float:
        """How long all trials that ended took, together."""
        with _working():
            return math.fsum(trial.duration.total_seconds() for trial in self._ended())

    def _sampler(self, index: int) -> Any:
        """Return a sampler whose random numbers are those of this index."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = int(np.random.SeedSequence([self._seed, index]).generate_state(1)[0])
        return TPESampler(seed=seed) if self._method == "tpe" else RandomSampler(seed=seed)

    def _ended(self) -> list[Any]:
        """Return the trials that ended by themselves; those that were killed have no message."""
        from optuna.trial import TrialState

        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        found = self._study.get_trials(deepcopy=False, states=states)
        return [trial for trial in found if trial.state != TrialState.FAIL or _MESSAGE in trial.user_attrs]

    def _taken(self) -> set[int]:
        return {trial.user_attrs[_INDEX] for trial in self._ended()}

    def _forget_killed(self) -> None:
        from optuna.trial import TrialState

        for _ in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.ask()  # which takes one that waits
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)


def _open(storage: str, name: str) -> Any:
    try:
        import optuna
    except ImportError as error:
        raise TrainingImpossible("a search needs Optuna: pip install 'penstock[train]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kept = _database(storage) if "://" in storage else _file(Path(storage), name)
    return optuna.create_study(
        storage=kept, study_name=name, load_if_exists=True, pruner=optuna.pruners.MedianPruner(n_startup_trials=5)
    )


def _database(url: str) -> Any:
    from optuna.storages import RDBStorage

    try:
        return RDBStorage(url)
    except ImportError as error:
        missing = error.__cause__ or error
        message = f"the database of studies (optuna_storage) needs a package that is not installed: {missing}"
        raise TrainingImpossible(message) from error


def _file(folder: Path, name: str) -> Any:
    """Return the storage in the study's file, whose last line is cut off if a crash left only a part of it."""
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.journal"
    if path.exists():
        written = path.read_bytes()
        if (whole := written.rfind(b"\n") + 1) < len(written):
            os.truncate(path, whole)
    return JournalStorage(JournalFileBackend(str(path)))


@contextlib.contextmanager
def _working() -> Iterator[None]:
    """Turn what a storage raises into StudyUnavailable, without its words: they may have a password in them."""
    try:
        yield
    except (TrainingImpossible, OSError):
        raise
    except Exception as error:  # both libraries raise many kinds, which have no base in common
        if not type(error).__module__.startswith(("optuna.", "sqlalchemy.")):
            raise
        reason = type(error.__cause__ or error).__name__
        raise StudyUnavailable(
            f"the database of studies failed ({reason}); check that it can be reached and written, and optuna_storage"
        ) from None


def _trial(frozen: Any) -> Trial:
    outcomes: dict[str, Outcome] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return Trial(
        index=frozen.user_attrs[_INDEX],
        parameters=dict(frozen.params),
        outcome=outcomes[frozen.state.name],
        loss=frozen.value,
        message=frozen.user_attrs.get(_MESSAGE, ""),
    )
