"""Drift while an experiment runs: of events that the champion did not serve, the judge has the features only."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.judging import Bench, drift_of, events_of, judged, partial_of


def _moved(seed: int, a: float, score: float) -> NDArray[np.float64]:
    """Return a thousand events of which two columns are moved by so many deviations."""
    moved: NDArray[np.float64] = events_of(1_000, seed) + np.array([a, 0.0, score])
    return moved


@pytest.mark.parametrize("share", [0.7, 0.02])
async def test_predictions_that_other_variants_made_are_neither_missing_nor_do_they_hide_drift(share: float) -> None:
    bench = await Bench(drift_of(window_events=1_000)).open()
    for seed, score in ((1, 0.0), (2, 1.5)):
        events = _moved(seed, 0.0, score)
        events[int(share * 1_000) :, 2] = np.nan
        await bench.take([partial_of(events)])
    quiet, moved = (report.predictions[0] for report in bench.reports)
    assert (quiet.n, quiet.missing_share, quiet.severity, quiet.judged) == (int(share * 1_000), 0.0, "none", True)
    assert moved.severity != "none"
    assert [report.n for report in bench.reports] == [1_000, 1_000]


async def test_a_window_of_which_the_champion_predicted_nothing_says_so_and_judges_the_features() -> None:
    events = _moved(1, 1.0, 0.0)
    events[:, 2] = np.nan
    bench = await judged([partial_of(events)], window_events=1_000)
    [report] = bench.reports
    [score] = report.predictions
    assert (score.n, score.psi, score.p_value, score.severity) == (0, None, None, "none")
    assert score.reason == "no values in the window"
    assert set(score.current) == {0.0}
    assert report.features[0].severity == "high"
