"""Compare: a stage that says which variant of an experiment is better, and takes a rollout's steps (see `stage`).

`history` knows what each deployment routed, `reader` reads the logs, `folding` adds up what `tracked` tells of an
experiment and `shadows` of shadows; `telling`, `reports` and `gauges` say what came of it.
"""

from agents.compare.stage import INLINE_BYTES, STAGE, Compare

__all__ = ["INLINE_BYTES", "STAGE", "Compare"]
