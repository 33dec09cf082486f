"""Experiments: who gets which variant, and which one is better. Pure; see `monitor`."""
