"""Replay: history runs through the code that judges, once as it was served, and once as it would have been."""
