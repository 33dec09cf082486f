"""Does everything have exactly its one outcome, whatever happens to the workers and the broker?

Again and again a worker of a stream on Apache Kafka is killed (kill -9), but only after it has worked since its
last start, and is started again. In between, one worker is frozen for longer than the session time-out, one is told to
end, and the broker is restarted. Then the stream drains, and a plain `read_committed` reader counts. The exit code
is 1 unless everything is right.

--stage score: two workers score events, 1% of them bad. Every good event must have exactly one prediction, every
bad one exactly one dead letter.

--stage learn: two workers join labels, evaluate and learn, and owners of the join and of the learners are struck in
turn. Every label must have exactly its outcome, and every model, snapshot and figure must be what one
uninterrupted fold over the samples log gives.

--stage drift: one worker, then two, then three score, count and judge a million events, and some that own partitions
are killed; nothing else happens. The committed partial histograms must add up to what one pass over the events gives.

--stage rollout: two workers with all roles score the demo's flights, while a better model is rolled out and then a
worse one. The first must be promoted by itself and the second go back, every prediction must be by the model that its
bucket says, and a roll-back must take effect within two seconds.

--stage train: two workers train anew, and owners of the stage and the processes of its runs are killed in every phase.
Each request must end once, each run register one model, and all the same one, because they train on the same samples.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import chaos_drift, chaos_learn, chaos_rollout, chaos_score, chaos_train

_PLAYS: Final = {
    "score": chaos_score.play,
    "learn": chaos_learn.play,
    "drift": chaos_drift.play,
    "rollout": chaos_rollout.play,
    "train": chaos_train.play,
}
_KILLS: Final = {"score": 20, "learn": 20, "drift": 4, "rollout": 8, "train": 18}
_RATES: Final = {"score": 3_000, "learn": 1_000, "drift": 10_000, "rollout": 1_000, "train": 1_000}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=list(_PLAYS), default="score", help="what is struck and checked")
    parser.add_argument(
        "--kills",
        type=int,
        help="how often a worker is killed, at least once (20; drift: 4; rollout: 8 at least; train: 18)",
    )
    parser.add_argument("--only-kills", action="store_true", help="freeze, end and restart nothing")
    parser.add_argument("--rate", type=int, help="events per second (score: 3,000, drift: 10,000, others: 1,000)")
    parser.add_argument("--events", type=int, default=1_000_000, help="the least number of events, in the stage drift")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.add_argument(
        "--plant",
        choices=["skip", "double", "swap"],
        help="add a fault on purpose, to see it found: something is left out, there twice, or (rollout) under the name "
        "of another variant",
    )
    arguments = parser.parse_args(words)
    if arguments.plant == "swap" and arguments.stage != "rollout":
        parser.error("only predictions of the stage rollout can be swapped")
    arguments.kills = arguments.kills or _KILLS[arguments.stage]
    arguments.rate = arguments.rate or _RATES[arguments.stage]
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Play it, count, print and write the result. Returns 1 when something has not exactly its one outcome."""
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    right, result = _PLAYS[arguments.stage](arguments, tell)
    result["seconds"] = round(time.monotonic() - began)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if right else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes of ours end with us
    sys.exit(run(parse()))
