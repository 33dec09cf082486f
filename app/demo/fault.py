"""The fault that the demo plants: from a moment on, one airline sends its distances in kilometres.

Every value is a number that the feature may have, so nothing refuses it: only the distribution tells.
"""

from dataclasses import dataclass
from typing import Final

from app.demo.flights import DRIFT_WINDOW_EVENTS, Flights, carrier
from app.demo.records import Event

FEATURE: Final = "distance_miles"
CARRIER: Final = "UA"  # United flies two in five of these flights
KILOMETRES: Final = 1.609344  # in an international mile
_LEAST_WINDOWS: Final = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """From flight `first_row` on, CARRIER's FEATURE is in kilometres; `first_row` None is no fault."""

    first_row: int | None = None

    def hits(self, flights: Flights, row: int) -> bool:
        """Return whether the event of flight `row` is changed."""
        return self.first_row is not None and row >= self.first_row and carrier(flights, row) == CARRIER


def fault_events(events: int) -> int:
    """Return how many events at the end of a replay of `events` are after the fault's beginning.

    A tenth, but enough for some drift windows, unless that were more than half of the replay.
    """
    return min(max(events // 10, _LEAST_WINDOWS * DRIFT_WINDOW_EVENTS), events // 2)


def in_kilometres(event: Event) -> Event:
    """Return the feature event with its distance converted, to a tenth."""
    features = event["features"]
    return {**event, "features": {**features, FEATURE: round(features[FEATURE] * KILOMETRES, 1)}}
