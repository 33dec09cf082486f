"""Control: the only writer of `<s>.deployments`. Takes commands in their order and answers each in `<s>.audit`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from agents.registry import Registry, merged
from agents.routes import Routes, routes_of
from agents.routing import effect_of, rerouted
from agents.shelf import ModelShelf
from agents.statuses import Change, changed, changes_with, moved
from agents.train import ending
from schemas.errors import InvalidEvent, PenstockError, RetryableError
from schemas.events import AuditEvent, Command, Deployment, ModelVersion
from schemas.experiments import Experiment
from schemas.runs import TRAINER
from schemas.streams import StreamSpec
from schemas.wire import decode, encode
from stream import metrics as m
from stream.batches import Batch, Outbox
from stream.deadletters import dead_letter
from stream.delivery import Offsets
from stream.metric_values import Metrics
from stream.stage import Stage
from stream.views import LogView
from topics.specs import StreamTopics

STAGE = "control"
LOAD_TIMEOUT_S = 45.0  # before the watchdog would take a slow store for a stuck worker
STORE_PATIENCE_S = 10.0  # a store that is away for longer must not keep the next command waiting
STORE_PAUSE_S = 1.0


class Control(Stage):
    """The stage on `<s>.commands`. Its state, the deployments so far, is read from its own log when it opens.

    Routing, the statuses that change with it, and the answer go out in one transaction.
    """

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
        self._registry = Registry(models)
        self._deployments = deployments
        self._caught_up = caught_up
        self._shelf = shelf
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._topics = StreamTopics(spec.name)
        self._history: list[Deployment] = []
        self._changed: dict[str, ModelVersion] = {}  # by us, and perhaps not seen in the registry yet

    async def open(self, committed: Offsets) -> None:
        """Fold `<s>.deployments` to its end: whoever wrote it before is fenced by now."""
        await self._caught_up()
        self._history = list(self._deployments.events)
        self._changed = {}

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
        try:
            if command.stream != self._spec.name:
                raise PenstockError(f"the command is for stream {command.stream!r}; this is {self._spec.name!r}")
            effect = effect_of(command, self._history)
            if command.action == "move":
                self._move(command, outbox)
            elif effect is None:
                effect = await self._reroute(command, outbox)
            elif effect is self._history[-1]:
                self._finish(effect, command, outbox)
        except PenstockError as error:
            self._answer(command, "refused", str(error), None, outbox)
            if command.issued_by == TRAINER:  # its run is over, and nobody waits for the answer
                alert = ending.refused(command, str(error), self._clock_ms())
                outbox.add(self._topics.alerts, 0, self._key, encode(alert))
        else:
            self._answer(command, "done", _said(command, effect), effect, outbox)

    def _move(self, command: Command, outbox: Outbox) -> None:
        change = moved(command, routes_of(self._history), self._find)
        if change is not None:
            self._change([change], command, outbox)

    def _finish(self, effect: Deployment, command: Command, outbox: Outbox) -> None:
        """Write the statuses that go with a deployment, if they are not there.

        Without transactions, whoever wrote it may have stopped before. What was changed since stays as it is.
        """
        before, after = routes_of(self._history[:-1]), routes_of(self._history)
        due = changes_with(command, before, after, self._find)
        self._change([change for change in due if self._is_older(change.model_id, effect)], command, outbox)

    def _is_older(self, model_id: str, effect: Deployment) -> bool:
        version = self._find(model_id)
        return version is not None and version.changed_time_ms <= effect.changed_time_ms

    async def _reroute(self, command: Command, outbox: Outbox) -> Deployment:
        """Write and return the new deployment. Raises PenstockError with the reason when there is none."""
        before, now_ms = routes_of(self._history), self._clock_ms()
        after = rerouted(command, self._history, self._find, now_ms)
        assert after.champion is not None  # without one, every command but a promotion is refused
        await self._prove(_to_prove(command, after), after)
        deployment = Deployment(
            stream=self._spec.name,
            revision=self._revision + 1,
            champion=after.champion,
            changed_time_ms=now_ms,
            changed_by=command.issued_by,
            correlation_id=command.correlation_id,
            shadows=after.shadows,
            previous=after.previous,
            held=after.held,
            experiment=after.experiment,
            reason=command.reason,
        )
        self._history.append(deployment)
        outbox.add(self._topics.deployments, 0, self._key, encode(deployment))
        self._change(changes_with(command, before, after, self._find), command, outbox)
        return deployment

    def _change(self, changes: Sequence[Change], command: Command, outbox: Outbox) -> None:
        for change in changes:
            old = self._find(change.model_id)
            assert old is not None  # whoever made the change has found it
            new = self._changed[old.model_id] = changed(old, change, command.issued_by, self._clock_ms())
            outbox.add(self._topics.models, 0, self._key, encode(new))
            self._metrics.count(m.MODEL_PROMOTIONS, 1, self._spec.name, old.status, new.status)

    async def _prove(self, model_ids: Sequence[str], after: Routes) -> None:
        """Load the models, which proves signature, hash, form and room for all, before anything is routed to them.

        Raises PenstockError when one is unfit, cannot be loaded in time, or its store does not answer.
        """
        for model_id in model_ids:
            version = self._find(model_id)
            assert version is not None  # nothing is routed anew that was not found
            beside = [v for other in after.routed if other != model_id and (v := self._find(other)) is not None]
            try:
                async with asyncio.timeout(LOAD_TIMEOUT_S / len(model_ids)):
                    await self._load(version, beside)
            except TimeoutError as error:
                raise PenstockError(
                    f"model {model_id} could not be loaded within {LOAD_TIMEOUT_S / len(model_ids):.0f} s"
                ) from error

    async def _load(self, version: ModelVersion, beside: Sequence[ModelVersion]) -> None:
        """Load a model. Who sent the command may send it again, so a store that is away is waited for only so long."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + STORE_PATIENCE_S
        while True:
            try:
                await self._shelf.get(self._spec, version, beside)
                return
            except RetryableError as error:
                if loop.time() >= give_up_s:
                    raise PenstockError(f"the model store does not answer: {error}; try again") from error
            await asyncio.sleep(STORE_PAUSE_S)

    def _find(self, model_id: str) -> ModelVersion | None:
        """Return the version with all that was decided of it, also what nobody can read yet."""
        known, ours = self._registry.find(model_id), self._changed.get(model_id)
        return known if known is None or ours is None else merged(ours, known)

    @property
    def _key(self) -> bytes:
        return self._spec.name.encode()

    @property
    def _revision(self) -> int:
        return self._history[-1].revision if self._history else 0

    def _answer(
        self,
        command: Command,
        outcome: Literal["done", "refused"],
        reason: str,
        effect: Deployment | None,
        outbox: Outbox,
    ) -> None:
        brought_back = effect.champion if effect is not None and command.action == "rollback" else ""
        answer = AuditEvent(
            stream=self._spec.name,
            correlation_id=command.correlation_id,
            action=command.action,
            issued_by=command.issued_by,
            outcome=outcome,
            reason=reason,
            model_id=command.model_id or brought_back,
            revision=self._revision,
            decided_time_ms=self._clock_ms(),
            experiment_id=command.experiment_id or self._ended_by(effect),
            asked_reason=command.reason,
        )
        outbox.add(self._topics.audit, 0, self._key, encode(answer))

    def _ended_by(self, effect: Deployment | None) -> str:
        """Return the id of the experiment that a deployment ended, or an empty text."""
        if effect is None or effect.experiment is not None:
            return ""
        before = next((d for d in reversed(self._history) if d.revision < effect.revision), None)
        return before.experiment.experiment_id if before is not None and before.experiment is not None else ""


def _to_prove(command: Command, after: Routes) -> Sequence[str]:
    """Return the models that the command routes to, whatever they were before; not those that it leaves alone."""
    match command.action:
        case "rollback":
            return [after.champion or ""]
        case "start":
            return after.challengers
        case "promote" | "succeed" | "shadow":
            return [command.model_id]
        case _:
            return []


def _said(command: Command, effect: Deployment | None) -> str:
    """Return what was done, in a sentence that a repeated command gets again."""
    model_id, experiment = command.model_id, effect.experiment if effect is not None else None
    match command.action:
        case "promote":
            return f"model {model_id} is the champion"
        case "rollback":
            return f"model {effect.champion if effect is not None else model_id} is the champion again"
        case "succeed":
            return f"model {model_id} took the place of the routed version of its lineage"
        case "shadow":
            return f"model {model_id} is a shadow"
        case "unshadow":
            return f"model {model_id} is no shadow any more"
        case "move":
            return f"model {model_id} has the status {command.status}"
        case "stop":
            return f"experiment {command.experiment_id} has ended: the champion serves all"
        case "start" | "reshare":
            return f"experiment {command.experiment_id} runs: {_shares(experiment)}"


def _shares(experiment: Experiment | None) -> str:
    variants = experiment.variants if experiment is not None else ()
    return ", ".join(f"{variant.name} has {variant.buckets / 100:g} %" for variant in variants)
