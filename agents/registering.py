"""What is registered of a model: its version, as its bytes and its stream make it."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

from ml.errors import ModelError
from ml.models.protocol import Model
from ml.models.registry import model_type
from schemas.errors import PenstockError
from schemas.events import ModelVersion
from schemas.streams import StreamSpec

Parameters = Mapping[str, str | int | float | bool | None]


def describe_model(
    spec: StreamSpec,
    payload: bytes,
    algorithm: str,
    registered_by: str,
    now_ms: int,
    metrics: Mapping[str, float] | None = None,
    parameters: Parameters | None = None,
) -> ModelVersion:
    """Return the unsigned version of `payload`, which must be a model of `algorithm` that fits the stream.

    Opens the model to find out: only for bytes that the caller trusts. Raises PenstockError with a sentence.
    """
    model = _fitting_model(spec, payload, algorithm)
    sha256 = hashlib.sha256(payload).hexdigest()
    created = datetime.fromtimestamp(now_ms / 1000, UTC)
    return ModelVersion(
        model_id=f"{spec.name}-{created:%Y%m%dT%H%M%S}-{sha256[:8]}",
        stream=spec.name,
        algorithm=algorithm,
        task=spec.task,
        created_time_ms=now_ms,
        sha256=sha256,
        signature="",
        size_bytes=len(payload),
        memory_bytes=model.memory_bytes,
        features=spec.features,
        classes=spec.classes,
        metrics=dict(metrics or {}),
        parameters=dict(parameters or {}),
        registered_by=registered_by,
    )


def _fitting_model(spec: StreamSpec, payload: bytes, algorithm: str) -> Model:
    """Return the opened model. Raises PenstockError when it is none, or none for the stream's features and classes."""
    try:
        model = model_type(algorithm).load(payload)
    except ModelError as error:
        raise PenstockError(f"this is not a model that can be registered: {error}") from error
    if (model.n_features, model.classes) != (len(spec.features), len(spec.classes) or 1):
        raise PenstockError(
            f"the model takes {model.n_features} features and gives {model.classes} scores; stream {spec.name} "
            f"declares {len(spec.features)} features and {len(spec.classes)} classes"
        )
    names = tuple(getattr(model, "feature_names", None) or spec.features)
    if names != spec.features:
        raise PenstockError(
            f"the model was trained on the columns {', '.join(names)}; stream {spec.name} declares "
            f"{', '.join(spec.features)}: the order matters"
        )
    return model
