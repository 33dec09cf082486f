"""The reference pages say what the code says."""

import sys

import pytest
from prometheus_client import generate_latest

from app.reference import FOLDER, PAGES
from stream.metric_values import Metrics


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_code_generates(name: str) -> None:
    stored = (FOLDER / name).read_text(encoding="utf-8")
    assert stored == PAGES[name](), "if that was meant, run `python -m app.reference`"


@pytest.mark.skipif(sys.platform != "linux", reason="the process's metrics are read from /proc")
def test_every_metric_that_a_worker_shows_is_on_the_page() -> None:
    page = PAGES["metrics.md"]()
    families = [
        line.split()[2] for line in generate_latest(Metrics().registry).decode().splitlines() if "# TYPE" in line
    ]
    assert len(families) > 10
    assert [name for name in families if f"`{name}`" not in page and not name.endswith("_created")] == []
