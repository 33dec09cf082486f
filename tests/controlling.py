"""What tests of control share: the stage over views in memory, with a shelf that loads whatever it is asked for."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from agents.control import Control
from schemas.errors import PenstockError
from schemas.events import AuditEvent, Command, Deployment, ModelVersion
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream.batches import Outbox, TopicPartition
from stream.metric_values import Metrics
from stream.views import LogView
from tests.support import Entry, Model, batch

SPEC = StreamSpec(name="flights", features=("a", "b"))
COMMANDS = TopicPartition("flights.commands", 0)


class Bench:
    """A control stage on stream flights with its views; `written` is what it put into its outboxes, by topic."""

    def __init__(self) -> None:
        self.models: LogView[ModelVersion] = LogView("flights.models", ModelVersion)
        self.deployments: LogView[Deployment] = LogView("flights.deployments", Deployment)
        self.broken: dict[str, PenstockError] = {}
        self.late: list[ModelVersion] = []
        self.proved: list[tuple[str, ...]] = []
        self.metrics = Metrics()
        self.written: dict[str, list[tuple[bytes | None, bytes]]] = defaultdict(list)
        self.control = Control(
            SPEC,
            self.models,
            self.deployments,
            self._catch_up,
            self,  # type: ignore[arg-type]  # as much of a shelf as is used
            self.metrics,
            lambda: 7000,
        )

    async def get(self, spec: StreamSpec, version: ModelVersion, beside: Sequence[ModelVersion] = ()) -> Model:
        self.proved.append((version.model_id, *(other.model_id for other in beside)))
        if version.model_id in self.broken:
            raise self.broken[version.model_id]
        return Model()

    async def _catch_up(self) -> None:
        late, self.late = self.late, []
        self.models.fold(map(encode, late))

    async def take(self, *values: bytes | None) -> list[AuditEvent]:
        """Process one batch and return its answers."""
        outbox = Outbox()
        await self.control.process(batch(COMMANDS, [Entry(i, v, b"flights") for i, v in enumerate(values)]), outbox)
        for target, records in outbox.targets.items():
            assert target.partition == 0
            self.written[target.topic] += [(key, value) for key, value in records]
        new = outbox.targets.get(TopicPartition("flights.audit", 0), [])
        return [decode(AuditEvent, value) for _, value in new]

    @property
    def statuses(self) -> list[tuple[str, str, int, str]]:
        """What was written of versions: id, status, number of changes, who did it."""
        written = [decode(ModelVersion, value) for _, value in self.written["flights.models"]]
        return [(v.model_id, v.status, v.changes, v.changed_by) for v in written]

    @property
    def routing(self) -> list[Deployment]:
        return [decode(Deployment, value) for _, value in self.written["flights.deployments"]]


def command_of(model_id: str = "m1", expected_revision: int | None = 0, **changes: Any) -> bytes:
    """Return a command to promote, or what the changes make of it."""
    command = Command(
        stream="flights",
        action="promote",
        model_id=model_id,
        expected_revision=expected_revision,
        issued_by="ada",
        issued_time_ms=6000,
        correlation_id=f"{model_id}@{expected_revision}",
    )
    return encode(msgspec.structs.replace(command, **changes))
