"""The models in memory: loaded once, checked before they are opened, dropped when the budget asks for it."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ml.models.protocol import Model
from ml.models.registry import model_type
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from stores.artifacts import ArtifactStore, Signer


class ModelUnusable(PenstockError):
    """A model version cannot serve its stream; the message says why and what to do."""


class ModelShelf:
    """Loaded models by id, least recently used first to go, never one that a stream routes to.

    `budget_bytes` is of memory as the registrations estimate it: to ask a model can take as long as to dump it.
    Loading happens in threads; the event loop owns everything else.
    """

    def __init__(self, open_model: Callable[[ModelVersion], Model], budget_bytes: int) -> None:
        self._open_model = open_model
        self._budget_bytes = budget_bytes
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._sizes: dict[str, tuple[str, int]] = {}
        self._routed: dict[str, tuple[ModelVersion, ...]] = {}
        self._loading: dict[str, asyncio.Future[Model]] = {}

    @property
    def loaded(self) -> Iterable[tuple[str, str, int]]:
        """(stream, model id, bytes by its registration) of each model in memory."""
        return [(*self._sizes[model_id][:1], model_id, self._sizes[model_id][1]) for model_id in self._models]

    async def get(self, spec: StreamSpec, version: ModelVersion, beside: Sequence[ModelVersion] = ()) -> Model:
        """Return the model, loaded, verified and warm. Raises PenstockError with a sentence when it cannot be had.

        There must be room for it with all that the other streams route to, and with `beside`: what its own stream
        is to route to at the same time. Who stops waiting stops nothing: it is loaded to the end, and once, however
        many ask for it meanwhile.
        """
        require_match(spec, version)
        self._require_room(version, beside)
        if version.model_id not in self._models:
            if version.model_id not in self._loading:
                loading = asyncio.ensure_future(asyncio.to_thread(self._load, version))
                loading.add_done_callback(lambda loading: self._keep(version, loading))
                self._loading[version.model_id] = loading
            self._put(version, await asyncio.shield(self._loading[version.model_id]))
        self._models.move_to_end(version.model_id)
        self._drop_unused(keep=(version, *beside))
        return self._models[version.model_id]

    def route(self, champion: ModelVersion, beside: Sequence[ModelVersion] = ()) -> None:
        """Say that from now on the stream is served by `champion`, and scored by `beside`: variants and shadows."""
        self._routed[champion.stream] = (champion, *beside)
        self._drop_unused()

    def _keep(self, version: ModelVersion, loading: asyncio.Future[Model]) -> None:
        """Take over what was loaded, also if nobody waits for it any more. It gives way when the next needs room."""
        del self._loading[version.model_id]
        if not loading.cancelled() and loading.exception() is None:
            self._put(version, loading.result())

    def _put(self, version: ModelVersion, model: Model) -> None:
        self._models[version.model_id] = model
        self._sizes[version.model_id] = (version.stream, version.memory_bytes)

    def _load(self, version: ModelVersion) -> Model:
        try:
            return self._open_and_warm(version)
        except PenstockError:
            raise
        except Exception as error:  # a model may come from any package, and raise anything
            raise ModelUnusable(
                f"model {version.model_id} cannot be opened: {type(error).__name__}: {error}"
            ) from error

    def _open_and_warm(self, version: ModelVersion) -> Model:
        model = self._open_model(version)
        if (model.n_features, model.classes) != (len(version.features), len(version.classes) or 1):
            raise ModelUnusable(
                f"model {version.model_id} takes {model.n_features} features and gives {model.classes} scores; "
                f"its stream has {len(version.features)} features and {len(version.classes)} classes"
            )
        model.predict(np.zeros((256, len(version.features)), dtype=np.float32))  # the first call allocates
        return model

    def _require_room(self, version: ModelVersion, beside: Sequence[ModelVersion]) -> None:
        elsewhere = [other for stream, routed in self._routed.items() if stream != version.stream for other in routed]
        taken = sum(other.memory_bytes for other in (*elsewhere, *beside))
        if taken + version.memory_bytes > self._budget_bytes:
            raise ModelUnusable(
                f"model {version.model_id} needs {version.memory_bytes:,} bytes of memory; the models routed "
                f"beside it take {taken:,} of the {self._budget_bytes:,} that model_memory_bytes allows"
            )

    def _drop_unused(self, keep: Sequence[ModelVersion] = ()) -> None:
        routed = [version for versions in self._routed.values() for version in versions]
        held = {version.model_id for version in (*routed, *keep)}
        for model_id in [model_id for model_id in self._models if model_id not in held]:
            if sum(self._sizes[loaded][1] for loaded in self._models) <= self._budget_bytes:
                return
            del self._models[model_id], self._sizes[model_id]


def require_match(spec: StreamSpec, version: ModelVersion) -> None:
    """Raise ModelUnusable unless `version` was made for the stream as it is declared now, and still exists."""
    if version.stream != spec.name:
        raise ModelUnusable(f"model {version.model_id} belongs to stream {version.stream!r}, not to {spec.name!r}")
    if version.pruned:
        raise ModelUnusable(f"model {version.model_id} was pruned: its file was deleted; choose another version")
    if version.features != spec.features:
        raise ModelUnusable(
            f"model {version.model_id} was made for other features than stream {spec.name!r} declares: "
            f"{', '.join(version.features)} instead of {', '.join(spec.features)}"
        )
    if (version.task, version.classes) != (spec.task, spec.classes):
        raise ModelUnusable(
            f"model {version.model_id} is {version.task} with classes {list(version.classes)}, but stream "
            f"{spec.name!r} is {spec.task} with classes {list(spec.classes)}"
        )


def opener(store: ArtifactStore, signer: Signer, threads: int) -> Callable[[ModelVersion], Model]:
    """Return a function that opens a model version: signature first, then hash, then the bytes. It blocks."""

    def open_model(version: ModelVersion) -> Model:
        signer.verify(version)
        payload = store.get(version.sha256, version.size_bytes)
        return model_type(version.algorithm).load(payload, threads=threads)

    return open_model
