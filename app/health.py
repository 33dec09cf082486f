"""The worker's own pages, on loopback by default: `/metrics` for Prometheus and `/health` for people and probes."""

from collections.abc import Callable

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.listener import listen
from stream.metric_values import Metrics

Report = dict[str, object]


class Pages:
    """Serves `/metrics`, `/health` (503 unless ready and alive) and `/health/live` (503 unless alive).

    `refresh` is called before each reading of the metrics.
    """

    def __init__(self, metrics: Metrics, refresh: Callable[[], None], report: Callable[[], Report]) -> None:
        self._metrics = metrics
        self._refresh = refresh
        self._report = report
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen, and return the address. Raises SettingsError when the port is taken."""
        application = web.Application()
        application.router.add_get("/metrics", self._on_metrics)
        application.router.add_get("/health", self._on_health)
        application.router.add_get("/health/live", self._on_live)
        self._runner = web.AppRunner(application, access_log=None)
        return await listen(self._runner, host, port, "metrics_port")

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _on_metrics(self, request: web.Request) -> web.Response:
        self._refresh()
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _on_health(self, request: web.Request) -> web.Response:
        report = self._report()
        return _json(report, 200 if report["ready"] and report["alive"] else 503)

    async def _on_live(self, request: web.Request) -> web.Response:
        alive = bool(self._report()["alive"])
        return _json({"alive": alive}, 200 if alive else 503)


def _json(document: Report, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
