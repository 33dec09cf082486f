"""What a learner reads of the samples log, and what it leaves out."""

from typing import Any

import numpy as np
import pytest

from agents.learn.reader import LearnableReader
from ml.learning.samples import Samples
from schemas.events import ShadowScore
from schemas.streams import LearnerSpec, StreamSpec
from schemas.wire import encode
from tests.support import Entry, sample_of

BIRDS = StreamSpec(name="s", features=("a",), task="multiclass", classes=("owl", "tit", "jay"))
BINARY = StreamSpec(name="s", features=("a",))
LEARNER = LearnerSpec(algorithm="river-logistic", start_from="m0")


def _read(spec: StreamSpec, *samples: dict[str, Any]) -> Samples:
    records = [Entry(offset, encode(sample_of(offset, **sample)), b"s") for offset, sample in enumerate(samples)]
    [run] = LearnableReader(spec, "online", LEARNER).read(records)
    assert isinstance(run, Samples)
    return run


def test_scores_from_before_a_class_was_added_are_no_comparison() -> None:
    now, before = [0.2, 0.3, 0.5], [0.4, 0.6]
    shadow = ShadowScore(variant="online", model_id="online@7", score=0.6, scores=before)
    read = _read(
        BIRDS,
        {"label": "jay", "score": 0.5, "scores": now, "model_id": "m0"},
        {"label": "owl", "score": 0.6, "scores": before, "model_id": "online@5"},
        {"label": "tit", "score": 0.5, "scores": now, "model_id": "other", "shadows": (shadow,)},
        {"label": "tit", "score": 0.5, "model_id": "m0"},
    )
    assert read.labels.tolist() == [2, 0, 1, 1]
    assert read.served[0].tolist() == now
    assert np.isnan(read.served[1:]).all()


@pytest.mark.parametrize("weight", [5e-324, 1e-7, 1.1e6, 1e308])
def test_a_weight_that_no_model_can_learn_from_is_left_out(weight: float, caplog: pytest.LogCaptureFixture) -> None:
    read = _read(BINARY, {"weight": 0.0}, {"weight": weight}, {"weight": 1e-6}, {"weight": 1e6})
    assert read.weights.tolist() == [0.0, 1e-6, 1e6]
    assert "1 records of s.samples are of other features" in caplog.text
