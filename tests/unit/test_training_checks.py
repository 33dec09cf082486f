"""What the doctor says of training, without a run."""

from typing import Any

import pytest

from app.doctor import examine
from app.findings import Finding
from app.settings import Settings
from app.training_checks import check_training
from schemas.streams import StreamSpec
from schemas.training import SearchSpec, TrainingSpec

CANARY = "canary-3e77"


def trained(training: TrainingSpec, **settings: str) -> Settings:
    stream = StreamSpec(name="flights", features=("a", "b"), training=training)
    return Settings(streams=(stream,), **settings)  # type: ignore[arg-type]


def sentences(findings: list[Finding], status: str = "problem") -> list[str]:
    return [finding.sentence for finding in findings if finding.status == status]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """These packages are not installed."""
    monkeypatch.setattr("app.training_checks.find_spec", lambda name: None if name in request.param else object())


def test_a_stream_that_is_not_trained_has_nothing_to_examine() -> None:
    settings = Settings(streams=(StreamSpec(name="flights", features=("a",)),), mlflow_uri="http://x")
    assert check_training(settings) == []


async def test_a_stream_that_can_be_trained_is_fine_and_the_doctor_says_so() -> None:
    search = SearchSpec(space={"max_depth": {"low": 2, "high": 18, "step": 7}})  # 2, 9 and 16, which is the most
    found = [finding async for finding in examine(trained(TrainingSpec(search=search)))]
    [finding] = [finding for finding in found if finding.subject == "training of flights"]
    assert (finding.status, finding.sentence) == ("ok", "the trainer xgboost and all that it needs are there")


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (TrainingSpec(trainer="xgbost"), "no trainer is called 'xgbost'"),
        (TrainingSpec(parameters={"max_deph": 3}), "max_deph"),
        (TrainingSpec(search=SearchSpec(space={"eta": {"low": 0.0, "high": 1.0, "log": True}})), "must be above 0"),
        (TrainingSpec(search=SearchSpec(method="grid", space={"eta": (0.1, 0.3)})), "needs choices or a step for eta"),
        (TrainingSpec(search=SearchSpec(space={"max_deph": (2, 8)})), "max_deph"),
        (TrainingSpec(search=SearchSpec(space={"rounds": (10, 500.5)})), "rounds"),
        (TrainingSpec(sql="select 1"), "training_sql_url"),
    ],
)
def test_what_would_end_each_run_is_a_problem(training: TrainingSpec, words: str) -> None:
    [sentence] = sentences(check_training(trained(training)))
    assert words in sentence


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("max_depth", (2, 40)),
        ("max_depth", (0, 8)),
        ("subsample", {"choices": [0.5, 1.5, 1.0]}),
    ],
)
def test_both_ends_of_a_search_and_all_its_choices_are_tried(name: str, given: Any) -> None:
    space = {"learning_rate": {"low": 0.01, "high": 0.3, "log": True}, name: given}
    found = check_training(trained(TrainingSpec(search=SearchSpec(space=space))))
    assert sentences(found) == []
    [sentence] = sentences(found, "warning")
    assert sentence.startswith("some trials of the search will fail: ")
    assert name in sentence


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("without", [("optuna", "sqlalchemy")], indirect=True)
def test_an_extra_that_a_run_needs_is_a_problem_and_is_named() -> None:
    training = TrainingSpec(sql="select 1", search=SearchSpec(space={"max_depth": (2, 8)}))
    found = check_training(trained(training, training_sql_url=f"postgresql://u:{CANARY}@h/x"))
    assert [sentence.rpartition(": ")[2] for sentence in sentences(found)] == ["pip install 'penstock[train]'"] * 2
    assert CANARY not in str(found)


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("without", [("mlflow", "matplotlib")], indirect=True)
def test_an_extra_that_a_run_can_do_without_is_a_warning() -> None:
    found = check_training(trained(TrainingSpec(), mlflow_uri=f"http://u:{CANARY}@h"))
    assert sentences(found) == []
    assert sentences(found, "warning") == [
        "model cards have no plots",
        "mlflow_uri is set, but its client is missing, so runs are not tracked",
    ]
    assert CANARY not in str(found)
