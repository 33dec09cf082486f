"""Evidently's own verdicts on pairs of samples, and how long they take it. Runs in an environment that has Evidently.

    python runner.py SAMPLES PAIR=RUNS...

SAMPLES is a .npz file that holds, by pair, `<pair>.reference` and `<pair>.current`, of shape (rows, columns). Writes
JSON: by pair the values of both statistics, which columns each says have drifted, and the seconds of each run. A run of
the first pair comes before all and does not count.

The report is as its documentation advises: the data drift preset, once with PSI and once with KS, in one report, with
the data definition given and the reference made into a Dataset beforehand. It draws its charts as well; there is no
option against that. So `tests_s` says what only its two tests take, called one by one on the columns.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import (
    ks_stat_test,
    psi_stat_test,
)
from evidently.legacy.core import ColumnType
from evidently.presets import DataDriftPreset

THRESHOLDS = {"psi": 0.1, "ks": 0.05}  # drifted: from the first on, and up to the second


class Pair:
    """A reference, made ready, and a current sample in a table."""

    def __init__(self, reference: Any, current: Any) -> None:
        names = [f"f{number}" for number in range(reference.shape[1])]
        self._definition = DataDefinition(numerical_columns=names)
        self._tables = [pd.DataFrame(values, columns=names) for values in (reference, current)]
        self._reference = Dataset.from_pandas(self._tables[0], data_definition=self._definition)

    def report(self) -> dict[str, Any]:
        """Return what Evidently's report says."""
        presets = [DataDriftPreset(num_method=name, num_threshold=limit) for name, limit in THRESHOLDS.items()]
        current = Dataset.from_pandas(self._tables[1], data_definition=self._definition)
        said: dict[str, Any] = Report(presets).run(current, self._reference).dict()
        return said

    def tests(self) -> None:
        """Run the two tests on each column, without a report."""
        reference, current = self._tables
        for name in reference:
            for test in (psi_stat_test, ks_stat_test):
                test.func(reference[name], current[name], ColumnType.Numerical, THRESHOLDS[test.name])


def verdicts(report: dict[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Return by statistic its value for each column, and whether that is drift."""
    found: dict[str, dict[str, list[Any]]] = {name: {"values": [], "drifted": []} for name in THRESHOLDS}
    for metric in report["metrics"]:
        config = metric["config"]
        if "method" in config:
            name, value = config["method"], float(metric["value"])
            found[name]["values"].append(value)
            limit = config["threshold"]
            found[name]["drifted"].append(value >= limit if name == "psi" else value <= limit)
    return found


def timed(work: Callable[[], Any], runs: int) -> tuple[Any, list[float]]:
    """Return what `work` gave the last time, and how long each of `runs` runs took, in seconds."""
    given, taken = None, []
    for _ in range(runs):
        began = time.perf_counter()
        given = work()
        taken.append(time.perf_counter() - began)
    return given, taken


def main(samples: str, *wanted: str) -> None:
    """Write what Evidently makes of the samples."""
    warnings.simplefilter("ignore")
    said: dict[str, dict[str, Any]] = {}
    with np.load(samples) as arrays:
        for word in wanted:
            name, runs = word.split("=")
            pair = Pair(arrays[f"{name}.reference"], arrays[f"{name}.current"])
            if not said:
                pair.report()
            report, report_s = timed(pair.report, int(runs))
            _, tests_s = timed(pair.tests, int(runs))
            said[name] = verdicts(report) | {"report_s": report_s, "tests_s": tests_s}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
