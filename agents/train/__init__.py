"""Train: requests to train anew become runs, and a run one candidate or one recorded failure.

`queue` is where requests are, `stage` works on one run at a time, `process` is where that is computed, by `run`, and
`ending` is what is written when it is over; then `leftovers` are cleared. A run's `job` says what passes between the
two processes.
"""

from agents.train.leftovers import clear_leftovers
from agents.train.process import run_apart
from agents.train.stage import STAGE, Train
from agents.train.world import Doing, World

__all__ = ["STAGE", "Doing", "Train", "World", "clear_leftovers", "run_apart"]
