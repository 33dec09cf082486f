"""Data in the order of event time, cut into what is trained on and what comes after. Nothing is ever shuffled.

Equal times stay together, so that nothing is judged on what was known before.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ml.training.protocol import TrainingImpossible
from ml.training.table import Table

NEWEST_SHARE = 0.2
GONE_SHARE, KNOWN_SHARE = 0.01, 0.1
RARER = 0.5


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts of a table, one after the other in time; none is empty."""

    train: Table
    validation: Table
    test: Table


def split(table: Table, validation_share: float, test_share: float) -> Split:
    """Return the first rows for training, the next for validation and the last for the test: views of `table`.

    The shares are of the rows; a border within rows of one time moves to the nearer end of them. Raises
    TrainingImpossible when that leaves a part without rows.
    """
    train_share = 1.0 - validation_share - test_share
    names = ("training", "validation", "test")
    return Split(*_parts(table, (train_share, train_share + validation_share), names))


def folds(table: Table, count: int) -> list[tuple[Table, Table]]:
    """Return `count` pairs of ever longer beginnings of `table`, and what follows each: views of `table`.

    The table is cut into `count` + 1 parts of about equal size; the k-th pair trains on the first k of them and is
    judged on the next. Raises TrainingImpossible when a part is empty.
    """
    parts = count + 1
    names = ("fold 1 training", *(f"fold {number}" for number in range(1, parts)))
    cut = _parts(table, tuple(number / parts for number in range(1, parts)), names)
    ends = np.cumsum([len(part) for part in cut])
    return [(table.rows(slice(0, int(end))), judged) for end, judged in zip(ends[:-1], cut[1:], strict=True)]


def require_learnable(table: Table, classes: int, min_samples: int, part: str = "training") -> None:
    """Raise TrainingImpossible when `table`, the `part` data, has too few rows, or rows of one class only.

    Rows without weight do not count. `classes` is the number of score columns: 1 when labels are 0 or 1.
    """
    labels = table.labels[table.weights > 0]
    if len(labels) < min_samples:
        raise TrainingImpossible(f"the {part} data has {len(labels)} samples, and needs {min_samples}")
    counts = np.bincount(labels, minlength=max(classes, 2))
    if np.count_nonzero(counts) < 2:
        only = f", all of class {counts.argmax()}" if len(labels) else ""
        raise TrainingImpossible(f"the {part} data has {len(labels)} samples{only}; two classes are the least")


def vanished(table: Table, feature_names: tuple[str, ...]) -> str | None:
    """Return a sentence when features are gone from the newest fifth of the rows, else None.

    Gone means that at most 1% of the newest rows know it, and more than 10% of the rows before did.
    """
    border = len(table) - int(len(table) * NEWEST_SHARE)
    if border in (0, len(table)):
        return None
    known = ~np.isnan(table.matrix)
    before, newest = known[:border].mean(axis=0), known[border:].mean(axis=0)
    gone = np.flatnonzero((newest <= GONE_SHARE) & (before > KNOWN_SHARE))
    if not len(gone):
        return None
    which = ", ".join(
        f"{feature_names[column]} (known in {newest[column]:.0%} of the newest {len(table) - border} samples, in "
        f"{before[column]:.0%} of those before)"
        for column in gone
    )
    return f"a feature vanished: {which}"


def rarer(train: Table, test: Table, feature_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a sentence for each feature that is known in the test rows less than half as often as in `train`.

    Of those that 10% of the rows to train on know, or fewer, nothing is said.
    """
    before, now = ((~np.isnan(table.matrix)).mean(axis=0) for table in (train, test))
    return tuple(
        f"Feature {feature_names[column]} is known in {now[column]:.1%} of the test data, and in {before[column]:.1%} "
        "of the training data: has it gone?"
        for column in np.flatnonzero((before > KNOWN_SHARE) & (now < RARER * before))
    )


def untriable_folds(table: Table, count: int, classes: int) -> dict[int, str]:
    """Return which of the `folds`, the first being 1, cannot be trained on or judged by, and a sentence on why.

    Raises TrainingImpossible when the table cannot be cut into so many.
    """
    found = {}
    for number, (train, judged) in enumerate(folds(table, count), 1):
        try:
            require_learnable(train, classes, 2, "fold's training")
            if not (judged.weights > 0).any():
                raise TrainingImpossible("what follows it has no samples that count")
        except TrainingImpossible as error:
            found[number] = f"fold {number} of {count} cannot be tried: {error}"
    return found


def _parts(table: Table, shares: tuple[float, ...], names: tuple[str, ...]) -> list[Table]:
    """Cut `table` at these shares of its rows. Raises TrainingImpossible when one of the parts `names` is empty."""
    borders = [0, *(_border(table, share) for share in shares), len(table)]
    for name, (start, end) in zip(names, pairwise(borders), strict=True):
        if start >= end:
            times = len(np.unique(table.event_time_ms))
            raise TrainingImpossible(
                f"{len(table)} samples of {times} different event times leave no {name} data; it takes more"
            )
    return [table.rows(slice(start, end)) for start, end in pairwise(borders)]


def _border(table: Table, share: float) -> int:
    """Return the row nearest to this share of the rows that has another time than the row before it."""
    wanted = round(len(table) * share)
    if wanted in (0, len(table)):
        return wanted
    time = table.event_time_ms[wanted]
    first, after = (int(np.searchsorted(table.event_time_ms, time, side)) for side in ("left", "right"))
    return first if wanted - first <= after - wanted else after
