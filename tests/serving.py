"""What tests of serving share: a Serving with its views, on a shelf and a store of which anything may be broken."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import numpy as np

from agents.serving import Serving
from ml.drift.baseline import Baseline, make_baseline
from schemas.errors import PenstockError
from schemas.events import Alert, Deployment, ModelVersion
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.metric_values import Metrics
from stream.views import LogView
from tests.support import Model, deployment_of, leap_through, version_of

SPEC = StreamSpec(name="flights", features=("a", "b"))
OWN, OTHER = "1" * 64, "2" * 64


def baseline_of(*features: str) -> Baseline:
    values = np.linspace(0, 1, 50, dtype=np.float32)
    return make_baseline(np.stack([values] * len(features), axis=1), features, {"score": values})


class World:
    """A Serving with its views and a shelf on which `broken` models cannot be had."""

    def __init__(self) -> None:
        self.models: LogView[ModelVersion] = LogView("flights.models", ModelVersion)
        self.deployments: LogView[Deployment] = LogView("flights.deployments", Deployment)
        self.metrics = Metrics()
        self.broken: dict[str, PenstockError] = {}
        self.alerts: list[Alert] = []
        self.alert_errors: list[Exception] = []
        self.late: list[ModelVersion] = []
        self.routed: list[str] = []
        self.routed_beside: list[list[str]] = []
        self.got: list[tuple[str, ...]] = []
        self.load_s = 0.0
        self.slow: dict[str, float] = {}
        self.baselines: dict[str, Baseline | PenstockError] = {}
        self.opened: list[tuple[str, int]] = []
        self.serving = self.new_serving()

    def new_serving(self, loads: bool = True) -> Serving:
        return Serving(
            SPEC,
            self.models,
            self.deployments,
            self.catch_up,
            self,  # type: ignore[arg-type]  # as much of a shelf as is used
            self.open_baseline,
            self.metrics,
            self.alert,
            lambda: 5000,
            loads,
        )

    async def get(self, spec: StreamSpec, version: ModelVersion, beside: Sequence[ModelVersion] = ()) -> Model:
        self.got.append((version.model_id, *(other.model_id for other in beside)))
        await asyncio.sleep(self.slow.get(version.model_id, self.load_s))
        if version.model_id in self.broken:
            raise self.broken[version.model_id]
        return Model()

    def route(self, champion: ModelVersion, beside: Sequence[ModelVersion] = ()) -> None:
        self.routed.append(champion.model_id)
        self.routed_beside.append([version.model_id for version in beside])

    async def open_baseline(self, sha256: str, size_bytes: int) -> Baseline:
        self.opened.append((sha256, size_bytes))
        await asyncio.sleep(self.load_s)
        found = self.baselines[sha256]
        if isinstance(found, PenstockError):
            raise found
        return found

    async def catch_up(self) -> None:
        late, self.late = self.late, []
        self.models.fold(map(encode, late))

    async def alert(self, alert: Alert) -> None:
        if self.alert_errors:
            raise self.alert_errors.pop(0)
        self.alerts.append(alert)

    def register(self, *names: str) -> None:
        self.models.fold(encode(version_of(SPEC, name)) for name in names)

    def measure(self, name: str, sha256: str, **changes: str | bool) -> None:
        """Write the model's record, again if there is one, with a baseline."""
        version = version_of(SPEC, name)
        record = msgspec.structs.replace(version, baseline=sha256, baseline_bytes=9 if sha256 else 0, **changes)
        self.models.fold([encode(record)])

    def deploy(self, name: str, revision: int, *shadows: str, **changes: Any) -> None:
        deployment = msgspec.structs.replace(deployment_of(SPEC, name, revision), shadows=shadows, **changes)
        self.deployments.fold([encode(deployment)])

    @property
    def champion(self) -> str | None:
        return self.serving.current.version.model_id if self.serving.current else None

    @property
    def baseline(self) -> str | None:
        yardstick = self.serving.current.yardstick if self.serving.current else None
        return yardstick.sha256 if yardstick else None

    @property
    def shadows(self) -> list[str]:
        return [shadow.version.model_id for shadow in self.serving.current.shadows] if self.serving.current else []


def serving(scenario: Callable[[World], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Run a scenario in leaping time beside a Serving that follows its views."""

    async def run() -> None:
        world = World()
        following = asyncio.create_task(world.serving.follow())
        await asyncio.sleep(0.01)
        await scenario(world)
        if following.done():
            following.result()
        following.cancel()

    return lambda: leap_through(run())
