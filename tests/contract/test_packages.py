"""What is installed: setuptools discovers nothing in a flat layout, so pyproject.toml names every package."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_of_the_house_is_installed() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {name.partition(".")[0] for name in named}
    found = {
        ".".join(file.parent.relative_to(ROOT).parts) for room in rooms for file in (ROOT / room).rglob("__init__.py")
    }
    assert found == set(named)
