"""Prequential evaluation: mergeable tallies, windows that ripen, gates on the ripe ones. `evaluator` is the way in."""
