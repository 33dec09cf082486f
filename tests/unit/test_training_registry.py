"""Trainers are found by name, in whatever package is installed; one that is not there is told in a sentence."""

from pathlib import Path

import pytest

from ml.training.protocol import TrainingImpossible
from ml.training.registry import trainer_type, trainers


def test_the_house_has_two() -> None:
    assert {"sklearn", "xgboost"} <= set(trainers())


def test_an_unknown_trainer_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(TrainingImpossible, match=r"no trainer is called 'magic'; installed are: .*xgboost"):
        trainer_type("magic")


def test_a_trainer_whose_library_is_missing_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "somebodys-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1\nProvides-Extra: deep\n")
    (information / "entry_points.txt").write_text(
        "[penstock.trainers]\ndeep = no_such_module:Trainer\nplain = no_such_module:Trainer\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        TrainingImpossible, match=r"No module named 'no_such_module'; .*pip install 'somebodys\[deep\]'"
    ):
        trainer_type("deep")
    with pytest.raises(TrainingImpossible, match=r"No module named 'no_such_module'$"):
        trainer_type("plain")
