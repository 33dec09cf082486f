"""The sequential detector: river's ADWIN, told from its changes for the better, and at rest in a checkpoint."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
from numpy.typing import NDArray
from river.drift import ADWIN

from ml.errors import ModelPayloadInvalid
from ml.evaluation.detector import DetectorState, ErrorDetector


def _errors(*shares: float, n: int = 2_000, seed: int = 1) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(n) < share for share in shares])


def test_a_rise_is_found_where_river_finds_it_and_a_fall_is_not_told() -> None:
    errors = _errors(0.1, 0.5, 0.05, 0.4)
    adwin, changes = ADWIN(), []
    for row, error in enumerate(errors.tolist()):
        adwin.update(error)
        if adwin.drift_detected:
            changes.append(row)
    rises = ErrorDetector().update(errors)
    assert [rise.row for rise in rises if rise.row in changes] == [rise.row for rise in rises]
    assert [rise.row // 2_000 for rise in rises] == [1, 3]
    assert 2 in [row // 2_000 for row in changes]  # the fall
    assert all(rise.after > rise.before for rise in rises)
    assert all(isinstance(rise.n, int) for rise in rises), "people read how many samples it was"
    assert rises[0].before == pytest.approx(errors[: rises[0].row + 1].mean())


def test_cuts_and_rests_leave_no_trace() -> None:
    errors = _errors(0.1, 0.3, 0.2, 0.45, n=1_000)
    whole = ErrorDetector().update(errors)
    detector, found, start = ErrorDetector(), [], 0
    rng = np.random.default_rng(2)
    while start < len(errors):
        stop = start + int(rng.integers(1, 300))
        found += [(start + rise.row, rise.n, rise.before, rise.after) for rise in detector.update(errors[start:stop])]
        state, detector = detector.dump(), ErrorDetector()
        detector.load(state)
        start = stop
    assert found == [(rise.row, rise.n, rise.before, rise.after) for rise in whole]
    assert len(found) >= 2


def test_a_steady_error_is_seldom_called_a_rise() -> None:
    alarms = [len(ErrorDetector().update(_errors(0.2, n=20_000, seed=seed))) for seed in range(10)]
    assert sum(alarms) <= 2


@pytest.mark.parametrize("hostile", [OrderedDict(), 5])
def test_a_state_that_is_no_adwin_is_refused(hostile: object) -> None:
    with pytest.raises(ModelPayloadInvalid):
        ErrorDetector().load(DetectorState(1, 0, pickle.dumps(hostile)))
