"""The label checker finds what it is there to find."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from benchmarks.label_checker import LabelTally, Predicted, Refused, Sampled, Truth, tally
from benchmarks.label_producer import Journaled
from benchmarks.label_script import Fate

TRUTH = Truth(lambda number: (float(number), None), lambda number: number / 100)


def fate(number: int, **known: Any) -> Fate:
    return Fate(
        kind="plain",
        number=number,
        event_id=f"e{number}",
        entity_id=f"n{number % 7}",
        event_time_ms=number,
        **({"outcome": "sample", "label": number % 2, "label_time_ms": number + 50} | known),
    )


# Ten plain labels, a revision, an assumed sample, a repeated label, a late label and one that may die of anything.
FATES = [
    *(fate(n) for n in range(10)),
    fate(3, revision=1, label=0, label_time_ms=90),
    fate(10, assumed=True, label=0),
    fate(4, outcome="nothing"),
    fate(5, outcome="dead", reason="superseded"),
    fate(6, outcome="dead"),
]
JOURNAL = [Journaled(n % 2, n, each) for n, each in enumerate(FATES)]
PREDICTIONS = {
    f"e{n}": Predicted(
        event_id=f"e{n}",
        entity_id=f"n{n % 7}",
        event_time_ms=n,
        features=(float(n), None),
        score=n / 100,
        label=1,
        model_id="model",
        variant="champion",
        deployment_revision=1,
        scored_time_ms=7,
        shadows=msgspec.Raw(b'[{"score":1}]'),
    )
    for n in range(11)
}
DEAD = [Refused(13 % 2, 13, "superseded"), Refused(14 % 2, 14, "whatever")]


def sample_of(each: Fate) -> Sampled:
    predicted = PREDICTIONS[each.event_id]
    return Sampled(
        event_id=each.event_id,
        entity_id=each.entity_id,
        revision=each.revision,
        event_time_ms=each.event_time_ms,
        label_time_ms=each.label_time_ms,
        features=predicted.features,
        label=each.label,
        weight=1.0,
        score=predicted.score,
        predicted=predicted.label,
        model_id=predicted.model_id,
        variant=predicted.variant,
        deployment_revision=predicted.deployment_revision,
        scored_time_ms=predicted.scored_time_ms,
        shadows=predicted.shadows,
        replaces=1 if each.revision else None,
        assumed=each.assumed,
    )


SAMPLES = [sample_of(each) for each in FATES if each.outcome == "sample"]


def count(samples: list[Sampled] = SAMPLES, dead: list[Refused] = DEAD) -> LabelTally:
    return tally(JOURNAL, PREDICTIONS, samples, dead, TRUTH)


def test_one_outcome_for_each_label_in_any_order_is_right() -> None:
    found = count(SAMPLES[::-1], DEAD[::-1])
    assert found.right
    assert "examples" not in found.as_dict()
    assert (found.labels, found.samples, found.dead_letters) == (14, 12, 2)


@pytest.mark.parametrize("position", range(len(SAMPLES)))
def test_a_missing_sample_is_lost_and_a_repeated_one_is_a_double(position: int) -> None:
    skipped = count(SAMPLES[:position] + SAMPLES[position + 1 :])
    assert (skipped.samples_lost, skipped.samples_duplicated, skipped.right) == (1, 0, False)
    doubled = count([*SAMPLES, SAMPLES[position]])
    assert (doubled.samples_lost, doubled.samples_duplicated, doubled.right) == (0, 1, False)


def test_a_lost_sample_is_not_made_up_for_by_a_double() -> None:
    found = count([*SAMPLES[1:], SAMPLES[1]])
    assert (found.samples_lost, found.samples_duplicated) == (1, 1)


def test_a_repeated_label_that_became_a_sample_of_its_own_is_unknown() -> None:
    found = count([*SAMPLES, msgspec.structs.replace(SAMPLES[4], revision=1)])
    assert (found.samples_unknown, found.right) == (1, False)


CHANGES: list[dict[str, Any]] = [
    {"entity_id": "other"},
    {"event_time_ms": 99},
    {"label_time_ms": 99},
    {"features": (3.5, None)},
    {"label": 1},
    {"weight": 2.0},
    {"score": 0.5},
    {"predicted": 0},
    {"model_id": "other"},
    {"variant": "online"},
    {"deployment_revision": 2},
    {"scored_time_ms": 8},
    {"latency_ms": 1},
    {"shadows": msgspec.Raw(b"[]")},
    {"replaces": None},
    {"assumed": True},
]


@pytest.mark.parametrize("change", CHANGES, ids=[next(iter(change)) for change in CHANGES])
def test_a_sample_that_carries_something_else_is_wrong(change: dict[str, Any]) -> None:
    found = count([msgspec.structs.replace(s, **change) if s.revision else s for s in SAMPLES])
    assert (found.samples_wrong, found.samples_lost, found.right) == (1, 0, False)
    assert next(iter(change)) in found.examples[0]


def test_a_prediction_that_is_wrong_itself_does_not_excuse_its_sample() -> None:
    predictions = PREDICTIONS | {"e2": msgspec.structs.replace(PREDICTIONS["e2"], score=0.9)}
    samples = [msgspec.structs.replace(s, score=0.9) if s.event_id == "e2" else s for s in SAMPLES]
    assert tally(JOURNAL, predictions, samples, DEAD, TRUTH).samples_wrong == 1


DEAD_FAULTS: list[tuple[Callable[[list[Refused]], list[Refused]], str]] = [
    (lambda dead: dead[1:], "dead_letters_lost"),
    (lambda dead: [*dead, dead[0]], "dead_letters_duplicated"),
    (lambda dead: [*dead, Refused(0, 0, "superseded")], "dead_letters_unknown"),
    (lambda dead: [Refused(dead[0].partition, dead[0].offset, "conflicting"), dead[1]], "dead_letters_wrong"),
]


@pytest.mark.parametrize(("spoil", "count_of"), DEAD_FAULTS, ids=[name for _, name in DEAD_FAULTS])
def test_every_fault_of_the_dead_letters_is_found(
    spoil: Callable[[list[Refused]], list[Refused]], count_of: str
) -> None:
    found = count(dead=spoil(list(DEAD)))
    right = count()
    assert not found.right
    assert replace(found, dead_letters=right.dead_letters, examples=()) == replace(right, **{count_of: 1})
