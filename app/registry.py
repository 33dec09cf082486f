"""What reading and writing the registry needs, assembled from the settings: store, signer, model opener."""

from collections.abc import Callable
from pathlib import Path

from agents.shelf import opener
from app.settings import Settings
from ml.models.protocol import Model
from schemas.events import ModelVersion
from stores.artifacts import ArtifactStore, Signer, load_or_create_key

LOCAL_KEY = Path(".penstock/signing.key")


def artifact_store(settings: Settings) -> ArtifactStore:
    """Return the store of model bytes."""
    return ArtifactStore(settings.model_storage_dir)


def signer(settings: Settings) -> Signer:
    """Return the signer with the configured key, or with a local one that is made when there is none yet."""
    key = settings.model_signing_key
    return Signer(key.encode() if key else load_or_create_key(LOCAL_KEY))


def model_opener(settings: Settings) -> Callable[[ModelVersion], Model]:
    """Return the function that verifies and opens a registered model. It blocks: call it in a thread."""
    return opener(artifact_store(settings), signer(settings), settings.model_threads)
