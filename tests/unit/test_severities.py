"""Severities are one ladder, wherever they are told."""

from itertools import pairwise
from typing import get_args, get_type_hints

from ml.drift.judgement import Judgement
from schemas.drift import DriftSeverity
from schemas.event import SEVERITY_RANKS, Severity


def test_every_severity_has_a_rank_and_none_is_below_all_others() -> None:
    ladder = get_args(DriftSeverity)
    assert set(SEVERITY_RANKS) == set(ladder)
    assert ladder == ("none", *get_args(Severity)) == get_args(get_type_hints(Judgement)["severity"])
    assert all(SEVERITY_RANKS[lower] < SEVERITY_RANKS[upper] for lower, upper in pairwise(ladder))
