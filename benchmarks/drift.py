"""What does watching for drift cost, and does Evidently come to the same verdicts?

Counting: the score stage with a baseline and without, on the same batches in one process; `count_us` is what counting,
making partials and encoding them add per event of 10 features, in batches of 1,000 events, each with a commit. Cells,
missing values and sums are compared with one pass of `numpy.histogram`.

Judging: `judge_ms` is one judgement of a window of 100 features, from counts.

Beside Evidently: both look at the same samples, a reference of 5,000 rows and a current one of 1,000, of 10 features.
Either has its reference made ready beforehand, a baseline here and a Dataset there, and its current sample in memory.
Then we count it and judge it, and Evidently makes its report: the data drift preset with PSI and with KS.
That draws charts, too: `evidently_tests_ratio` is beside its two tests alone, called one by one.
Verdicts: a feature has drifted when either test says so, which is at a PSI of 0.1 or more, and at a p-value of KS of
0.05 or less. Evidently corrects no p-value, so here ours is the one without the correction. The verdicts must agree for
every feature of every pair. By one test alone they may differ, which `one_test_differs` counts: each side's PSI has its
own bins, ours 10 quantile bins, Evidently's 14 of equal width over both samples. Where tails are heavy, a few outliers
leave almost everything in one or two of these, and its PSI stays below 0.1.

Wrong counts or other verdicts end the benchmark with exit code 1.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import evidently_peer, machine
from benchmarks.counting_cost import CountingCost
from benchmarks.evidently_peer import Pair, Said
from ml.drift.baseline import make_baseline
from ml.drift.counting import Counter
from ml.drift.judgement import Judgement, Rules, judge
from ml.drift.statistics import ks_p_value

_BATCH_ROWS: Final = (250, 1000, 2000)
_COUNTED_ROWS: Final = 1000
_REFERENCE_ROWS: Final = 5_000
_CURRENT_ROWS: Final = 1_000
_FEATURES: Final = 10
_MANY: Final = 100
_OUR_RUNS: Final = 50
_MIN_PSI: Final = 0.1
_MAX_P: Final = 0.05
_KM_PER_MILE: Final = 1.609344


def add_command(commands: Any) -> None:
    """Add `drift` to the benchmarks that can be asked for."""
    parser = commands.add_parser("drift", help="count and judge drift: beside scoring alone, and beside Evidently")
    parser.add_argument("--events", type=int, default=40_000, help="counted in batches of each size")
    parser.add_argument("--runs", type=int, default=2, help="reports of Evidently on each pair; the median counts")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when counts are wrong or verdicts differ."""
    counting = _counting(arguments.events, arguments.seed)
    wide = Judging(_wide(arguments.seed))
    result = counting | {"judge_ms": round(wide.judge_ms(), 3)} | _beside_evidently(arguments.runs, arguments.seed)
    right = result["counts_match"] and result["verdicts_agree"]
    result |= {"events": arguments.events, "machine": machine.describe()}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if right else 1


def _counting(events: int, seed: int) -> dict[str, Any]:
    """Return what counting costs, by the size of batches, and whether all was counted right."""
    cost = CountingCost(seed)
    found = {}
    for rows in _BATCH_ROWS:
        found[rows] = cost.measure(events // rows, rows)
        print(f"batches of {rows}: counting adds {found[rows].count_us:.2f} µs per event", flush=True)
    differences = [difference for each in found.values() for difference in each.differences]
    return {
        "count_us": round(found[_COUNTED_ROWS].count_us, 3),
        "count_us_by_batch": {rows: round(each.count_us, 3) for rows, each in found.items()},
        "score_us": round(found[_COUNTED_ROWS].score_us, 2),
        "counts_match": not differences,
        **({"differences": differences} if differences else {}),
    }


class Judging:
    """Our side of a pair: its baseline is made beforehand."""

    def __init__(self, pair: Pair) -> None:
        names = [f"f{number}" for number in range(pair.reference.shape[1])]
        self._baseline = make_baseline(pair.reference, names)
        self._counter = Counter(self._baseline)
        self._current = pair.current
        self._counts = self._counter.count(self._current)
        self.judgement = self.count_and_judge()

    def count_and_judge(self) -> Judgement:
        """Do what Evidently's report does."""
        return judge(self._baseline, self._counter.count(self._current), Rules())

    def judge_ms(self) -> float:
        """Return the median time to judge what was counted, in milliseconds."""
        return 1000 * seconds(lambda: judge(self._baseline, self._counts, Rules()))

    def verdicts(self) -> tuple[list[bool], list[bool]]:
        """Return of each feature whether its PSI, and whether its KS statistic, says that it has drifted."""
        features = self.judgement.features
        ks = np.array([column.ks for column in features])
        n, m = (np.array([column.n for column in columns]) for columns in (self._baseline.features, features))
        by_psi = [column.psi is not None and column.psi >= _MIN_PSI for column in features]
        return by_psi, (ks_p_value(ks, n, m) <= _MAX_P).tolist()


def seconds(work: Callable[[], object]) -> float:
    """Return the median time of `work`."""
    taken = []
    for _ in range(_OUR_RUNS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _beside_evidently(runs: int, seed: int) -> dict[str, Any]:
    pairs = draw_pairs(seed)
    wide = _wide(seed)
    said = evidently_peer.ask({name: (pair, runs) for name, pair in pairs.items()} | {"wide": (wide, 1)})
    ours = {name: Judging(pair) for name, pair in (pairs | {"wide": wide}).items()}
    ours_s = {name: seconds(judging.count_and_judge) for name, judging in ours.items()}
    ratios = {name: median(said[name].report_s) / ours_s[name] for name in ours}
    compared = compare({name: judging.verdicts() for name, judging in ours.items()}, said)
    return {
        "evidently_ratio": round(median(ratios[name] for name in pairs), 1),
        "evidently_ratio_100_features": round(ratios["wide"], 1),
        "evidently_tests_ratio": round(median(median(said[name].tests_s) / ours_s[name] for name in pairs), 1),
        "evidently_ms": round(1000 * median(median(said[name].report_s) for name in pairs), 1),
        "count_and_judge_ms": round(1000 * median(ours_s[name] for name in pairs), 3),
        **compared,
    }


def compare(ours: Mapping[str, tuple[list[bool], list[bool]]], said: Mapping[str, Said]) -> dict[str, Any]:
    """Return whether both sides say of the same features that they have drifted, by PSI or by KS.

    `ours` holds by pair the verdicts by PSI and by KS. `one_test_differs` counts features by pair and test.
    """
    drifted: dict[str, int] = {}
    differing: list[str] = []
    alone: dict[str, dict[str, int]] = {}
    for name, (by_psi, by_ks) in ours.items():
        psi, ks = np.array([by_psi, said[name].psi.drifted]), np.array([by_ks, said[name].ks.drifted])
        us, them = psi | ks
        differing += [f"{name} f{place}" for place in np.flatnonzero(us != them)]
        alone[name] = {test: int((both[0] != both[1]).sum()) for test, both in (("psi", psi), ("ks", ks))}
        drifted[name] = int(us.sum())
    return {
        "verdicts_agree": not differing,
        "verdicts": sum(len(by_psi) for by_psi, _ in ours.values()),
        "drifted": drifted,
        "one_test_differs": alone,
        **({"verdicts_that_differ": differing} if differing else {}),
    }


def draw_pairs(seed: int) -> dict[str, Pair]:
    """Return pairs of samples of 10 features; in all but the first the even features have moved."""
    random = np.random.default_rng(seed)

    def normal(rows: int) -> NDArray[np.float64]:
        return random.normal(size=(rows, _FEATURES))

    def pair(reference: NDArray[np.float64], current: NDArray[np.float64], moved: NDArray[np.float64]) -> Pair:
        values = current.copy()
        values[:, ::2] = moved[:, ::2]
        return Pair(reference.astype(np.float32), values.astype(np.float32))

    shifted, miles = normal(_CURRENT_ROWS), np.exp(6 + 0.6 * normal(_CURRENT_ROWS))
    still, heavy = random.standard_t(2, size=(2, _CURRENT_ROWS, _FEATURES))
    return {
        "null": pair(normal(_REFERENCE_ROWS), shifted, shifted),
        "half_sigma": pair(normal(_REFERENCE_ROWS), shifted, shifted + 0.5),
        "heavy_tails": pair(random.standard_t(2, size=(_REFERENCE_ROWS, _FEATURES)), still, 1.5 * heavy),
        "kilometres": pair(np.exp(6 + 0.6 * normal(_REFERENCE_ROWS)), miles, miles * _KM_PER_MILE),
    }


def _wide(seed: int) -> Pair:
    """Return a pair of 100 features; the even ones have moved by half a deviation."""
    random = np.random.default_rng(seed + 1)
    current = random.normal(size=(_CURRENT_ROWS, _MANY))
    current[:, ::2] += 0.5
    return Pair(random.normal(size=(_REFERENCE_ROWS, _MANY)).astype(np.float32), current.astype(np.float32))
