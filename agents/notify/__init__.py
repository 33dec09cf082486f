"""Notify: delivers a stream's alerts to the sinks that want them.

`queue` is what waits, `lane` delivers to one sink, and `stage` takes alerts in and writes down what became of them.
"""

from agents.notify.lane import Outlet
from agents.notify.stage import STAGE, Notify

__all__ = ["STAGE", "Notify", "Outlet"]
