"""Algorithms by name. Any installed package can add one: an entry point in the group `penstock.models`."""

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import EntryPoints, entry_points
from typing import cast

from ml.errors import ModelUnknown
from ml.models.protocol import Learner, Model

GROUP = "penstock.models"


def algorithms() -> tuple[str, ...]:
    """Return the names of all installed algorithms, sorted."""
    return tuple(sorted(_installed().names))


def model_type(algorithm: str) -> type[Model]:
    """Return the class that provides `algorithm`, importing its module.

    Raises ModelUnknown when no package provides it, or when the one that does cannot be imported. The
    first call for a library takes as long as its import (about a second), so it belongs in a thread.
    """
    installed = _installed()
    if algorithm not in installed.names:
        raise ModelUnknown(f"no algorithm is called {algorithm!r}; installed are: {', '.join(sorted(installed.names))}")
    entry = installed[algorithm]
    try:
        found: type[Model] = entry.load()
    except (ImportError, AttributeError) as error:
        raise ModelUnknown(f"algorithm {algorithm!r} ({entry.value}) cannot be imported: {error}") from error
    return found


def learner_type(algorithm: str) -> type[Learner]:
    """Return the class that provides `algorithm`, as `model_type` does; raises ModelUnknown when it cannot learn."""
    kind = model_type(algorithm)
    if not hasattr(kind, "learn"):
        raise ModelUnknown(f"algorithm {algorithm!r} cannot learn from a stream; these can: {', '.join(_learners())}")
    return cast(type[Learner], kind)


def _learners() -> Iterator[str]:
    """Yield the names of the algorithms that can learn. Imports them all, but for those that cannot be imported."""
    for algorithm in algorithms():
        with suppress(ModelUnknown):
            if hasattr(model_type(algorithm), "learn"):
                yield algorithm


def _installed() -> EntryPoints:
    return entry_points(group=GROUP)
