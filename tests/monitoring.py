"""A real Prometheus for tests, with the rules and the scrape job that are deployed, quickened."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from deploy.dashboards import DASHBOARDS
from tests.command_line import free_port
from tests.conftest import not_here

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
STEP_S = 1
_START_S = 20.0
_SHORT_RATE = "15s"
_OPERATOR = re.compile(
    r"^(?:or|(?:unless|and) on \(\w+\))\s", re.MULTILINE
)  # between a rule's parts, each on lines of its own
_ABSENT = re.compile(r"^absent\((.+)\)$")
_COMPARISON = re.compile(r"\s*(?:>=|<=|>|<|==|!=)\s*-?[\d.]+")


class Expression(NamedTuple):
    """PromQL and where it stands."""

    place: str
    text: str


def rules() -> list[dict[str, Any]]:
    """Return every alert rule."""
    return [rule for rule in _all_rules() if "alert" in rule]


def records() -> list[dict[str, Any]]:
    """Return what is recorded for the rules."""
    return [rule for rule in _all_rules() if "record" in rule]


def _all_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def compared(rule: dict[str, Any]) -> Iterator[Expression]:
    """Yield what a rule compares with numbers, part by part: with the numbers, a healthy worker has no answer."""
    bare = _ABSENT.sub(r"\1", _COMPARISON.sub("", _hurried(rule["expr"])))
    for number, part in enumerate(_OPERATOR.split(bare), start=1):
        yield Expression(f"{rule['alert']}, part {number}", part)


def panel_expressions(stream: str) -> Iterator[Expression]:
    """Yield the query of every panel, with the variables that Grafana fills in."""
    for board in DASHBOARDS:
        for panel in board.panels:
            for number, query in enumerate(panel.queries, start=1):
                filled = query.expr.replace("$stream", stream).replace("$__rate_interval", _SHORT_RATE)
                yield Expression(f"{board.name}: {panel.title}, query {number}", filled)


class Prometheus:
    """A server that scrapes one worker each second."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.started = time.time()

    def values(self, expression: str) -> list[float]:
        """Return every value that the expression has had since the start, of any series; NaN is none."""
        times = {"start": self.started, "end": time.time(), "step": STEP_S}
        found = self.get("query_range", query=expression, **times)["result"]
        values = [float(value) for series in found for _, value in series["values"]]
        return [value for value in values if value == value]

    def get(self, path: str, **parameters: Any) -> Any:
        """Ask the API; raises HTTPError with the answer to a query that is none."""
        with urlopen(f"{self.address}/api/v1/{path}?{urlencode(parameters)}", timeout=20) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def answers(self) -> bool:
        try:
            with urlopen(f"{self.address}/-/ready", timeout=5):
                return True
        except (URLError, ConnectionError):
            return False


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run Debian's Prometheus on `deploy/prometheus`, with `target` for the workers and a second for every interval."""
    program = which("prometheus") or not_here("prometheus is not installed (Debian: apt-get install prometheus)")
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(_quickened(target))
    (folder / RULES.name).write_text(_hurried(RULES.read_text()))
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        give_up = time.monotonic() + _START_S
        while not server.answers():
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < give_up, "Prometheus does not start"
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _quickened(target: str) -> str:
    document = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    document["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    assert document["rule_files"] == [RULES.name], "the tests have this one only"
    [job] = document["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    del document["alerting"]  # nobody would answer
    text: str = yaml.safe_dump(document)
    return text


def _hurried(text: str) -> str:
    """Let rules look at times that a test has: not a day ago, and not ten minutes apart."""
    return text.replace("[7d:10m]", "[10m:1s]").replace("[1h] offset 1d", "[1h]")
