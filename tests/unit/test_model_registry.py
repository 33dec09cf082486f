"""Algorithms are found by name, in whatever package is installed."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml.errors import ModelUnknown
from ml.models.registry import algorithms, learner_type, model_type

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package that declares an algorithm, and takes a module with an empty class `Model` along."""

    def install(algorithm: str, target: str) -> None:
        information = tmp_path / f"{algorithm}-1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {algorithm}\nVersion: 1\n")
        (information / "entry_points.txt").write_text(f"[penstock.models]\n{algorithm} = {target}\n")
        (tmp_path / "somebodys_models.py").write_text("class Model: ...\n")

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    sys.modules.pop("somebodys_models", None)


def test_ours_are_there() -> None:
    learners = {"river-logistic", "river-hoeffding-tree", "river-adaptive-forest", "xgboost-online"}
    assert {*learners, "xgboost"} <= set(algorithms())
    assert {name for name in learners if learner_type(name).heavy} == {"river-adaptive-forest", "xgboost-online"}
    assert model_type("xgboost").__name__ == "XGBoostModel"


def test_one_that_only_scores_is_no_learner() -> None:
    with pytest.raises(
        ModelUnknown,
        match=r"algorithm 'xgboost' cannot learn from a stream; these can: .*river-logistic, xgboost-online",
    ):
        learner_type("xgboost")


def test_another_package_can_add_one(install: Install) -> None:
    install("somebodys", "somebodys_models:Model")
    assert "somebodys" in algorithms()
    assert model_type("somebodys").__module__ == "somebodys_models"


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ModelUnknown, match=r"no algorithm is called 'xgbost'; installed are: .*river-logistic.*xgboost"
    ):
        model_type("xgbost")


@pytest.mark.parametrize("target", ["not_installed:Model", "somebodys_models:Missing"])
def test_one_that_cannot_be_imported_is_refused_with_the_reason(install: Install, target: str) -> None:
    install("broken", target)
    with pytest.raises(ModelUnknown, match=f"algorithm 'broken' \\({target}\\) cannot be imported: "):
        model_type("broken")
