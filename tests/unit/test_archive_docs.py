"""The queries of docs/archive.md do what the page says, with DuckDB and with pandas."""

import asyncio
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.streams import StreamSpec
from tests.archiving import DAY_MS, Bench, Store, entry, spec_of

PAGE = Path(__file__).parents[2] / "docs" / "archive.md"
JUNE_MS = 1_748_779_200_000  # 2025-06-01 12:00 UTC


def code(language: str) -> str:
    """Return the page's only piece of code in a language, for the stream `s`."""
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found).replace("archive/flights", "archive/s")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of 29 events about the first of June, of which one was corrected; the newest have a feature more."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(_archive(tmp_path))
    return tmp_path


async def _archive(root: Path) -> None:
    before, now = (_spec(features) for features in (("a",), ("a", "b")))
    log = [_entry(i) for i in range(20)] + [_entry(i, features=(1.0, 0.5)) for i in range(20, 29)]
    log.append(_entry(29, event_id="e3", revision=1, label=0, replaces=1, features=(1.0, 0.5), event_time=3))
    memory = None
    for spec, start, stop in ((before, 0, 20), (now, 20, 30)):
        bench = await Bench(spec, log, Store(root), memory).open(start)
        await bench.take(log[start:stop])
        await bench.archived(stop)
        await bench.stage.close()
        memory = bench.memory


def _spec(features: tuple[str, ...]) -> StreamSpec:
    return spec_of(samples=10, features=features)


def _entry(number: int, **changes: Any) -> Any:
    day = changes.pop("event_time", number) % 2 - 1  # the last of May, and the first of June
    return entry(number, event_time_ms=JUNE_MS + day * DAY_MS, **{"model_id": f"m{number % 2}"} | changes)


def test_duckdb_finds_the_newest_label_of_every_event(archive: Path) -> None:
    with duckdb.connect() as database:
        found = database.execute(code("sql")).fetchall()
        assert [(model, month.month, events, accuracy) for model, month, events, accuracy in found] == [
            ("m0", 5, 15, 1.0),
            ("m1", 6, 14, 13 / 14),
        ]
        later = database.execute("SELECT count(*), count(f_b) FROM samples WHERE date >= '2025-06-01'").fetchall()
        assert later == [(14, 5)]


def test_pandas_finds_the_newest_label_of_every_event_since_a_date(archive: Path) -> None:
    found: dict[str, Any] = {}
    exec(code("python"), found)
    assert found["accuracy"].to_dict() == {"m1": 13 / 14}
    assert list(found["features"].columns) == ["f_a"]
    assert found["newest"].set_index("event_id").label["e3"] == 0
    assert str(found["samples"].event_time.dt.tz) == "UTC"
