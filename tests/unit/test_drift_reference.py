"""The four pairs of samples whose figures SciPy and plain NumPy gave: tests/data/drift_expected.json says how."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.drift.baseline import Baseline, make_baseline
from ml.drift.counting import Counter
from ml.drift.judgement import ColumnFigures, Rules, judge
from ml.drift.statistics import bin_shares, jensen_shannon, kl_divergence, ks_p_value, psi

DATA = Path(__file__).parents[1] / "data"
EXPECTED: dict[str, Any] = json.loads((DATA / "drift_expected.json").read_text())["pairs"]
SAMPLES: dict[str, Any] = json.loads(gzip.decompress((DATA / "drift_samples.json.gz").read_bytes()))
PAIRS = sorted(EXPECTED)
BINNINGS = [(pair, binning) for pair in PAIRS for binning in EXPECTED[pair]["binned"]]
TREATMENTS: dict[str, dict[str, Any]] = {
    "floor_0.0001_no_renorm": {"empty_bins": "floor"},
    "floor_1e-06_no_renorm": {"empty_bins": "floor", "floor": 1e-6},
    "add_half_count": {"empty_bins": "half_count"},
}


def _samples(pair: str, dtype: type = np.float64) -> tuple[NDArray[Any], NDArray[Any]]:
    return tuple(np.array(SAMPLES[pair][which], dtype=dtype)[:, None] for which in ("reference", "current"))  # type: ignore[return-value]


def _figures(pair: str, dtype: type, **options: Any) -> ColumnFigures:
    reference, current = _samples(pair, dtype)
    baseline = make_baseline(reference, ["x"], **options)
    return judge(baseline, Counter(baseline).count(current), Rules()).features[0]


@pytest.mark.parametrize("max_values", [32, 1])  # Poisson as values, and as numbers
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_sketch_gives_what_scipy_gives(pair: str, dtype: type, max_values: int) -> None:
    found, exact = _figures(pair, dtype, max_values=max_values), EXPECTED[pair]["exact_scipy"]
    assert found.ks == pytest.approx(exact["ks_statistic"], abs=0.005)
    assert found.wasserstein == pytest.approx(exact["wasserstein"], rel=0.02)
    assert found.wasserstein_scaled == pytest.approx(exact["wasserstein_over_ref_std"], rel=0.02)
    assert found.mean == pytest.approx(EXPECTED[pair]["cur_mean"], abs=1e-6)
    assert found.deviation == pytest.approx(EXPECTED[pair]["cur_std_ddof0"], rel=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_p_value_of_ks_is_near_scipys_asymptotic_one(pair: str) -> None:
    expected = EXPECTED[pair]
    n, m = np.array(expected["n_ref_nonnan"]), np.array(expected["n_cur_nonnan"])
    p = ks_p_value(np.array(expected["exact_scipy"]["ks_statistic"]), n, m)
    assert np.log(p) == pytest.approx(np.log(expected["exact_scipy"]["ks_p_asymp"]), rel=0.03)


@pytest.mark.parametrize(("pair", "binning"), BINNINGS)
def test_psi_and_both_divergences_are_those_of_the_stated_binning(pair: str, binning: str) -> None:
    stated = EXPECTED[pair]["binned"][binning]
    reference, current = np.array(stated["ref_counts"]), np.array(stated["cur_counts"])
    for treatment, options in TREATMENTS.items():
        p, q = bin_shares(reference, **options), bin_shares(current, **options)
        assert psi(p, q) == pytest.approx(stated[treatment]["psi"], abs=1e-9)
        assert kl_divergence(p, q) == pytest.approx(stated[treatment]["kl_ref_cur"], abs=1e-9)
        assert kl_divergence(q, p) == pytest.approx(stated[treatment]["kl_cur_ref"], abs=1e-9)


@pytest.mark.parametrize("empty_bins", ["floor", "half_count"])
@pytest.mark.parametrize("bins", [10, 20])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_quantile_bins_of_a_baseline_are_the_stated_ones(pair: str, bins: int, empty_bins: Any) -> None:
    stated = EXPECTED[pair]["binned"][f"quantile{bins}_ref_left_closed"]
    reference, current = _samples(pair)
    baseline = make_baseline(reference, ["x"], bins=bins, max_values=1)
    found = judge(baseline, Counter(baseline).count(current), Rules(empty_bins=empty_bins)).features[0]
    assert found.reference == pytest.approx(np.array(stated["ref_counts"]) / len(reference))
    assert found.current == pytest.approx(np.array(stated["cur_counts"]) / len(current))
    figures = stated["floor_0.0001_no_renorm" if empty_bins == "floor" else "add_half_count"]
    assert found.psi == pytest.approx(figures["psi"], abs=1e-9)
    assert found.kl_reference_current == pytest.approx(figures["kl_ref_cur"], abs=1e-9)
    assert found.kl_current_reference == pytest.approx(figures["kl_cur_ref"], abs=1e-9)


def test_few_values_have_a_bin_each_and_others_share_one() -> None:
    stated = EXPECTED["p5_poisson_int"]["binned"]["categorical_each_value"]
    found = _figures("p5_poisson_int", np.float32)
    counts = [*stated["cur_counts"][:14], sum(stated["cur_counts"][14:])]
    assert found.bins == (*(str(value) for value in range(14)), "other")
    assert found.current == pytest.approx(np.array(counts) / 2000)


def test_jensen_shannon_is_the_square_of_the_distance_of_others() -> None:
    expected = EXPECTED["p5_poisson_int"]
    stated = expected["binned"]["categorical_each_value"]
    found = jensen_shannon(np.array(stated["ref_counts"]), np.array(stated["cur_counts"]))
    assert np.sqrt(found) == pytest.approx(expected["evidently_0_7_23"]["jensenshannon_distance_nat"], abs=1e-4)


def test_the_verdicts_are_those_of_anybody() -> None:
    severities = {pair: _figures(pair, np.float32).severity for pair in PAIRS}
    assert severities == {
        "p0_null_normal": "none",
        "p1_normal_shift": "medium",
        "p2_heavy_tail": "medium",
        "p5_poisson_int": "medium",
    }


def test_a_baseline_comes_back_from_its_bytes() -> None:
    baseline = make_baseline(_samples("p2_heavy_tail")[0], ["x"])
    again = Baseline.decode(baseline.encode())
    assert again.columns == baseline.columns
    assert again.encode() == baseline.encode()
