"""Join: a stage that brings predictions and labels together (`stage`), and what it needs.

`reader` turns records into columns, `pending` keeps the predictions that wait and `waiting` the labels, `clock` says
how long, `matching` pairs them, and `writer` makes samples and dead letters.
"""

from agents.join.stage import STAGE, Join

__all__ = ["STAGE", "Join"]
