"""The demo's data: what a flight's event and label are, that nothing leaks, and how the file is built."""

import csv
import dataclasses
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.csv_columns import read_matrix
from app.demo.build_flights import build
from app.demo.champion import champion_auc, roc_auc, train_champion, write_training_rows
from app.demo.flights import (
    COLUMNS,
    DATA_FILE,
    FEATURES,
    NO_LABEL,
    Flights,
    carrier,
    flights_stream,
    load_flights,
    replay,
    replay_start,
)

MINUTE_MS = 60_000
# month, day, sched_dep_time, sched_minutes, carrier, flight, tailnum, dest, distance, arr_delay
WINTER = ["1", "1", "515", "244", "UA", "1545", "N14228", "IAH", "1400", "11"]
SUMMER = ["7", "4", "515", "244", "UA", "1545", "N14228", "IAH", "1400", "16"]
OVERNIGHT = ["12", "31", "2359", "220", "B6", "707", "N1", "SJU", "1608", "-5"]
CANCELLED = ["12", "31", "2359", "220", "UA", "9", "", "SJU", "1608", ""]


@pytest.fixture(scope="module")
def flights() -> Flights:
    return load_flights()


def loaded(folder: Path, *rows: list[str]) -> Flights:
    path = folder / "flights.csv.gz"
    path.write_bytes(gzip.compress("\n".join(",".join(row) for row in ([*COLUMNS], *rows)).encode()))
    return load_flights(path)


def utc_ms(year: int, month: int, day: int, hour: int, minute: int) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


def test_the_file_holds_every_departure_from_newark_once_and_in_order(flights: Flights) -> None:
    assert len(flights) == 120_835
    assert len(set(flights.event_ids)) == len(flights)
    assert (np.diff(flights.event_time_ms) >= 0).all()
    assert DATA_FILE.stat().st_size < 1_300_000


def test_the_event_time_is_the_scheduled_departure_by_the_clocks_of_new_york(tmp_path: Path) -> None:
    assert loaded(tmp_path, WINTER, SUMMER).event_time_ms.tolist() == [
        utc_ms(2013, 1, 1, 10, 15),
        utc_ms(2013, 7, 4, 9, 15),
    ]


def test_clocks_change_between_two_days_of_march_and_of_november(tmp_path: Path) -> None:
    rows = [[month, day, "600", *WINTER[3:]] for month, day in (("3", "9"), ("3", "10"), ("11", "2"), ("11", "3"))]
    hours = loaded(tmp_path, *rows).event_time_ms // 3_600_000 % 24
    assert hours.tolist() == [11, 10, 10, 11]


def test_the_label_says_more_than_15_minutes_late_and_comes_when_the_flight_lands(tmp_path: Path) -> None:
    flights = loaded(tmp_path, WINTER, [*WINTER[:-1], "15"], SUMMER, OVERNIGHT)
    assert flights.labels.tolist() == [0, 0, 1, 0]
    assert ((flights.label_time_ms - flights.event_time_ms) // MINUTE_MS).tolist() == [255, 259, 260, 215]
    assert flights.label_time_ms[3] == utc_ms(2014, 1, 1, 8, 34)


def test_a_cancelled_flight_never_gets_a_label(tmp_path: Path, flights: Flights) -> None:
    assert loaded(tmp_path, CANCELLED).labels.tolist() == [NO_LABEL]
    assert int((flights.labels == NO_LABEL).sum()) == 3_708
    assert ((flights.label_time_ms == NO_LABEL) == (flights.labels == NO_LABEL)).all()


def test_labels_come_about_165_minutes_after_their_events(flights: Flights) -> None:
    labelled = flights.labels != NO_LABEL
    delays = (flights.label_time_ms - flights.event_time_ms)[labelled] / MINUTE_MS
    assert delays.min() > 0
    assert 160 <= np.median(delays) <= 175


def test_the_entity_is_the_aircraft_or_else_carrier_and_flight_number(tmp_path: Path) -> None:
    assert loaded(tmp_path, WINTER, CANCELLED).entity_ids == ["N14228", "UA9"]


def test_the_features_are_what_the_timetable_says(tmp_path: Path) -> None:
    flights = loaded(tmp_path, WINTER, OVERNIGHT, CANCELLED)
    assert [dict(zip(FEATURES, row, strict=True)) for row in flights.features.tolist()[:2]] == [
        {
            "month": 1,
            "weekday": 1,  # the first of January 2013 was a Tuesday
            "departure_minute": 315,
            "scheduled_minutes": 244,
            "distance_miles": 1400,
            "carrier": 1,
            "destination": 0,
            "flight_number": 1545,
            "departures_in_hour": 1,
        },
        {
            "month": 12,
            "weekday": 1,
            "departure_minute": 1439,
            "scheduled_minutes": 220,
            "distance_miles": 1608,
            "carrier": 0,
            "destination": 1,
            "flight_number": 707,
            "departures_in_hour": 2,
        },
    ]


def test_no_feature_depends_on_how_the_flight_went(tmp_path: Path) -> None:
    on_time = loaded(tmp_path, WINTER, OVERNIGHT)
    otherwise = loaded(tmp_path, [*WINTER[:-1], "300"], [*OVERNIGHT[:-1], ""])
    assert (on_time.features == otherwise.features).all()
    assert on_time.event_ids == otherwise.event_ids


def test_the_airline_is_read_from_the_event_id(tmp_path: Path) -> None:
    flights = loaded(tmp_path, WINTER, OVERNIGHT)
    assert [carrier(flights, row) for row in range(2)] == ["UA", "B6"]


def test_the_stream_declares_the_features_of_the_file(flights: Flights) -> None:
    spec = flights_stream()
    assert spec.problems() == []
    assert len(spec.features) == flights.features.shape[1]


def test_every_label_of_the_file_is_inside_the_streams_window(flights: Flights) -> None:
    landed = flights.labels != NO_LABEL
    delays_ms = (flights.label_time_ms - flights.event_time_ms)[landed]
    assert delays_ms.min() > 0
    assert delays_ms.max() <= flights_stream().join.window_minutes * 60_000


def test_the_replay_sends_each_departure_and_each_landing_once_when_its_time_comes(flights: Flights) -> None:
    start, stop = flights.first_at(replay_start()), flights.first_at(replay_start()) + 3_000
    moments = list(replay(flights, start, stop))
    departures = [moment.row for moment in moments if not moment.is_label]
    landings = [moment.row for moment in moments if moment.is_label]
    assert departures == list(range(start, stop))
    assert sorted(landings) == [row for row in departures if flights.labels[row] != NO_LABEL]
    times = [(flights.label_time_ms if m.is_label else flights.event_time_ms)[m.row] for m in moments]
    assert times == sorted(times)


def test_the_replay_begins_after_january(flights: Flights) -> None:
    start = flights.first_at(replay_start())
    months = flights.features[:, FEATURES.index("month")]
    assert months[start - 1] == 1
    assert months[start] == 2


def test_the_champion_is_as_good_as_a_timetable_allows(flights: Flights) -> None:
    assert 0.58 <= champion_auc(train_champion(flights, seed=0), flights) <= 0.75


def test_the_champion_learns_nothing_from_shuffled_labels(flights: Flights) -> None:
    shuffled = dataclasses.replace(flights, labels=np.random.default_rng(0).permutation(flights.labels))
    assert champion_auc(train_champion(shuffled, seed=0), flights) == pytest.approx(0.5, abs=0.02)


def test_the_champion_is_trained_on_what_was_known_by_the_end_of_january(flights: Flights) -> None:
    later = flights.label_time_ms >= replay_start().timestamp() * 1000
    changed = dataclasses.replace(flights, labels=np.where(later, 1, flights.labels).astype(np.int8))
    champion = train_champion(flights, seed=1)
    assert train_champion(changed, seed=1).save_raw("ubj") == champion.save_raw("ubj")
    assert train_champion(flights, seed=2).save_raw("ubj") != champion.save_raw("ubj")


def test_the_baseline_is_made_of_the_rows_that_the_champion_was_trained_on(flights: Flights, tmp_path: Path) -> None:
    write_training_rows(flights, tmp_path / "rows.csv")
    rows = read_matrix(tmp_path / "rows.csv", FEATURES)
    landed = (flights.label_time_ms != NO_LABEL) & (flights.label_time_ms < replay_start().timestamp() * 1000)
    assert 9_000 < len(rows) < flights.first_at(replay_start())
    assert np.array_equal(rows, flights.features[landed].astype(np.float32))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=30))
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[int, int]]) -> None:
    late = [score for label, score in pairs if label]
    punctual = [score for label, score in pairs if not label]
    if not late or not punctual:
        return
    wins = sum((a > b) + (a == b) / 2 for a in late for b in punctual)
    labels, scores = np.array(pairs).T
    result = roc_auc(labels.astype(np.int8), scores.astype(np.float32))
    assert result == pytest.approx(wins / (len(late) * len(punctual)))


SOURCE = """year,month,day,sched_dep_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,distance
2013,7,1,1000,1130,NA,UA,2,NA,EWR,PHX,2133
2013,1,1,2359,444,-5,B6,707,N1,EWR,SJU,1608
2013,1,1,600,700,3,UA,9,N2,LGA,ORD,733
2013,1,1,600,723,3,UA,10,N3,EWR,ORD,719
2013,1,1,600,1000,20,AA,11,N4,EWR,MIA,1085
"""
AIRPORTS = """faa,tzone
PHX,America/Phoenix
ORD,America/Chicago
MIA,America/New_York
"""


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("flights.csv", SOURCE)
    path = tmp_path / "source.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (("flights.csv.zip", zipped.getvalue()), ("airports.csv", AIRPORTS.encode())):
            member = tarfile.TarInfo(f"source/data/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def built(sdist: Path) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(gzip.decompress(build(sdist)).decode()))


def test_the_file_is_built_sorted_from_newarks_departures_alone(sdist: Path) -> None:
    rows = list(built(sdist))
    assert [row["carrier"] + row["flight"] for row in rows] == ["AA11", "UA10", "B6707", "UA2"]
    assert tuple(rows[0]) == COLUMNS
    assert (rows[3]["tailnum"], rows[3]["arr_delay"]) == ("", "")


def test_scheduled_minutes_count_time_zones_and_midnight(sdist: Path) -> None:
    minutes = {row["dest"]: int(row["sched_minutes"]) for row in built(sdist)}
    # Miami has New York's clocks, Chicago is an hour behind, San Juan an hour ahead in winter, Phoenix three behind
    # in summer.
    assert minutes == {"MIA": 240, "ORD": 143, "SJU": 225, "PHX": 270}


def test_building_twice_gives_the_same_bytes(sdist: Path) -> None:
    assert build(sdist) == build(sdist)
