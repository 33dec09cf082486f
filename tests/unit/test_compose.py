"""docker-compose.yml stays valid, although nothing here has Docker: it is read and held against the code."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from agents.notify.stage import FINISH_S
from app.settings import Settings, load_settings

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
WORKER: Final = SERVICES["worker"]
KAFKA: Final = SERVICES["kafka"]
HEAD: Final = (ROOT / "docker-compose.yml").read_text(encoding="utf-8").partition("services:")[0]
_REQUIRED: Final = re.compile(r"\$\{(\w+):\?[^}]+\}")
_SECRET: Final = re.compile("KEY|PASSWORD|SECRET|TOKEN")
_MADE_BY_USERS: Final = {"./penstock.toml": "penstock stream init"}


def test_the_settings_of_the_worker_are_ones_it_takes(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[streams.fraud]\nfeatures = ["amount"]\n', encoding="utf-8")
    given_on = {name: f"redis://{name}" for name, value in WORKER["environment"].items() if value is None}
    environment = {name: _REQUIRED.sub("given", str(value)) for name, value in WORKER["environment"].items()} | given_on
    settings = load_settings(environment | {"ML_CONFIG": str(tmp_path / "penstock.toml")})
    assert settings.model_signing_key == "given"
    assert settings.kafka_bootstrap == environment["ML_KAFKA_BOOTSTRAP"]
    assert (settings.redis_url, settings.mlflow_uri) == ("redis://ML_REDIS_URL", "redis://ML_MLFLOW_URI")


def test_no_secret_of_the_worker_has_a_value_or_a_default() -> None:
    secrets = {f"ML_{setting.name.upper()}" for setting in fields(Settings) if not setting.repr}
    given = {name: value for name, value in WORKER["environment"].items() if name in secrets}
    assert given["ML_MODEL_SIGNING_KEY"], "models would be signed with a key that dies with the container"
    for name, value in given.items():
        required = value is None or _REQUIRED.fullmatch(value)
        assert required, f"{name} must be ${{{name}:?…}}, or given on from outside"
        assert required is True or required[1] == name


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"worker"}))
def test_a_secret_of_any_other_service_is_a_file_that_compose_makes_of_a_variable(service: str) -> None:
    granted = {f"/run/secrets/{name}" for name in SERVICES[service].get("secrets", [])}
    named = {value for name, value in SERVICES[service].get("environment", {}).items() if _SECRET.search(name.upper())}
    assert named <= granted
    for mount in SERVICES[service].get("volumes", []):
        for file in filter(Path.is_file, [ROOT / mount.partition(":")[0]]):
            assert set(re.findall(r"/run/secrets/\w+", file.read_text(encoding="utf-8"))) <= granted


def test_every_secret_comes_from_a_variable_that_the_head_of_the_file_names() -> None:
    assert set(COMPOSE["secrets"]) == {name for service in SERVICES.values() for name in service.get("secrets", [])}
    for secret in COMPOSE["secrets"].values():
        assert list(secret) == ["environment"]
        assert f"export {secret['environment']}" in HEAD


def test_every_variable_and_profile_is_told_in_the_head_of_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8").removeprefix(HEAD)
    given_on = {name for name, value in WORKER["environment"].items() if value is None}
    assert {name for name in {*re.findall(r"\$\{(\w+)", text), *given_on} if f"export {name}=" not in HEAD} == set()
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert set(re.findall(r"--profile (\w+)", HEAD)) == profiles
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["kafka", "worker"]


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"worker"}))
def test_images_have_a_release_for_a_tag(service: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-alpine)?", SERVICES[service]["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_paths_of_this_folder_are_there(service: str) -> None:
    mounts = [mount.split(":")[0] for mount in SERVICES[service].get("volumes", []) if mount.startswith(".")]
    for mount in mounts:
        assert (ROOT / mount).exists() or _MADE_BY_USERS[mount] in HEAD, mount


def test_prometheus_grafana_and_the_worker_find_each_other() -> None:
    [job] = _deployed("prometheus/prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"worker:{Settings.metrics_port}"]}]
    assert "127.0.0.1:9090:9090" in SERVICES["prometheus"]["ports"]
    [source] = _deployed("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = _deployed("grafana/provisioning/dashboards/penstock.yml")["providers"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (ROOT / "deploy" / "grafana" / "dashboards" / home.name).exists()
    [alerting] = _deployed("prometheus/prometheus.yml")["alerting"]["alertmanagers"]
    assert alerting["static_configs"] == [{"targets": ["alertmanager:9093"]}]


def _deployed(path: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_machine_only(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"{service} publishes {port}"


def test_the_worker_reaches_kafka_where_it_says_it_is() -> None:
    advertised = dict(
        listener.split("://") for listener in KAFKA["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    assert WORKER["environment"]["ML_KAFKA_BOOTSTRAP"] == advertised["INSIDE"]
    assert f"127.0.0.1:9092:{advertised['OUTSIDE'].split(':')[1]}" in KAFKA["ports"]


def test_the_worker_publishes_the_port_of_its_pages() -> None:
    for port in (Settings.metrics_port, Settings.page_port):
        assert f"127.0.0.1:{port}:{port}" in WORKER["ports"]


def test_the_worker_has_time_to_end_its_deliveries_and_to_commit_them() -> None:
    assert int(WORKER["stop_grace_period"].removesuffix("s")) >= 4 * FINISH_S


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
