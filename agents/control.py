"""Control: the only writer of `<s>.deployments`. Takes commands in their order and answers each in `<s>.audit`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from agents.routing import rerouted, was_done
from agents.shelf import ModelShelf
from schemas.errors import InvalidEvent, PenstockError, RetryableError
from schemas.events import AuditEvent, Command, Deployment, ModelVersion
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream import metrics as m
from stream.batches import Batch, Outbox
from stream.deadletters import dead_letter
from stream.delivery import Offsets
from stream.metrics import Metrics
from stream.stage import Stage
from stream.views import LogView
from topics.specs import StreamTopics

STAGE = "control"
LOAD_TIMEOUT_S = 45.0  # before the watchdog would take a slow store for a stuck worker
_DONE = {
    "promote": "is the champion",
    "shadow": "is a shadow",
    "unshadow": "is no shadow any more",
    "succeed": "took the place of the routed version of its lineage",
}


class Control(Stage):
    """The stage on `<s>.commands`. Its state, the deployments so far, is read from its own log when it opens."""

    def __init__(
        self,
        spec: StreamSpec,
        models: LogView[ModelVersion],
        deployments: LogView[Deployment],
        caught_up: Callable[[], Awaitable[None]],
        shelf: ModelShelf,
        metrics: Metrics,
        clock_ms: Callable[[], int],
    ) -> None:
        self._spec = spec
        self._models = models
        self._deployments = deployments
        self._caught_up = caught_up
        self._shelf = shelf
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._topics = StreamTopics(spec.name)
        self._history: list[Deployment] = []

    async def open(self, committed: Offsets) -> None:
        """Fold `<s>.deployments` to its end: whoever wrote it before is fenced by now."""
        await self._caught_up()
        self._history = list(self._deployments.events)

    async def process(self, batch: Batch, outbox: Outbox) -> None:
        """Decide each command; a record that is no command becomes a dead letter."""
        await self._caught_up()  # a model registered before its command was sent is known from here on
        for record in batch.records:
            try:
                command = decode(Command, record.value)
            except InvalidEvent as error:
                letter = dead_letter(record, batch.source, STAGE, error, self._clock_ms())
                outbox.add(self._topics.commands_dead, 0, *letter)
                self._metrics.count(m.DEAD_LETTERS, 1, self._spec.name, STAGE, error.reason)
            else:
                await self._decide(command, outbox)

    async def _decide(self, command: Command, outbox: Outbox) -> None:
        """Carry the command out or refuse it; either way say so in the audit log."""
        key = self._spec.name.encode()
        try:
            if not was_done(command, self._history):
                deployment = await self._carried_out(command)
                self._history.append(deployment)
                outbox.add(self._topics.deployments, 0, key, encode(deployment))
        except RetryableError:
            raise  # the model store is away: the command comes again
        except PenstockError as error:
            answer = self._answer(command, "refused", str(error))
        else:
            answer = self._answer(command, "done", f"model {command.model_id} {_DONE[command.action]}")
        outbox.add(self._topics.audit, 0, key, encode(answer))

    async def _carried_out(self, command: Command) -> Deployment:
        """Return the new deployment. Raises PenstockError with the reason when there is none."""
        if command.stream != self._spec.name:
            raise PenstockError(f"the command is for stream {command.stream!r}; this is {self._spec.name!r}")
        registry = {version.model_id: version for version in self._models.events}  # the newest record of each counts
        routes = rerouted(command, self._history, registry.get)
        assert routes.champion is not None  # without one, every command but a promotion is refused
        if command.action != "unshadow":
            routed = (routes.champion, *routes.shadows)
            beside = [registry[other] for other in routed if other in registry and other != command.model_id]
            await self._prove(registry[command.model_id], beside)
        return Deployment(
            stream=self._spec.name,
            revision=self._revision + 1,
            champion=routes.champion,
            changed_time_ms=self._clock_ms(),
            changed_by=command.issued_by,
            correlation_id=command.correlation_id,
            shadows=routes.shadows,
        )

    async def _prove(self, version: ModelVersion, beside: Sequence[ModelVersion]) -> None:
        """Load the model, which proves signature, hash, form and room before anything is routed to it."""
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await self._shelf.get(self._spec, version, beside)
        except TimeoutError as error:
            raise PenstockError(
                f"model {version.model_id} could not be loaded within {LOAD_TIMEOUT_S:.0f} s"
            ) from error

    @property
    def _revision(self) -> int:
        return self._history[-1].revision if self._history else 0

    def _answer(self, command: Command, outcome: str, reason: str) -> AuditEvent:
        return AuditEvent(
            stream=self._spec.name,
            correlation_id=command.correlation_id,
            action=command.action,
            issued_by=command.issued_by,
            outcome=outcome,  # type: ignore[arg-type]  # "done" or "refused"
            reason=reason,
            model_id=command.model_id,
            revision=self._revision,
            decided_time_ms=self._clock_ms(),
        )
