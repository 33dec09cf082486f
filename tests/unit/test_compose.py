"""docker-compose.yml stays valid, although nothing here has Docker: it is read and held against the code."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app.settings import Settings, load_settings

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
WORKER: Final = SERVICES["worker"]
KAFKA: Final = SERVICES["kafka"]
_REQUIRED: Final = re.compile(r"\$\{(\w+):\?[^}]+\}")


def test_the_settings_of_the_worker_are_ones_it_takes(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[streams.fraud]\nfeatures = ["amount"]\n', encoding="utf-8")
    environment = {name: _REQUIRED.sub("given", str(value)) for name, value in WORKER["environment"].items()}
    settings = load_settings(environment | {"ML_CONFIG": str(tmp_path / "penstock.toml")})
    assert settings.model_signing_key == "given"
    assert settings.kafka_bootstrap == environment["ML_KAFKA_BOOTSTRAP"]


def test_no_secret_has_a_value_or_a_default() -> None:
    secrets = {f"ML_{setting.name.upper()}" for setting in fields(Settings) if not setting.repr}
    given = {name: value for name, value in WORKER["environment"].items() if name in secrets}
    assert given, "models would be signed with a key that dies with the container"
    for name, value in given.items():
        required = _REQUIRED.fullmatch(value)
        assert required is not None, f"{name} must be ${{{name}:?…}}"
        assert required[1] == name


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_machine_only(service: str) -> None:
    for port in SERVICES[service]["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"{service} publishes {port}"


def test_the_worker_reaches_kafka_where_it_says_it_is() -> None:
    advertised = dict(
        listener.split("://") for listener in KAFKA["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    assert WORKER["environment"]["ML_KAFKA_BOOTSTRAP"] == advertised["INSIDE"]
    assert f"127.0.0.1:9092:{advertised['OUTSIDE'].split(':')[1]}" in KAFKA["ports"]


def test_the_worker_publishes_the_port_of_its_pages() -> None:
    assert f"127.0.0.1:{Settings.metrics_port}:{Settings.metrics_port}" in WORKER["ports"]


def test_kafka_is_of_the_version_that_the_tests_run_on() -> None:
    pom = (ROOT / "tests" / "kafka" / "pom.xml").read_text(encoding="utf-8")
    version = re.search(r"<kafka\.version>(.+)</kafka\.version>", pom)
    assert version is not None
    assert KAFKA["image"] == f"apache/kafka:{version[1]}"


def test_the_image_holds_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {package.partition(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    copied = set(re.findall(r"^COPY (\w+) \1$", WORKER["build"]["dockerfile_inline"], re.MULTILINE))
    assert copied == rooms


def test_volumes_are_declared_and_used() -> None:
    mounts = [mount.partition(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith(".")} == set(COMPOSE["volumes"])
