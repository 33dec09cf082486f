"""The records that the demo's producer sends: a flight's feature event, its label, and events spoilt on purpose."""

from collections.abc import Callable
from typing import Any, Final

import orjson

from app.demo.flights import FEATURES, Flights

Event = dict[str, Any]


def feature_event(flights: Flights, row: int, run: str = "") -> Event:
    """Return the feature event of flight `row` as a document; `run` ends its id."""
    return {
        "event_id": flights.event_ids[row] + run,
        "entity_id": flights.entity_ids[row],
        "event_time_ms": int(flights.event_time_ms[row]),
        "features": dict(zip(FEATURES, flights.features[row].tolist(), strict=True)),
    }


def label_event(flights: Flights, row: int, run: str = "") -> Event:
    """Return the label of flight `row`, which must have landed; `run` as in its feature event."""
    return {
        "event_id": flights.event_ids[row] + run,
        "entity_id": flights.entity_ids[row],
        "label": int(flights.labels[row]),
        "label_time_ms": int(flights.label_time_ms[row]),
    }


def encode(event: Event) -> bytes:
    """Return the document as JSON."""
    return orjson.dumps(event)


def spoilt(event: Event, kind: int) -> bytes:
    """Return `event` as a value that cannot be scored; kinds go round (0, 1, 2, …)."""
    return _SPOILERS[kind % len(_SPOILERS)](event)


def spoils(position: int, share: float) -> int | None:
    """Return the kind with which the event at `position` of the replay is spoilt, or None for a good one.

    Evenly spread: of the first n events, n * share (rounded) are spoilt. The first gap is half as long as the others,
    so that a round number of events does not end with a spoilt one, whose label would wait for its prediction.
    """
    kind = int(position * share + 0.5)
    return kind if int((position + 1) * share + 0.5) > kind else None


def _with_feature(event: Event, name: str, value: object) -> bytes:
    return encode({**event, "features": {**event["features"], name: value}})


def _without_feature(event: Event, name: str) -> bytes:
    return encode({**event, "features": {key: value for key, value in event["features"].items() if key != name}})


_SPOILERS: Final[tuple[Callable[[Event], bytes], ...]] = (
    lambda event: encode(event)[:-20],  # a producer that cuts its JSON off
    lambda event: _with_feature(event, "distance_miles", "far"),
    lambda event: _without_feature(event, "destination"),
    lambda event: _with_feature(event, "scheduled_minutes", 1e39),  # more than a 32-bit float holds
    lambda event: b"",
)
