"""Evidently beside `ml.drift`, on the same pairs of samples. Evidently lives in an environment of its own."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.environments import python_of

_PEER: Final = Path(__file__).with_name("peers") / "evidently"
_RUN_TIMEOUT_S: Final = 600


class Pair(NamedTuple):
    """A reference and a current sample, float32 of shape (rows, columns)."""

    reference: NDArray[np.float32]
    current: NDArray[np.float32]


class Statistic(msgspec.Struct, frozen=True):
    """What a statistic is of each column, and whether that is drift."""

    values: list[float]
    drifted: list[bool]


class Said(msgspec.Struct, frozen=True):
    """What Evidently says of a pair, and how long each of its reports took, and each time its two tests alone."""

    psi: Statistic
    ks: Statistic
    report_s: list[float]
    tests_s: list[float]


def ask(pairs: Mapping[str, tuple[Pair, int]]) -> dict[str, Said]:
    """Return what Evidently says of pairs, each of which it looks at so many times; about 0.2 s per column and time."""
    python = python_of(_PEER)  # about 500 MB
    with tempfile.TemporaryDirectory(prefix="penstock-evidently-") as folder:
        samples = Path(folder) / "samples.npz"
        arrays = {
            f"{name}.{side}": values for name, (pair, _) in pairs.items() for side, values in pair._asdict().items()
        }
        np.savez(samples, allow_pickle=False, **arrays)
        command: list[str | Path] = [
            python,
            _PEER / "runner.py",
            samples,
            *(f"{name}={runs}" for name, (_, runs) in pairs.items()),
        ]
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"DO_NOT_TRACK": "1"},
            stdout=subprocess.PIPE,
            timeout=_RUN_TIMEOUT_S,
            check=True,
        )
    return msgspec.json.decode(done.stdout, type=dict[str, Said])
