"""A search for hyper-parameters: trials of one study, which a database or a file keeps, so that a kill costs little.

What trial i tries depends on the seed, on i and on the trials that ended before it, never on how often the search was
killed: one that tries one thing at a time comes to the same whether it was killed or not.
"""

import glob
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ml.training.protocol import TrainingImpossible
from ml.training.search_space import Given, Value, read_space
from ml.training.search_study import Study, StudyUnavailable, Trial
from ml.training.search_trying import Evaluate, try_here, try_in_processes

__all__ = ["Best", "Evaluate", "SearchRules", "StudyUnavailable", "Trial", "Value", "forget", "search"]

_DIGITS = 8

Told = Callable[[int, int, float | None], None]
"""Is told how many trials have ended, of how many at most, and the lowest loss so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRules:
    """How it is searched: `trials` are tried, `parallel` at a time, each of these in a process of its own.

    When `seconds` is not 0, no trial begins after the ones that ended took so long, and the first is always tried.
    With `prune` a trial is given up when its loss is above the median of the others' at the same round; the first
    tenth of its rounds does not count, and five others must have ended.
    """

    method: Literal["tpe", "random", "grid"] = "tpe"
    trials: int = 30
    parallel: int = 1
    seconds: float = 0.0
    prune: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The values of the lowest loss, and every trial in its order. Of equal losses the earlier trial counts."""

    parameters: Mapping[str, Value]
    loss: float
    trials: tuple[Trial, ...]


def search(
    space: Mapping[str, Given],
    rules: SearchRules,
    evaluate: Evaluate,
    *,
    storage: str,
    study_name: str,
    meaning: str = "",
    seed: int = 0,
    on_trial: Told = lambda done, of, loss: None,
) -> Best:
    """Return the best of the trials, after going on with the study of this name if there is one.

    `evaluate` returns the loss of some parameters, and tells the watch it is given of its progress; that raises Stopped
    when the trial is given up, which `evaluate` lets through. What it raises as TrainingImpossible is a trial that
    failed; anything else ends the search. To be tried in parallel it must be one that pickle can send.

    `storage` is an SQLAlchemy URL, or a folder where each study is one file. A study belongs to one caller at a time:
    trials that run when it is opened count as killed, and are tried again. `meaning` must be another one when
    `evaluate` means something else: another meaning, space, method or seed is another study.

    Raises TrainingImpossible when the space is none, no trial came to a loss, or an extra is missing; StudyUnavailable,
    an OSError, when the storage fails; ChildProcessError when a process of a trial died.

    Costs 5 ms a trial and 3 ms for each of its at most 45 reports in a file, 140 ms and 5 ms in SQLite. A process takes
    a second to start.
    """
    named = f"{study_name}-{_digest(space, rules, seed, meaning)}"
    study = Study(
        read_space(space), rules.method, rules.trials, prune=rules.prune, seed=seed, storage=storage, name=named
    )

    def begin() -> tuple[int, dict[str, Value]] | None:
        spent = study.busy_seconds / rules.parallel
        if rules.seconds and study.lowest is not None and spent >= rules.seconds:
            return None
        return study.ask()

    def end(index: int, loss: float | None, pruned: bool, message: str) -> None:
        study.tell(index, loss, pruned=pruned, message=message)
        on_trial(study.ended, study.most, study.lowest)

    if rules.parallel == 1:
        try_here(begin, study.is_behind, end, evaluate)
    else:
        try_in_processes(min(rules.parallel, study.most), begin, study.is_behind, end, evaluate)
    return _best(study.trials())


def forget(folder: str, study_name: str) -> None:
    """Remove the files of what was searched under this name in a folder, if there are any. Raises OSError."""
    for path in Path(folder).glob(f"{glob.escape(study_name)}-{'[0-9a-f]' * _DIGITS}.journal*"):
        path.unlink(missing_ok=True)


def _best(trials: tuple[Trial, ...]) -> Best:
    whole = [trial for trial in trials if trial.outcome == "complete"]
    if not whole:
        why = next((trial.message for trial in reversed(trials) if trial.message), "each was given up")
        raise TrainingImpossible(f"none of {len(trials)} trials of the search came to a model: {why}")
    best = min(whole, key=lambda trial: (trial.loss, trial.index))
    assert best.loss is not None
    return Best(parameters=best.parameters, loss=best.loss, trials=trials)


def _digest(space: Mapping[str, Given], rules: SearchRules, seed: int, meaning: str) -> str:
    searched = repr((sorted((name, _plain(given)) for name, given in space.items()), rules.method, seed, meaning))
    return hashlib.sha256(searched.encode()).hexdigest()[:_DIGITS]


def _plain(given: Given) -> str:
    return repr(sorted(given.items()) if isinstance(given, Mapping) else tuple(given))
