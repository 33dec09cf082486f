"""Are the joined samples and the learnt models of a benchmark right, and how fast were they made?"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.bare_learner import PROBES, Learnt, logistic_numbers, tree_numbers
from benchmarks.comparison import differences
from benchmarks.plain import Row
from ml.models.protocol import Model

_SHOWN: Final = 3
_SNAPSHOTS: Final = ("published", "kept_back")


class _Sample(msgspec.Struct):
    event_id: str
    label: int
    features: tuple[float | None, ...]
    revision: int
    score: float
    assumed: bool = False


class _Update(msgspec.Struct):
    action: str
    samples: int


def sample_differences(
    scores: Mapping[str, float],
    labels: Mapping[str, int],
    features: Callable[[str], tuple[float | None, ...]],
    rows: Sequence[Row],
) -> list[str]:
    """Return one sentence for each way in which `rows` are not exactly one right sample per event."""
    decode = msgspec.json.Decoder(_Sample).decode
    wrong = []
    for row in rows:
        sample = decode(row.value or b"")
        right = _Sample(
            sample.event_id, labels.get(sample.event_id, -1), features(sample.event_id), 0, sample.score, assumed=False
        )
        if sample != right:
            wrong.append(sample.event_id)
    found = differences(scores, rows)
    return found + ([f"{len(wrong)} joined wrongly: {', '.join(wrong[:_SHOWN])}"] if wrong else [])


def learning_rate(updates: Iterable[Row]) -> float:
    """Return the samples learnt per second, from the snapshots' records, which the broker stamped.

    The steady rate, between the snapshots at 10% and at 90% of the samples: start and end do not count.
    Raises ValueError when there are too few snapshots to tell.
    """
    decode = msgspec.json.Decoder(_Update).decode
    told = [(row.time_ms, decode(row.value or b"")) for row in updates]
    snapshots = [(time_ms, update.samples) for time_ms, update in told if update.action in _SNAPSHOTS]
    if len(snapshots) < 10:
        raise ValueError(f"{len(snapshots)} snapshots are too few to tell a rate")
    times_ms, samples = np.array(snapshots, dtype=np.int64).T
    first, last = int(0.1 * len(snapshots)), int(0.9 * len(snapshots))
    return float(1000 * (samples[last] - samples[first]) / (times_ms[last] - times_ms[first]))


def model_differences(model: Model, learnt: Learnt, matrix: NDArray[np.float32]) -> list[str]:
    """Return one sentence for each number in which `model` is not what the bare loop learnt.

    `matrix` are the features of the last samples, which the loop scored.
    """
    numbers = _numbers(model)
    found = [
        f"{name} is {numbers.get(name)!r}, the bare loop has {value!r}"
        for name, value in learnt.numbers.items()
        if numbers.get(name) != value
    ][:_SHOWN]
    unlike = int(np.count_nonzero(model.predict(matrix) != np.array(learnt.scores)))
    return found + ([f"{unlike} of the last {PROBES} samples score differently"] if unlike else [])


def _numbers(model: Any) -> dict[str, float]:
    """Return the numbers of one of our river models, named as the bare loop names them."""
    if hasattr(model, "_scaler"):
        return logistic_numbers(model._scaler, model._classifier, range(model.n_features))
    return tree_numbers(model._classifier)
