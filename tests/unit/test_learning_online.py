"""The online learner: what it learns and tells, what it refuses."""

from typing import Any

import numpy as np
import pytest

from ml.errors import ModelInputInvalid, ModelParametersInvalid, ModelPayloadInvalid, ModelUnknown
from ml.learning.online import OnlineLearner, Samples, Settings, Update, open_learner
from ml.models.registry import learner_type


def _samples(rows: int, start: int = 0, seed: int = 0) -> Samples:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, 2)).astype(np.float32)
    times = np.arange(start, start + rows) * 10
    return Samples(
        offsets=np.arange(start, start + rows) * 2,
        event_time_ms=times,
        label_time_ms=times + 5,
        matrix=matrix,
        labels=(matrix[:, 0] > 0).astype(np.int64),
        weights=np.ones(rows),
        served=np.full(rows, 0.5),
    )


def _learner(strategy: Any, algorithm: str = "river-logistic", **settings: Any) -> OnlineLearner:
    return open_learner(
        algorithm, 2, 1, {}, Settings(strategy=strategy, **settings), compare_samples=100, maturity_ms=0
    )


def test_incremental_learns_everything_at_once_and_tells_of_no_updates() -> None:
    learner, samples = _learner("incremental"), _samples(50)
    assert learner.take(samples) == []
    alone = learner_type("river-logistic")(2)
    alone.learn(samples.matrix, samples.labels)
    assert learner.model.canonical() == alone.canonical()
    assert (learner.learnt, learner.waiting, learner.next_offset) == (50, 0, 99)


def test_a_batch_is_learnt_when_it_is_whole_and_told_with_its_offsets() -> None:
    learner, samples = _learner("mini_batch", batch_size=20), _samples(50)
    assert learner.take(samples) == [Update("batch", 20, 0, 38, 190), Update("batch", 20, 40, 78, 390)]
    alone = learner_type("river-logistic")(2)
    alone.learn(samples.matrix[:40], samples.labels[:40])
    assert learner.model.canonical() == alone.canonical()
    assert (learner.learnt, learner.waiting, learner.next_offset) == (40, 10, 80)


def test_a_manual_trigger_learns_what_waits() -> None:
    learner = _learner("mini_batch", batch_size=20)
    learner.take(_samples(7))
    assert learner.trigger() == [Update("manual", 7, 0, 12, 60)]
    assert (learner.learnt, learner.waiting, learner.next_offset) == (7, 0, 13)
    assert learner.trigger() == []


def test_taking_nothing_changes_nothing() -> None:
    learner = _learner("adaptive")
    learner.take(_samples(5))
    before = learner.canonical()
    assert learner.take(_samples(0)) == []
    assert learner.canonical() == before


def test_an_adaptive_learner_notices_that_the_world_has_changed() -> None:
    learner = _learner("adaptive", batch_size=50, max_buffer=300)
    usual = [update.reason for start in range(0, 3000, 300) for update in learner.take(_samples(300, start, start))]
    assert set(usual) == {"buffer_full"}
    changed = _samples(50, 3000, 7)
    [update] = learner.take(Samples(*changed.columns()[:4], 1 - changed.labels, *changed.columns()[5:]))
    assert (update.reason, update.samples) == ("accuracy", 50)


def test_the_standing_is_of_scores_from_before_learning() -> None:
    learner = _learner("mini_batch", "xgboost-online", batch_size=50)
    samples, own = _samples(200), []
    for start in range(0, 200, 50):
        piece = samples.between(start, start + 50)
        own.append(learner.model.predict(piece.matrix))
        learner.take(piece)
    standing = learner.standing()
    assert standing is not None
    newest = np.concatenate(own)[100:]
    assert standing.own == pytest.approx(float(((newest - samples.labels[100:]) ** 2).mean()), abs=1e-6)
    assert (standing.samples, standing.served) == (100, pytest.approx(0.25))


def test_a_learner_with_too_few_samples_has_no_standing() -> None:
    learner = _learner("incremental")
    learner.take(_samples(99))
    assert learner.standing() is None


def test_a_snapshot_is_the_model_and_where_it_stands() -> None:
    learner = _learner("mini_batch", batch_size=20)
    learner.take(_samples(30))
    snapshot = learner.snapshot()
    assert (snapshot.learnt, snapshot.next_offset) == (20, 40)
    assert learner_type("river-logistic").load(snapshot.payload).canonical() == learner.model.canonical()
    assert snapshot.memory_bytes == learner.model.memory_bytes


@pytest.mark.parametrize("algorithm", ["river-hoeffding-tree", "river-adaptive-forest", "xgboost-online"])
def test_a_snapshot_takes_one_dump(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = _learner("mini_batch", algorithm, batch_size=20)
    learner.take(_samples(40))
    kind, dumps = type(learner.model), []
    dump = kind.dump
    monkeypatch.setattr(kind, "dump", lambda model: dumps.append(model) or dump(model))
    snapshot = learner.snapshot()
    assert dumps == [learner.model]
    assert snapshot.memory_bytes == kind.load(snapshot.payload).memory_bytes > len(snapshot.payload)


def test_a_snapshot_of_what_has_learnt_nothing_says_so() -> None:
    learner = _learner("mini_batch", batch_size=20)
    learner.take(_samples(19))
    assert learner.snapshot().learnt == 0
    learner.take(_samples(1, 19))
    assert learner.snapshot().learnt == 20
    restarted = open_learner("river-logistic", 2, 1, {}, learner.settings, dumped=learner.dump())
    assert restarted.snapshot().learnt == 20


def test_a_learner_goes_on_from_the_model_it_is_given() -> None:
    first = _learner("incremental")
    first.take(_samples(100))
    payload = first.snapshot().payload
    second = open_learner("river-logistic", 2, 1, {}, Settings(strategy="incremental"), start_from=payload)
    assert second.model.canonical() == first.model.canonical()
    assert second.learnt == 0
    with pytest.raises(ModelParametersInvalid, match=r"begun with learning_rate = 0\.01, which cannot become 0\.5"):
        open_learner("river-logistic", 2, 1, {"learning_rate": 0.5}, Settings(), start_from=payload)


def test_settings_that_changed_hold_from_the_dump_on_and_what_waited_is_learnt() -> None:
    before = _learner("mini_batch", batch_size=20)
    before.take(_samples(30))
    settings = Settings(strategy="mini_batch", batch_size=5)
    after = open_learner("river-logistic", 2, 1, {}, settings, compare_samples=7, dumped=before.dump())
    assert (after.learnt, after.waiting, after.comparison.wanted) == (30, 0, 7)
    assert [update.samples for update in after.take(_samples(12, 30))] == [5, 5]
    with pytest.raises(ModelParametersInvalid, match="learning_rate"):
        open_learner("river-logistic", 2, 1, {"learning_rate": 0.5}, settings, dumped=before.dump())


def test_what_is_dumped_is_bounded_by_the_buffer_and_the_model() -> None:
    learner = _learner("periodic", max_buffer=1000, period_ms=10**12)
    small = len(learner.dump())
    learner.take(_samples(999))
    assert len(learner.dump()) - small < 999 * 60
    learner.take(_samples(200_001, start=999))
    assert len(learner.dump()) < 2 * small + 2000 * 60


def test_a_learner_that_cannot_be_opened_says_why() -> None:
    settings = Settings()
    with pytest.raises(ModelUnknown, match="'xgboost' cannot learn from a stream"):
        open_learner("xgboost", 2, 1, {}, settings)
    with pytest.raises(ModelParametersInvalid, match="has no parameter 'depth'"):
        open_learner("river-hoeffding-tree", 2, 1, {"depth": 3}, settings)
    with pytest.raises(ModelParametersInvalid, match="xgboost-online learns from batches"):
        _learner("incremental", "xgboost-online")
    payload = _learner("incremental").snapshot().payload
    with pytest.raises(ModelPayloadInvalid, match="takes 2 features and gives 1 scores; 3 features and 1 scores are"):
        open_learner("river-logistic", 3, 1, {}, settings, start_from=payload)
    with pytest.raises(ModelPayloadInvalid, match="not a river-hoeffding-tree model"):
        open_learner("river-hoeffding-tree", 2, 1, {}, settings, start_from=payload)


def test_a_damaged_dump_is_refused() -> None:
    learner = _learner("mini_batch", batch_size=20)
    learner.take(_samples(30))
    dumped = learner.dump()
    for damaged in (b"", dumped[:-1], dumped + b"x", dumped.replace(b"online learner 1", b"online learner 2")):
        with pytest.raises(ModelPayloadInvalid, match="this is not a whole online learner"):
            open_learner("river-logistic", 2, 1, {}, Settings(), dumped=damaged)
    with pytest.raises(ModelPayloadInvalid, match="of another shape"):
        open_learner("river-logistic", 7, 1, {}, Settings(), dumped=dumped)


def test_what_a_model_refuses_is_refused() -> None:
    learner, samples = _learner("incremental"), _samples(5)
    samples.labels[3] = 9
    with pytest.raises(ModelInputInvalid, match="labels must be"):
        learner.take(samples)
