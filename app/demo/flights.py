"""2013's departures from Newark as a stream: will this flight arrive more than 15 minutes late?

A flight is one event at its scheduled departure, with what the timetable knows by then. Its label comes when it
lands; a cancelled or diverted flight never gets one. The source of the data is in docs/data.md.
"""

import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from schemas.streams import DriftSpec, EvaluationSpec, ExperimentSpec, JoinSpec, LearnerSpec, StreamSpec
from schemas.training import ArchiveSpec, TrainingSpec

DATA_FILE: Final = Path(__file__).with_name("flights_ewr_2013.csv.gz")
LOCAL_TIME: Final = ZoneInfo("America/New_York")
LATE_MINUTES: Final = 15
NO_LABEL: Final = -1
STREAM: Final = "flights"
ONLINE: Final = "online"  # the lineage of the model that learns while the champion serves
WINDOW_SAMPLES: Final = 2_000  # about six days
PUBLISH_SAMPLES: Final = 500
DRIFT_WINDOW_EVENTS: Final = 2_000  # about six days
ARCHIVE_SAMPLES: Final = 2_000  # in a chunk; the embedded broker holds some five of them

COLUMNS: Final = (
    "month",
    "day",
    "sched_dep_time",  # hhmm, local time in New York
    "sched_minutes",  # from scheduled departure to scheduled arrival
    "carrier",
    "flight",
    "tailnum",  # empty where the source has none
    "dest",
    "distance",  # miles
    "arr_delay",  # minutes, negative when early; empty when cancelled or diverted
)
FEATURES: Final = (
    "month",
    "weekday",  # Monday is 0
    "departure_minute",  # of the day, local time
    "scheduled_minutes",
    "distance_miles",
    "carrier",  # position in the sorted codes of the file
    "destination",  # likewise
    "flight_number",
    "departures_in_hour",  # how many flights the timetable has in this hour
)
_NUMBERS: Final = ("month", "day", "sched_dep_time", "sched_minutes", "flight", "distance")
_YEAR: Final = 2013
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=LOCAL_TIME)
_EPOCH_WEEKDAY: Final = 3  # a Thursday

Integers = NDArray[np.int64]
_Clock = TypeVar("_Clock", int, Integers)


@dataclass(frozen=True, slots=True)
class Flights:
    """n flights in the order of their scheduled departure, as columns.

    `features` is int32 (n, len(FEATURES)), all known when the flight is scheduled. `labels` is int8 (n,): 1 for
    more than 15 minutes late, 0 for not, NO_LABEL for a flight that did not arrive where it was going. Both
    times are int64 (n,) milliseconds since the epoch; `label_time_ms` is the landing, or NO_LABEL.
    """

    event_ids: list[str]
    entity_ids: list[str]
    event_time_ms: NDArray[np.int64]
    features: NDArray[np.int32]
    labels: NDArray[np.int8]
    label_time_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.event_ids)

    def first_at(self, when: datetime) -> int:
        """Return the position of the first flight scheduled at or after `when` (aware)."""
        return int(np.searchsorted(self.event_time_ms, int(when.timestamp() * 1000)))


class Moment(NamedTuple):
    """Something that happens in the replay: flight `row` is due to leave, or (`is_label`) lands."""

    row: int
    is_label: bool


def flights_stream() -> StreamSpec:
    """Return the declaration of the demo's stream.

    A threshold of 0.35 calls about as many flights late as are. A label is inside when it comes at most a day after
    its event: the latest landing of the file is 19.4 h after the scheduled departure.

    Every year has its months and every week its weekdays: they are counted, not judged. Against January, the year's
    distances move by a PSI of 0.10 and by 0.24 deviations at most, as new destinations come: what counts as drift
    here is more than that. A feature that has moved stays so for months, and is named again after four weeks only.

    Training is asked for on the first of each month, and when accuracy or drift ask for it, on all that the stream has
    seen. A candidate that passes its gates gets half of the traffic, and all of it when that went well: with a tenth, a
    verdict would take a month of flights.
    """
    return StreamSpec(
        name=STREAM,
        features=FEATURES,
        threshold=0.35,
        join=JoinSpec(window_minutes=24 * 60),
        evaluation=EvaluationSpec(window_samples=WINDOW_SAMPLES),
        drift=DriftSpec(
            window_events=DRIFT_WINDOW_EVENTS,
            min_psi=0.15,
            min_distance=0.3,
            only_counted=("month", "weekday"),
            cooldown_minutes=28 * 24 * 60,
        ),
        learners={
            ONLINE: LearnerSpec(
                algorithm="river-logistic",
                strategy="incremental",
                publish_every=PUBLISH_SAMPLES,
                shadow=True,
                # Three days pass in a second, and what serves is older than that by half a snapshot and its deployment:
                # faster learning would follow what is over by then.
                parameters={"learning_rate": 0.002},
            )
        },
        experiments=ExperimentSpec(steps=(0.5,)),
        archive=ArchiveSpec(samples=ARCHIVE_SAMPLES),
        training=TrainingSpec(
            days=366,
            min_samples=5_000,
            parameters={"max_depth": 4, "subsample": 0.8, "colsample_bytree": 0.8, "min_child_weight": 5},
            approve="rollout",
            schedule="0 4 1 * *",
            time_zone="America/New_York",
            cooldown_minutes=14 * 24 * 60,
        ),
    )


def replay_start() -> datetime:
    """Return when training ends and the replay begins: the first of February, local time."""
    return datetime(_YEAR, 2, 1, tzinfo=LOCAL_TIME)


def load_flights(path: Path = DATA_FILE) -> Flights:
    """Read the compact file that `build_flights` made; 120,835 flights in about 0.5 s."""
    with gzip.open(path, "rt", newline="") as file:
        header, *rows = csv.reader(io.StringIO(file.read(), newline=""))
    text = dict(zip(header, zip(*rows, strict=True), strict=True))
    number = {name: _integers(text[name]) for name in _NUMBERS}
    departs_ms = _departures_ms(number["month"], number["day"], number["sched_dep_time"])
    arrived = np.array([delay != "" for delay in text["arr_delay"]])
    delays = _integers([delay or "0" for delay in text["arr_delay"]])
    lands_ms = departs_ms + (number["sched_minutes"] + delays) * 60_000
    names = [carrier + flight for carrier, flight in zip(text["carrier"], text["flight"], strict=True)]
    columns = _features(text, number)
    days = [f"{_YEAR}-{month:0>2}-{day:0>2}" for month, day in zip(text["month"], text["day"], strict=True)]
    return Flights(
        event_ids=[f"{day}-{name}" for day, name in zip(days, names, strict=True)],
        entity_ids=[tail or name for tail, name in zip(text["tailnum"], names, strict=True)],
        event_time_ms=departs_ms,
        features=np.column_stack([columns[name] for name in FEATURES]).astype(np.int32),
        labels=np.where(arrived, delays > LATE_MINUTES, NO_LABEL).astype(np.int8),
        label_time_ms=np.where(arrived, lands_ms, NO_LABEL),
    )


def replay(flights: Flights, start: int, stop: int) -> Iterator[Moment]:
    """Yield the departures of flights start..stop-1 and their landings, in the order in which they happen.

    Of two things at the same time the departure comes first, so no label overtakes its own event.
    """
    rows = np.arange(start, stop)
    labelled = rows[flights.labels[start:stop] != NO_LABEL]
    times = np.concatenate([flights.event_time_ms[rows], flights.label_time_ms[labelled]])
    order = np.argsort(times, kind="stable")
    for row, is_label in zip(
        np.concatenate([rows, labelled])[order].tolist(), (order >= rows.size).tolist(), strict=True
    ):
        yield Moment(row, is_label)


def carrier(flights: Flights, row: int) -> str:
    """Return the airline's two characters: they stand in the event id, after the date."""
    return flights.event_ids[row][len("2013-01-01-") :][:2]


def minute_of_day(hhmm: _Clock) -> _Clock:
    """Return the minutes since midnight of a clock time written as the number hhmm, or of many."""
    return hhmm // 100 * 60 + hhmm % 100


def _features(text: Mapping[str, Sequence[str]], number: Mapping[str, Integers]) -> dict[str, Integers]:
    """Return one column per name in FEATURES."""
    days = _days(number["month"], number["day"])
    minutes = minute_of_day(number["sched_dep_time"])
    _, hour, departures = np.unique(days * 24 + minutes // 60, return_inverse=True, return_counts=True)
    return {
        "month": number["month"],
        "weekday": (days + _EPOCH_WEEKDAY) % 7,
        "departure_minute": minutes,
        "scheduled_minutes": number["sched_minutes"],
        "distance_miles": number["distance"],
        "carrier": _codes(text["carrier"]),
        "destination": _codes(text["dest"]),
        "flight_number": number["flight"],
        "departures_in_hour": departures[hour],
    }


def _departures_ms(month: Integers, day: Integers, hhmm: Integers) -> Integers:
    """Return local clock times as milliseconds since the epoch.

    Clocks change on the hour, so one look-up per hour is enough. Of an hour that comes twice in November the first
    is meant, and Newark schedules nothing in it or in the hour that March skips.
    """
    minutes = _days(month, day) * 1440 + minute_of_day(hhmm)
    hours, position = np.unique(minutes // 60, return_inverse=True)
    utc_ms = [(_EPOCH + timedelta(hours=hour)).timestamp() * 1000 for hour in hours.tolist()]
    return np.array(utc_ms, dtype=np.int64)[position] + minutes % 60 * 60_000


def _days(month: Integers, day: Integers) -> Integers:
    """Return dates of the year as days since the first of January 1970."""
    first = np.datetime64(f"{_YEAR}-01", "M") + (month - 1)
    return first.astype("datetime64[D]").astype(np.int64) + day - 1


def _codes(names: Sequence[str]) -> Integers:
    return np.unique(np.array(names), return_inverse=True)[1]


def _integers(texts: Sequence[str]) -> Integers:
    return np.fromiter(map(int, texts), dtype=np.int64, count=len(texts))
