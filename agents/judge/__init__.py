"""Judge: a stage that adds partial histograms up into windows (`windows`) and says of each whether it has drifted.

`partials` reads the log, `references` keeps baselines at hand, and `alerts` knows what people have been told already.
"""

from agents.judge.stage import STAGE, Judge

__all__ = ["STAGE", "Judge"]
