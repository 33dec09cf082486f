"""What is deployed beside Penstock: dashboards as they are generated, rules that promtool takes, and words that fit."""

import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import yaml

from deploy.dashboards import DASHBOARDS, FOLDER, overview, rendered
from deploy.dashboards.panels import COLUMNS, STREAMS, Panel
from stream.metrics import METRICS
from tests.conftest import not_here
from tests.monitoring import DEPLOY, RULES, records, rules

_RUNTIME = {
    "ALERTS",
    "up",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}
_SERIES = re.compile(r"\b(?:ml_\w+|process_\w+|up|ALERTS)\b")
_RULE_OF = {
    "Waiting": "PenstockLagHigh",
    "Latency p99": "PenstockLatencyHigh",
    "Dead letters": "PenstockDeadLetters",
    "Drifted features": "PenstockDrift",
}
_COMPARED = re.compile(r" >=? ([\d.]+)$", re.MULTILINE)
_SUFFIXES = re.compile("_(bucket|count|sum)$")


def promtool(*arguments: str | Path) -> str:
    """Run Debian's promtool beside the rules; return what it says."""
    program = which("promtool") or not_here("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run([program, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dashboards_in_the_folder_are_the_generated_ones() -> None:
    found = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert found == rendered(), "run `python -m deploy.dashboards`"


def test_every_metric_is_on_a_dashboard_and_no_other_is() -> None:
    named = {
        name for board in DASHBOARDS for panel in board.panels for query in panel.queries for name in _in(query.expr)
    }
    known = {metric.name for metric in METRICS}
    assert named - known <= _RUNTIME
    assert known - named == set()
    assert {name for rule in (*rules(), *records()) for name in _in(rule["expr"])} <= known | _RUNTIME
    assert set(_SERIES.findall(STREAMS)) <= known


def _in(expression: str) -> set[str]:
    known = {metric.name for metric in METRICS}
    found = set(_SERIES.findall(re.sub(r'"[^"]*"', "", expression)))
    return {name if name in known else _SUFFIXES.sub("", name) for name in found}


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.name)
def test_panels_fill_rows_without_overlap_and_say_what_they_show(board: Any) -> None:
    document = board.document()
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in document["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert {x for x, _ in taken} == set(range(COLUMNS))
    assert all(len(panel["description"]) > 10 for panel in document["panels"])
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_uids_and_titles_are_each_dashboard_s_own() -> None:
    documents = [board.document() for board in DASHBOARDS]
    for field in ("uid", "title"):
        assert len({document[field] for document in documents}) == len(documents)


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    promtool("check", "rules", "rules.yml")
    promtool("check", "config", "prometheus.yml")


def test_each_rule_fires_when_it_should() -> None:
    files = sorted(RULES.parent.glob("rules_*test.yml"))
    promtool("test", "rules", *files)
    tests = [test for file in files for test in yaml.safe_load(file.read_text())["tests"]]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}


def test_what_is_recorded_is_what_the_rules_use() -> None:
    recorded = {rule["record"] for rule in records()}
    used = re.findall(r"\b\w+:\w+:\w+\b", " ".join(rule["expr"] for rule in (*rules(), *records())))
    assert set(used) == recorded


def test_a_figure_turns_red_where_its_rule_fires() -> None:
    limits = {rule["alert"]: _COMPARED.findall(rule["expr"]) for rule in rules()}
    red = {
        (panel.title, panel.bad_from) for board in DASHBOARDS for panel in board.panels if panel.bad_from is not None
    }
    assert {title for title, _ in red} == set(_RULE_OF)
    for title, limit in red:
        assert [float(found) for found in limits[_RULE_OF[title]]] == [limit], title


@pytest.mark.parametrize(
    ("panel", "series", "says"),
    [
        ("Dead letters", {'ml_dead_letters_total{stream="s", stage="score", reason="empty"}': "0+5x20"}, 1),
        (
            "Dead letters",
            {
                'ml_dead_letters_total{stream="s", stage="score", reason="empty"}': "0+5x20",
                'ml_predictions_total{stream="s", model="m", variant="champion", label="0"}': "0+15x20",
            },
            0.25,
        ),
        (
            "Waiting",
            {
                'ml_consumer_lag_events{group="score", topic="s.features", partition="0"}': "600x20",
                'ml_committed_records_total{group="score", topic="s.features"}': "0+300x20",
            },
            120,
        ),
        (
            "Waiting",
            {
                'ml_consumer_lag_events{group="score", topic="s.features", partition="0"}': "0x20",
                'ml_committed_records_total{group="score", topic="s.features"}': "7x20",
            },
            0,
        ),
    ],
)
def test_a_figure_of_the_overview_is_there_when_all_or_nothing_is_well(
    panel: str, series: dict[str, str], says: float, tmp_path: Path
) -> None:
    [found] = [one for one in overview.DASHBOARD.panels if one.title == panel]
    filled = found.queries[0].expr.replace("$stream", "s").replace("$__rate_interval", "5m")
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": f"sum({filled})", "eval_time": "10m", "exp_samples": [{"value": says}]}],
    }
    (tmp_path / "case.yml").write_text(yaml.safe_dump({"tests": [case]}))
    promtool("test", "rules", tmp_path / "case.yml")


@pytest.mark.parametrize("panel", [panel for board in DASHBOARDS for panel in board.panels], ids=lambda one: one.title)
def test_what_is_no_share_is_not_shown_in_percent(panel: Panel) -> None:
    no_shares = [query.expr for query in panel.queries if re.search("roc_auc|p_value", query.expr)]
    assert panel.unit != "percentunit" or no_shares == []


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_has_a_severity_a_summary_and_a_runbook_that_is_there(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["labels"]["service"] == "penstock"
    assert rule["annotations"]["summary"]
    file, anchor = rule["annotations"]["runbook"].split("#")
    kebab = re.sub(r"(?<!^)(?=[A-Z])", "-", rule["alert"]).lower()
    assert anchor == kebab
    page = (DEPLOY.parent / file).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_example_of_alertmanager_speaks_of_rules_and_labels_that_there_are() -> None:
    document = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    routes = [document["route"], *document["route"]["routes"]]
    matchers = [matcher for route in routes for matcher in route.get("matchers", [])]
    told = re.findall(r'severity = "(\w+)"', " ".join(matchers))
    assert set(told) <= {rule["labels"]["severity"] for rule in rules()}
    assert [rule for rule in document.get("inhibit_rules", []) if not rule.get("equal")] == [], (
        "would mute other workers"
    )
    assert {route["receiver"] for route in routes} == {receiver["name"] for receiver in document["receivers"]}


def test_the_page_lists_every_rule_and_dashboard() -> None:
    page = (DEPLOY.parent / "docs" / "grafana.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(Penstock\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in rules()]
    assert [board.title for board in DASHBOARDS if f"\n| {board.title} | " not in page] == []
