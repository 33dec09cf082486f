"""Environments of their own for what a benchmark compares with, so that nobody's versions bind anybody else's."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_CACHE: Final = Path(__file__).parents[1] / ".cache" / "peers"
_INSTALL_TIMEOUT_S: Final = 900


def python_of(folder: Path, cache: Path = _CACHE) -> Path:
    """Return a Python that has what `folder / "requirements.txt"` names, pinned.

    It is installed when `cache` lacks it, which takes a minute or some. Other requirements, or another Python, make
    another environment; the folder's name is in its name. Raises CalledProcessError when it cannot be installed.
    """
    requirements = folder / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    environment = cache / f"{folder.name}-{wanted}"
    if not environment.is_dir():
        print(f"installing the environment of {folder.name} into {cache.parent.name}/{cache.name}", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
        try:
            _run([sys.executable, "-m", "venv", made])
            _run([made / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", requirements])
            made.rename(environment)  # it appears only when complete
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return environment / "bin" / "python"


def pins(folder: Path) -> dict[str, str]:
    """Return the versions that `folder / "requirements.txt"` pins, by package."""
    lines = (line.partition("#")[0] for line in (folder / "requirements.txt").read_text(encoding="utf-8").splitlines())
    pinned = (line.partition("==") for line in lines)
    return {name.strip().partition("[")[0]: version.strip() for name, _, version in pinned if version}


def _run(command: list[str | Path]) -> None:
    subprocess.run(command, timeout=_INSTALL_TIMEOUT_S, check=True)
