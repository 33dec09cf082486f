"""Grafana's dashboards, written to `deploy/grafana/dashboards` by `python -m deploy.dashboards`.

Change the modules of this package, never the files; a test compares the two, and another has every query
answered by a Prometheus.
"""

import json
from pathlib import Path
from typing import Final

from deploy.dashboards import drift, experiments, operations, overview, quality
from deploy.dashboards.panels import Dashboard

FOLDER: Final = Path(__file__).parents[1] / "grafana" / "dashboards"
DASHBOARDS: Final[tuple[Dashboard, ...]] = (
    overview.DASHBOARD,
    quality.DASHBOARD,
    drift.DASHBOARD,
    experiments.DASHBOARD,
    operations.DASHBOARD,
)


def rendered() -> dict[str, str]:
    """Return the text of each file by its name."""
    return {f"{board.name}.json": json.dumps(board.document(), indent=1) + "\n" for board in DASHBOARDS}
