"""Notify: delivers a stream's alerts to the sinks that want them.

`queue` is what waits, `originals` has its records, `desk` knows what of it is durable, `lane` delivers to one sink, and
`stage` takes alerts in.
"""

from agents.notify.desk import STAGE
from agents.notify.lane import Outlet
from agents.notify.stage import Notify

__all__ = ["STAGE", "Notify", "Outlet"]
