"""Train: requests to train anew become runs, and a run one candidate or one recorded failure.

`queue` is where requests are, `stage` works on one run at a time, `process` is where that is computed, by `run`, and
`ending` is what is written when it is over. A run's `job` says what passes between the two processes.
"""

from agents.train.process import run_apart
from agents.train.stage import STAGE, Train, World

__all__ = ["STAGE", "Train", "World", "run_apart"]
