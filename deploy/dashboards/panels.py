"""A dashboard as rows of panels, and its JSON as Grafana reads it.

What is not said here is Grafana's default. The shape of the JSON is that of schema version 39 (Grafana 11 and later).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24
STREAMS: Final = 'label_values({__name__=~"ml_models_total|ml_predictions_total"}, stream)'
_HEIGHTS: Final = {"timeseries": 8, "table": 8, "stat": 4}
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_AS_ROWS: Final = [{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}]
_INTERVAL_BOUNDS: Final = "/ (low|high)$/"  # legends of the ends of an interval


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and a legend with `{{label}}` for what tells its series apart. `stat` panels want one series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `about` says in a sentence what is seen and what to do; `unit` is Grafana's id of a unit.

    `bad_from` colours a stat red from that value on, `good_from` green from it on, and red below.
    """

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    bad_from: float | None = None
    good_from: float | None = None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Rows of panels, each as wide as its neighbours. `name` is the file's and the end of the uid."""

    name: str
    title: str
    about: str
    rows: tuple[tuple[Panel, ...], ...]

    @property
    def panels(self) -> Iterator[Panel]:
        """Every panel, row by row."""
        return (panel for row in self.rows for panel in row)

    def document(self) -> dict[str, Any]:
        """Return what Grafana reads."""
        return {
            "uid": f"penstock-{self.name}",
            "title": f"Penstock · {self.title}",
            "description": self.about,
            "tags": ["penstock"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [{"type": "dashboards", "title": "Penstock", "tags": ["penstock"], "keepTime": True}],
            "templating": {"list": [_datasource_variable(), _stream_variable()]},
            "panels": list(self._placed()),
        }

    def _placed(self) -> Iterator[dict[str, Any]]:
        top, number = 0, 1
        for row in self.rows:
            width, height = COLUMNS // len(row), max(_HEIGHTS[panel.kind] for panel in row)
            for position, panel in enumerate(row):
                place = {"x": position * width, "y": top, "w": width, "h": height}
                yield {"id": number, "gridPos": place} | _panel(panel)
                number += 1
            top += height


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _stream_variable() -> dict[str, Any]:
    return {
        "name": "stream",
        "label": "Stream",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": STREAMS, "refId": "streams"},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "targets": [_target(panel, query, position) for position, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    } | ({"transformations": _AS_ROWS} if panel.kind == "table" else {})


def _target(panel: Panel, query: Query, position: int) -> dict[str, Any]:
    target: dict[str, Any] = {"refId": chr(ord("A") + position), "datasource": _SOURCE, "expr": query.expr}
    if panel.kind == "table":
        return target | {"format": "table", "instant": True, "range": False}
    return target | {"legendFormat": query.legend or "__auto"}


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.unit == "percentunit":
        defaults["min"] = 0
    if panel.kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 8, "lineWidth": 2, "showPoints": "auto", "spanNulls": 60_000}
    steps = _steps(panel)
    return defaults | ({"thresholds": {"mode": "absolute", "steps": steps}} if steps else {})


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.bad_from is not None:
        return [{"color": "green", "value": None}, {"color": "red", "value": panel.bad_from}]
    if panel.good_from is not None:
        return [{"color": "red", "value": None}, {"color": "green", "value": panel.good_from}]
    return [{"color": "text", "value": None}] if panel.kind == "stat" else []


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    if panel.kind != "timeseries":
        return []
    dashed = [
        {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [4, 4]}},
        {"id": "custom.lineWidth", "value": 1},
        {"id": "custom.fillOpacity", "value": 0},
    ]
    return [{"matcher": {"id": "byRegexp", "options": _INTERVAL_BOUNDS}, "properties": dashed}]


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    if panel.kind == "table":
        return {"showHeader": True}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
