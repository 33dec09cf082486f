"""Trainers by name. Any installed package can add one: an entry point in the group `penstock.trainers`."""

from importlib.metadata import EntryPoint, EntryPoints, entry_points

from ml.training.protocol import Trainer, TrainingImpossible

GROUP = "penstock.trainers"


def trainers() -> tuple[str, ...]:
    """Return the names of all installed trainers, sorted."""
    return tuple(sorted(_installed().names))


def trainer_type(name: str) -> type[Trainer]:
    """Return the class of the trainer called `name`, importing its module.

    Raises TrainingImpossible when no package provides it, or when what it needs is not installed. The first call for
    a library takes as long as its import (about a second), so it belongs in a thread.
    """
    installed = _installed()
    if name not in installed.names:
        raise TrainingImpossible(f"no trainer is called {name!r}; installed are: {', '.join(trainers())}")
    entry = installed[name]
    try:
        found: type[Trainer] = entry.load()
    except (ImportError, AttributeError) as error:
        raise TrainingImpossible(
            f"trainer {name!r} ({entry.value}) cannot be imported: {error}{_remedy(entry)}"
        ) from error
    return found


def _remedy(entry: EntryPoint) -> str:
    """Return what to install, when the package that has the trainer has an extra of the same name."""
    if entry.dist is None or entry.name not in (entry.dist.metadata.get_all("Provides-Extra") or ()):
        return ""
    return f"; install what it needs: pip install '{entry.dist.name}[{entry.name}]'"


def _installed() -> EntryPoints:
    return entry_points(group=GROUP)
