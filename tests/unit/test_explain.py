"""Explaining predictions: which scores count as reproduced, what is said of the others, and contributions."""

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from app.demo.explained import Explained
from app.explain import BACKGROUND_ROWS, Examined, Explainer, matrix_of
from app.explain_report import lines_of, sample_document, sample_lines
from app.models import RegistryView
from app.prediction_log import Logged, PredictionLog
from ml.explain import MOST_ENUMERATED, shapley_values
from ml.models.protocol import Matrix
from schemas.errors import PenstockError
from schemas.events import ModelVersion, Prediction, ShadowScore
from schemas.streams import StreamSpec
from schemas.wire import decode, encode


def version(model_id: str, **other: Any) -> ModelVersion:
    return ModelVersion(
        **{
            "model_id": model_id,
            "stream": "flights",
            "algorithm": "test",
            "task": "binary",
            "created_time_ms": 0,
            "sha256": "0" * 64,
            "signature": "",
            "size_bytes": 1,
            "memory_bytes": 1,
            "features": ("a", "b"),
        }
        | other
    )


@dataclass
class Model:
    """Scores a row by the sum of its features (a missing one counts 0.5), or as several classes by weights."""

    dtype: type = np.float64
    classes: int = 1
    n_features: int = 2
    shift: float = 0.0
    fails: bool = False

    def predict(self, matrix: Matrix) -> NDArray[Any]:
        if self.fails:
            raise ValueError("the model is ill")
        assert matrix.dtype == np.float32
        sums = np.where(np.isnan(matrix), 0.5, matrix).sum(axis=1, dtype=np.float64) / 10 + self.shift
        return (sums if self.classes == 1 else np.outer(sums, [1, 3, 2])).astype(self.dtype)


class Registry:
    """Some versions and their models."""

    def __init__(self, **models: Model) -> None:
        self.opened: list[str] = []
        self.loaded = models
        self.versions = {model_id: version(model_id) for model_id in models}

    @property
    def models(self) -> list[ModelVersion]:
        return list(self.versions.values())

    def find(self, model_id: str) -> ModelVersion:
        if model_id not in self.versions:
            raise PenstockError(f"stream flights has no model {model_id!r}")
        return self.versions[model_id]

    def open(self, found: ModelVersion) -> Any:
        self.opened.append(found.model_id)
        return self.loaded[found.model_id]

    def explainer(self, threshold: float = 0.5) -> Explainer:
        return Explainer(cast(RegistryView, self), self.open, threshold)


def logged(offset: int, model_id: str, score: float, **other: Any) -> Logged:
    prediction = Prediction(
        **{
            "event_id": f"e{offset}",
            "entity_id": "n1",
            "event_time_ms": 1,
            "scored_time_ms": 2,
            "model_id": model_id,
            "variant": "champion",
            "deployment_revision": 1,
            "score": score,
            "scores": None,
            "label": 0,
            "features": (1.0, None),
            "partition": 0,
            "offset": offset,
        }
        | other
    )
    return Logged((0, offset), 2, decode(Prediction, encode(prediction)))


class Log:
    """Neighbours of whatever is explained."""

    def __init__(self, *neighbours: Logged) -> None:
        self.neighbours = [one.prediction for one in neighbours]

    async def around(self, place: tuple[int, int], count: int, wanted: Any) -> list[Prediction]:
        assert count == BACKGROUND_ROWS
        return [one for one in self.neighbours if wanted(one)]


async def examined(registry: Registry, *predictions: Logged) -> list[Examined]:
    return await registry.explainer().examine(predictions)


async def test_a_32_bit_score_is_reproduced_only_to_the_bit() -> None:
    score = float(np.float32(0.15))
    assert score != 0.15
    registry = Registry(m1=Model(np.float32))
    found = await examined(
        registry, *(logged(i, "m1", s) for i, s in enumerate((score, 0.15, math.nextafter(score, 1))))
    )
    assert [one.served.same for one in found] == [True, False, False]
    assert [one.served.score for one in found] == [score] * 3


async def test_a_64_bit_score_may_differ_by_1e_12() -> None:
    registry = Registry(m1=Model())
    found = await examined(registry, *(logged(i, "m1", 0.15 + d) for i, d in enumerate((0, 9e-13, 1.1e-12, -2e-12))))
    assert [one.served.same for one in found] == [True, True, False, False]


async def test_every_class_must_be_reproduced() -> None:
    registry = Registry(m1=Model(np.float32, classes=3))
    registry.versions["m1"] = version("m1", task="multiclass", classes=("x", "y", "z"))
    scores = np.float32([0.15, 0.45, 0.30]).tolist()
    right = logged(0, "m1", scores[1], scores=scores, label="y")
    found = await examined(
        registry,
        right,
        logged(1, "m1", scores[1], scores=[scores[0], scores[1], 0.31]),
        logged(2, "m1", 0.46, scores=scores),
        logged(3, "m1", scores[1]),
    )
    assert [one.served.same for one in found] == [True, False, False, False]
    explanation = await registry.explainer().explain(
        right, cast(PredictionLog, Log(logged(9, "m1", 0, features=(0, 0))))
    )
    assert (explanation.label, explanation.of_class) == ("y", "y")
    assert explanation.contributions is not None
    assert explanation.contributions.values == pytest.approx([0.3, 0.15])
    lines = [line.split() for line in lines_of(StreamSpec(name="flights", features=("a", "b")), explanation)]
    assert ["y", repr(scores[1]), repr(scores[1])] in lines
    assert ["b", "missing", "+0.150000"] in lines
    assert ["(sum)", "+0.450000"] in lines


async def test_a_model_is_opened_once_for_all_its_predictions_and_shadows_are_executed_too() -> None:
    registry = Registry(m1=Model(), m2=Model(shift=0.1), m3=Model(fails=True))
    shadows = (
        ShadowScore(variant="two", model_id="m2", score=0.25),
        ShadowScore(variant="three", model_id="m3", score=0.9),
        ShadowScore(variant="gone", model_id="m4", score=0.9),
    )
    changed = msgspec.structs.replace(shadows[0], score=0.26)
    found = await examined(
        registry,
        logged(0, "m1", 0.15, shadows=shadows),
        logged(1, "m2", 0.25),
        logged(2, "m1", 0.15, shadows=(changed,)),
    )
    assert sorted(registry.opened) == ["m1", "m2", "m3"]
    assert [one.served.same for one in found] == [True, True, True]
    assert [(shadow.same, shadow.score) for shadow in found[0].shadows] == [(True, 0.25), (False, None), (False, None)]
    assert found[0].shadows[1].problem == "model m3 cannot score these features: ValueError: the model is ill"
    assert found[0].shadows[2].problem == "stream flights has no model 'm4'"
    assert found[0].wrong == [], "what cannot be executed is no shadow's fault"
    assert [said.variant for said in found[2].wrong] == ["two"]


async def test_what_cannot_be_executed_is_not_reproduced_and_says_why() -> None:
    registry = Registry(m1=Model(), gone=Model(), broken=Model())
    registry.versions["gone"] = version("gone", pruned=True)
    del registry.loaded["broken"]
    predictions = [
        logged(0, "m1", 0.15, features=(1.0, None, 3.0)),
        logged(1, "gone", 0.15),
        logged(2, "broken", 0.15),
        logged(3, "unknown", 0.15),
    ]
    sentences = [
        "the prediction at 0:0 is of 3 features, and model m1 takes 2",
        "model gone was pruned: its file was deleted, so its scores cannot be computed again",
        "model broken cannot be opened: KeyError: 'broken'",
        "stream flights has no model 'unknown'",
    ]
    found = await examined(registry, *predictions)
    assert [one.served.problem for one in found] == sentences
    assert all(one.not_executed and one.wrong == [] for one in found)
    for prediction, sentence in zip(predictions, sentences, strict=True):
        with pytest.raises(PenstockError) as raised:
            await registry.explainer().explain(prediction, cast(PredictionLog, Log()))
        assert str(raised.value) == sentence


async def test_a_sample_is_counted_by_model_and_tells_what_is_wrong() -> None:
    registry = Registry(m1=Model(), m2=Model())
    gone = ShadowScore(variant="gone", model_id="m4", score=0.9)
    wrong = ShadowScore(variant="two", model_id="m2", score=0.9)
    found = await examined(
        registry,
        logged(0, "m1", 0.15),
        logged(1, "m1", 0.25, shadows=(gone,)),
        logged(2, "m2", 0.15, shadows=(wrong,)),
        logged(3, "m3", 0.15),
        logged(4, "m3", 0.15),
    )
    document = sample_document(StreamSpec(name="flights", features=("a", "b")), 6, 7, found)
    assert (document["asked"], document["n"], document["identical"], document["n_not_executed"]) == (6, 5, 2, 2)
    counts = {model_id: (one["n"], one["identical"]) for model_id, one in document["models"].items()}
    assert counts == {"m1": (2, 1), "m2": (1, 1), "m3": (2, 0)}
    assert document["shadow_scores"] == {"n": 2, "identical": 0, "not_executed": 1}
    text = list(sample_lines(document))
    assert text[0] == "2 of 5 scores are identical (there are no more, of 6 asked for); seed 7"
    assert text[-3:] == [
        "NOT THE SAME: 0:1 by m1: logged 0.25, executed again 0.15",
        "NOT THE SAME: 0:2 by m2: logged 0.9, executed again 0.15",
        "COULD NOT BE EXECUTED: 2 by m3, such as 0:3: stream flights has no model 'm3'",
    ]
    assert Explained.of(found) == Explained(5, 1, "m1 at 0:1 of the predictions: logged 0.25, executed again 0.15")
    assert Explained.of(found[:1]) == Explained(1, 1)
    assert Explained.of(found[3:4]) == Explained(1, 0, "m3 at 0:3 of the predictions: stream flights has no model 'm3'")


async def test_contributions_are_compared_with_predictions_of_the_same_features() -> None:
    registry = Registry(m1=Model(), m2=Model(), other=Model())
    registry.versions["other"] = version("other", features=("b", "a"))
    log = Log(
        logged(0, "m2", 0, features=(0.0, 0.0)),
        logged(1, "other", 0, features=(8.0, 8.0)),
        logged(2, "m1", 0, features=(2.0, 1.0)),
        logged(3, "nobody", 0, features=(8.0, 8.0)),
    )
    one = logged(4, "m1", 0.15, label=1)
    explanation = await registry.explainer(threshold=0.2).explain(one, cast(PredictionLog, log))
    assert explanation.background == 2
    assert explanation.label == 0
    found = explanation.contributions
    assert found is not None
    assert (found.method, found.scale) == ("exact", "score")
    assert found.base == pytest.approx(0.15)
    assert found.values == pytest.approx([0.0, 0.0])
    assert found.output == pytest.approx(0.15)


async def test_without_anything_to_compare_with_there_are_no_contributions() -> None:
    explanation = await Registry(m1=Model()).explainer().explain(logged(0, "m1", 0.15), cast(PredictionLog, Log()))
    assert explanation.examined.served.same
    assert explanation.contributions is None
    assert explanation.why_none == "no contributions: there is no background row to compare with"


def test_missing_features_become_nan_and_numbers_become_32_bit() -> None:
    matrix = matrix_of([logged(0, "m1", 0, features=(0.1, None)).prediction])
    assert (matrix.dtype, matrix.shape) == (np.float32, (1, 2))
    assert matrix[0, 0] == np.float32(0.1)
    assert np.isnan(matrix[0, 1])


def test_few_features_are_averaged_over_all_their_orders() -> None:
    random = np.random.default_rng(1)
    row, background = random.normal(size=4).astype(np.float32), random.normal(size=(3, 4)).astype(np.float32)

    def score(matrix: Matrix) -> NDArray[np.float64]:
        return np.asarray(matrix[:, 0] * matrix[:, 1] + np.exp(matrix[:, 2]) * matrix[:, 3] > 0.3, dtype=np.float64)

    expected = np.zeros(4)
    for order in permutations(range(4)):
        mixed = background.copy()
        for feature in order:
            before = score(mixed).mean()
            mixed[:, feature] = row[feature]
            expected[feature] += (score(mixed).mean() - before) / 24
    found = shapley_values(score, row, background, random)
    assert found.method == "exact"
    assert found.values == pytest.approx(expected, abs=1e-12)


def test_sampled_orders_come_near_the_exact_values() -> None:
    random = np.random.default_rng(2)
    width = MOST_ENUMERATED + 1
    row, background = random.normal(size=width).astype(np.float32), random.normal(size=(50, width)).astype(np.float32)
    pairs = [(i, i + 1) for i in range(0, width - 1, 2)]

    def score(matrix: Matrix) -> NDArray[np.float64]:
        return np.asarray(sum(matrix[:, i] * matrix[:, j] for i, j in pairs) + 0.0 * matrix[:, -1], dtype=np.float64)

    # Of two factors, each has its own step averaged over both orders.
    expected = np.zeros(width)
    for i, j in pairs:
        for one, two in ((i, j), (j, i)):
            steps = (row[one] - background[:, one]) * (row[two] + background[:, two]) / 2
            expected[one] = steps.mean()
    found = shapley_values(score, row, background, random)
    assert found.method == "sampled"
    assert found.values == pytest.approx(expected, abs=1e-5), "reversed orders cancel the error of pairs altogether"


def test_a_background_that_needs_several_matrices_is_used_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    for width in (3, MOST_ENUMERATED + 2):
        row, background = (
            random.normal(size=width).astype(np.float32),
            random.normal(size=(7, width)).astype(np.float32),
        )
        sizes: list[int] = []

        def score(matrix: Matrix, sizes: list[int] = sizes) -> NDArray[np.float64]:
            sizes.append(len(matrix))
            return np.asarray(np.prod(matrix, axis=1, dtype=np.float64))

        whole = shapley_values(score, row, background, np.random.default_rng(0))
        largest = max(sizes)
        monkeypatch.setattr("ml.explain._MOST_CELLS", 2 * 2**3 * 3 if width == 3 else 2 * (width + 1) * width)
        sizes.clear()
        pieces = shapley_values(score, row, background, np.random.default_rng(0))
        assert max(sizes) < largest
        assert pieces.output == pytest.approx(whole.output, abs=1e-12)
        assert pieces.method == whole.method
        monkeypatch.undo()
