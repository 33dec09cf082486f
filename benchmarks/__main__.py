"""`make bench ARGS="score --json bench.json"`, or `python -m benchmarks score`."""

import argparse
import signal
import sys

from benchmarks import (
    bad_input,
    capacity,
    drift,
    experiments,
    learn,
    many_streams,
    page,
    replay,
    scaling,
    score,
    steady,
    swap,
    topic_bytes,
    training,
)
from benchmarks.peers import bench as peers

_BENCHMARKS = (
    *(peers, score, replay, training, learn, drift, experiments, bad_input, swap, page),
    *(capacity, scaling, many_streams, steady, topic_bytes),
)


def main() -> int:
    """Run the benchmark that the command line names; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes of ours end with us
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for benchmark in _BENCHMARKS:
        benchmark.add_command(commands)
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
