"""Alerts that reach people: the stage that delivers a stream's alerts to the sinks that want them."""
