"""The models, learners and baselines that a backtest needs, out of a stream's registry."""

import asyncio

import msgspec

from agents.baselines import Yardstick, baseline_opener, require_columns
from agents.replay.drifting import Measured
from agents.replay.identity import Identity
from agents.replay.learning import Learning
from agents.replay.question import SERVED, Question
from agents.replay.scoring import AsServed, Library, OneModel, Scorer
from agents.shelf import ModelShelf
from app.models import RegistryView
from app.registry import artifact_store, model_opener, signer
from app.settings import Settings
from app.stages import learner_of
from ml.drift.baseline import Baseline
from ml.drift.counting import Counter
from schemas.errors import PenstockError, RetryableError
from schemas.events import ModelVersion


class BacktestModels:
    """Opens what a replay asks for, once. `library.problems` says what could not be had, and why.

    `foreign` are the ids of the models that were made for other features or classes than the stream has now, and
    `learnt` is the model that did not serve and may have learnt from the events: the candidate, or what a learner
    starts from.
    """

    def __init__(self, settings: Settings, registry: RegistryView, question: Question) -> None:
        self._settings = settings
        self._registry = registry
        self._question = question
        self._open_baseline = baseline_opener(artifact_store(settings))
        self._measured: dict[str, Measured] = {}
        self._yardsticks: dict[str, Yardstick] = {}
        self.identity = Identity()
        self.deployments = {deployment.revision: deployment for deployment in registry.deployments}
        spec = question.spec
        self.foreign = frozenset(
            version.model_id
            for version in registry.models
            if (version.features, version.task, version.classes) != (spec.features, spec.task, spec.classes)
        )
        shelf = ModelShelf(model_opener(settings), settings.model_memory_bytes)
        self.library = Library(spec, registry.find, shelf)

    @property
    def learnt(self) -> ModelVersion | None:
        question = self._question
        learner = question.changed.learners.get(question.learner or "")
        model_id = learner.start_from if learner is not None and learner.start_from else question.model
        return None if model_id == SERVED else self._registry.find(model_id)

    async def scorer(self) -> Scorer:
        """Return who scores. Raises PenstockError when it cannot be had."""
        question = self._question
        scorer: Scorer = AsServed(question.spec, self.library, self.identity)
        if question.model != SERVED:
            scorer = OneModel(question.spec, question.model, await self.library.open(question.model))
        if question.learner is None:
            return scorer
        if question.learner not in question.changed.learners:
            known = ", ".join(question.changed.learners) or "none"
            raise PenstockError(f"stream {question.spec.name} has no learner {question.learner!r}; it has {known}")
        learner = learner_of(self._settings, question.changed.learners[question.learner])
        payload = await asyncio.to_thread(self._payload, learner.start_from) if learner.start_from else None
        return Learning(question.changed, question.learner, learner, payload, scorer)

    def _payload(self, model_id: str) -> bytes:
        version = self._registry.find(model_id)
        signer(self._settings).verify(version)
        return artifact_store(self._settings).get(version.sha256, version.size_bytes)

    async def measure(self, model_id: str) -> Measured:
        """Return a champion and what is counted against: its own baseline, or that of its nearest ancestor.

        A snapshot that only the replay made has those of the model that its learner starts from, or of the champion.
        """
        if model_id not in self._measured:
            known = {version.model_id: version for version in self._registry.models}
            version = known.get(model_id) or self._snapshot(model_id)
            source = self._registry.baseline_of(version.model_id if model_id in known else version.parent or "")
            if source is None:
                whose = version.model_id if model_id in known else version.parent
                self.library.problems[f"baseline of {whose}"] = "there is none, so no drift is found while it serves"
            yardstick = None if source is None else await self._yardstick(source)
            self._measured[model_id] = Measured(version, yardstick)
        return self._measured[model_id]

    def _snapshot(self, model_id: str) -> ModelVersion:
        learner = self._question.changed.learners.get(self._question.learner or "")
        parent = (learner.start_from if learner is not None else None) or self._registry.champion
        if parent is None:
            raise PenstockError(f"stream {self._question.spec.name} has no model that {model_id} could be measured by")
        return msgspec.structs.replace(self._registry.find(parent), model_id=model_id, parent=parent)

    async def _yardstick(self, source: ModelVersion) -> Yardstick | None:
        """Return it opened, or None when it cannot be used: that is a problem of the report."""
        if source.baseline not in self._yardsticks:
            try:
                baseline = await self._open_baseline(source.baseline, source.baseline_bytes)
                require_columns(self._question.spec, baseline)
            except RetryableError:
                raise
            except PenstockError as error:
                self.library.problems[f"baseline of {source.model_id}"] = str(error)
                return None
            self._yardsticks[source.baseline] = Yardstick(source.baseline, baseline, Counter(baseline))
        return self._yardsticks[source.baseline]

    async def reference(self, sha256: str) -> tuple[Baseline, frozenset[str]]:
        """Return the baseline of a yardstick, and the ids of the models whose own it is."""
        owners = frozenset(version.model_id for version in self._registry.models if version.baseline == sha256)
        return self._yardsticks[sha256].baseline, owners
