"""The cards of models: what a training run wrote down of its candidate, kept beside the models in their store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from schemas.errors import PenstockError
from schemas.events import ModelVersion
from stores.documents import Documents, DocumentsMissing, card_folder

TEXT: Final = "card.md"


def read_card(documents: Documents, version: ModelVersion) -> dict[str, bytes]:
    """Return the files of a model's card by name; its text is `card.md`. Blocks.

    Raises PenstockError when the model has none, and ArtifactUnavailable.
    """
    try:
        files = documents.get(card_folder(version.model_id))
    except DocumentsMissing as error:
        made = f"training run {version.run_id}" if version.run_id else "no training run"
        raise PenstockError(f"model {version.model_id} has no card in the model store: {made} made it") from error
    if TEXT not in files:
        raise PenstockError(f"the card of model {version.model_id} is not whole: {TEXT} is missing in the model store")
    return files


def write_card(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files into `folder`, which is made if need be. Raises PenstockError when that does not work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, payload in files.items():
            (folder / name).write_bytes(payload)
    except OSError as error:
        raise PenstockError(f"the card cannot be written to {folder}: {error.strerror or error}") from error
