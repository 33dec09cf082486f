"""Learn: a stage that folds samples into a model (`stage`), and what it needs.

`reader` turns records into columns, `hosts` are where the learner lives, `publishing` makes versions of its snapshots,
and `lineage` is what is known of those.
"""

from agents.learn.stage import STAGE, Learn, LearnState, opener_of

__all__ = ["STAGE", "Learn", "LearnState", "opener_of"]
