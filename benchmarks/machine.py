"""Where a benchmark runs: what to write beside its numbers, and which cores to give to whom."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """The cores of the measured process, and those of the broker and everything else."""

    contestant: frozenset[int]
    others: frozenset[int]


def split_cores() -> Cores | None:
    """Give one core to the contestant and the rest to the others; None when there is only one core to use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(usable[-1:]), frozenset(usable[:-1])) if len(usable) > 1 else None


def describe() -> dict[str, object]:
    """Return what a reader must know to compare numbers of two runs."""
    packages = ("aiokafka", "msgspec", "numpy", "xgboost-cpu")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
