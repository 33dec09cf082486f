"""The fold checker finds a learner or an evaluator that is not a fold of its log."""

import random
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import pytest

from benchmarks.fold_checker import Fold, LogRecord, Published, Told, evaluation, learner_differences
from schemas.events import Sample
from schemas.streams import EvaluationSpec, LearnerSpec, StreamSpec

SPEC: Final = StreamSpec(
    name="s", features=("a", "b"), evaluation=EvaluationSpec(window_samples=50, maturity_minutes=0)
)
ONLINE: Final = LearnerSpec(
    algorithm="river-logistic", strategy="incremental", batch_size=1, max_buffer=1, publish_every=100
)
MINI: Final = LearnerSpec(
    algorithm="river-logistic", strategy="mini_batch", batch_size=30, max_buffer=30, publish_every=100
)
BOTH = pytest.mark.parametrize("learner", [ONLINE, MINI], ids=["online", "mini"])


def record(number: int, offset: int, values: Sequence[float]) -> LogRecord:
    sample = Sample(
        event_id=f"e{number}",
        entity_id="n",
        revision=0,
        event_time_ms=number * 1_000,
        label_time_ms=number * 1_000 + 500,
        features=tuple(values),
        label=int(values[0] > 0),
        weight=1.0,
        score=0.5,
        predicted=0,
        model_id="model",
        variant="champion",
        deployment_revision=1,
        scored_time_ms=1,
    )
    return LogRecord(offset, number, b"s", msgspec.json.encode(sample))


def make_log() -> list[LogRecord]:
    """420 samples; each 10th offset is a commit marker."""
    values = np.random.default_rng(1).normal(size=(420, 2)).round(3).tolist()
    offsets = [n for n in range(1_000) if n % 10][:420]
    return [record(number, *each) for number, each in enumerate(zip(offsets, values, strict=True))]


LOG: Final = make_log()


def told_by(learner: LearnerSpec, log: Sequence[LogRecord], stop: int) -> Told:
    """What a learner leaves that takes all of `log`, with a checkpoint after the records before offset `stop`."""
    fold = Fold(SPEC, "l", learner)
    fold.take([r for r in log if r.offset < stop])
    taken, state = fold.taken, fold.canonical()
    fold.take([r for r in log if r.offset >= stop])
    return Told(fold.snapshots, stop, taken, state)


def differences(learner: LearnerSpec, told: Told) -> list[str]:
    return learner_differences(Fold(SPEC, "l", learner), LOG, told)


@BOTH
def test_a_fold_is_the_same_however_the_log_is_cut(learner: LearnerSpec) -> None:
    cut, rng = Fold(SPEC, "l", learner), random.Random(2)
    whole = Fold(SPEC, "l", learner)
    whole.take(LOG)
    position = 0
    while position < len(LOG):
        count = rng.randint(1, 70)
        cut.take(LOG[position : position + count])
        position += count
    assert cut.canonical() == whole.canonical()
    assert cut.snapshots == whole.snapshots
    assert len(whole.snapshots) == 4


@BOTH
def test_what_a_learner_leaves_that_took_every_sample_once_is_right(learner: LearnerSpec) -> None:
    assert differences(learner, told_by(learner, LOG, 333)) == []


@BOTH
@pytest.mark.parametrize("position", [0, 150, 290])
def test_a_learner_that_skipped_one_sample_is_found(learner: LearnerSpec, position: int) -> None:
    told = told_by(learner, LOG[:position] + LOG[position + 1 :], 333)
    found = differences(learner, told)
    assert any("took" in each for each in found)
    assert any("differs from the fold" in each for each in found)
    assert any("snapshot" in each for each in found)


@BOTH
@pytest.mark.parametrize("position", [0, 150, 290])
def test_a_learner_that_applied_one_sample_twice_is_found(learner: LearnerSpec, position: int) -> None:
    told = told_by(learner, LOG[: position + 1] + LOG[position:], 333)
    found = differences(learner, told)
    assert any("took" in each for each in found)
    assert any("differs from the fold" in each for each in found)


def test_a_sample_that_was_learnt_in_the_place_of_another_is_found_though_the_count_is_right() -> None:
    found = differences(ONLINE, told_by(ONLINE, [LOG[1], *LOG[1:]], 333))
    assert not any("took" in each for each in found)
    assert any("differs from the fold in its model" in each for each in found)
    assert any(each.startswith("4 snapshots, the first at offset") for each in found)


def test_a_snapshot_that_is_missing_or_there_twice_is_found() -> None:
    told = told_by(ONLINE, LOG, 333)
    for snapshots in (told.snapshots[1:], [told.snapshots[0], *told.snapshots]):
        found = differences(ONLINE, Told(snapshots, told.offset, told.taken, told.state))
        assert len(found) == 1
        assert "snapshots were published" in found[0]


def test_pruned_snapshots_need_no_model_but_no_model_at_all_is_no_comparison() -> None:
    told = told_by(ONLINE, LOG, 333)
    pruned = [Published(snapshot.next_offset, None) for snapshot in told.snapshots]
    some = Told([*pruned[:-1], told.snapshots[-1]], told.offset, told.taken, told.state)
    assert differences(ONLINE, some) == []
    none = Told(pruned, told.offset, told.taken, told.state)
    assert differences(ONLINE, none) == ["there is no snapshot to compare"]


async def test_a_fresh_evaluation_depends_on_every_sample() -> None:
    said = await evaluation(SPEC, LOG)
    assert said["s.performance"]
    assert said == await evaluation(SPEC, LOG)
    assert said["s.performance"] != (await evaluation(SPEC, LOG[1:]))["s.performance"]
