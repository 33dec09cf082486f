"""What is known of a candidate when its run ends: what its card tells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml.training.gates import Champion, Gate
from ml.training.importance import Importance
from ml.training.measure import Measures
from ml.training.table import Table
from schemas.events import ModelVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the data: its rows, with event times in [from, to), their entities, and the share of each class."""

    name: str
    rows: int
    entities: int
    from_time_ms: int
    to_time_ms: int
    shares: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """The champion: what it came to on the test rows, as far as it could be compared, and the difference."""

    version: ModelVersion
    test: Measures | None
    found: Champion


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """All that a card says of the candidate `version`.

    The parts come in the order of time: the first was trained on, the last is the test. `validation` was measured on
    the rows that decided when to stop; `test_at_best` is the test at the threshold that is best there, None where there
    is none. `asked_because` is why people asked, in their words. `source` says in a sentence where the samples are
    from; `query` is the SQL, if any. `rival` is None before the first champion. `notes` are sentences of the trainer
    and the run.
    """

    version: ModelVersion
    run_id: str
    reasons: tuple[str, ...]
    requested_by: str
    asked_because: str
    source: str
    query: str
    parts: tuple[Part, ...]
    validation: Measures
    test: Measures
    test_at_best: Measures | None
    rival: Rival | None
    gates: tuple[Gate, ...]
    importance: tuple[Importance, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate was."""
        return all(gate.passed for gate in self.gates)


def part_of(name: str, table: Table, class_names: Sequence[str]) -> Part:
    """Return what is said of the rows of `table`, which has some. Class names are in the order of their indices."""
    counts = np.bincount(table.labels, minlength=len(class_names))
    return Part(
        name=name,
        rows=len(table),
        entities=len(np.unique(table.entities)),
        from_time_ms=int(table.event_time_ms[0]),
        to_time_ms=int(table.event_time_ms[-1]) + 1,
        shares=dict(zip(class_names, (counts / len(table)).tolist(), strict=True)),
    )
