"""The peers' benchmark finds each kind of wrong output, and takes a stopped contestant's outputs for what they are."""

import json
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest

from benchmarks import synthetic
from benchmarks.histogram_checker import Scale, count
from benchmarks.peers import histograms
from benchmarks.peers.common.work import Histogram
from benchmarks.peers.outputs import IN_FLIGHT, Events, Outputs, differences
from benchmarks.plain import Row

EVENTS = 12_000
SCALES = [Scale(name, (-1.0, 0.0, 0.25, 1.0), None, None) for name in (*synthetic.FEATURES, "score")]
VALUES = synthetic.draw(EVENTS, seed=3)
OTHER = "with another time or other features than the event"


@pytest.fixture(scope="module")
def events() -> Events:
    """Two partitions: the first has 2,000 of the events, the second the other 10,000."""
    rows = [
        Row(key, value, *((0, number) if number < 2_000 else (1, number - 2_000)), 0)
        for number, (key, value) in enumerate(synthetic.documents(VALUES))
    ]
    return Events.read(rows, synthetic.train(seed=3, trees=5), VALUES)


def right(events: Events, numbers: Sequence[int], **changes: object) -> list[Row]:
    """The predictions of these events; `changes` are of the first of them."""
    rows = []
    for place, number in enumerate(numbers):
        output = {
            "event_id": synthetic.event_id(number),
            "entity_id": synthetic.entity_id(number),
            "event_time_ms": synthetic.FIRST_EVENT_TIME_MS + number,
            "model_id": "m1",
            "variant": "champion",
            "features": [None if value != value else value for value in VALUES[number].tolist()],
            "score": float(events.scores[number]),
            "label": int(events.scores[number] >= 0.5),
            "partition": int(events.partitions[number]),
            "offset": int(events.offsets[number]),
        } | (changes if place == 0 else {})
        rows.append(Row(events.keys[number], json.dumps(output).encode(), 0, place, 1_000 + place))
    return rows


def found(events: Events, rows: Sequence[Row], *, partial: bool = False) -> list[str]:
    return differences(events, Outputs.read(rows, events), partial=partial)


def test_the_right_outputs_in_any_order_do_not_differ(events: Events) -> None:
    assert found(events, right(events, range(EVENTS))[::-1]) == []


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda rows, e: rows[1:], "1 not scored: e00000000"),
        (lambda rows, e: [*rows, rows[5]], "1 scored twice: e00000005"),
        (lambda rows, e: [*rows, *right(e, [7], event_id="ghost")], "1 never sent: ghost"),
        (lambda rows, e: [*right(e, [0], label=2), *rows[1:]], "1 labelled differently: e00000000"),
        (lambda rows, e: [*right(e, [0], offset=1), *rows[1:]], "1 of another place in the source: e00000000"),
        (lambda rows, e: [*right(e, [0], partition=1), *rows[1:]], "1 of another place in the source: e00000000"),
        (lambda rows, e: [rows[0]._replace(key=b"x"), *rows[1:]], "1 with another key than the entity: e00000000"),
        (lambda rows, e: [rows[0]._replace(key=None), *rows[1:]], "1 with another key than the entity: e00000000"),
        (lambda rows, e: [*right(e, [0], entity_id="x"), *rows[1:]], "1 with another key than the entity: e00000000"),
        (lambda rows, e: [*right(e, [0], event_time_ms=1), *rows[1:]], f"1 {OTHER}: e00000000"),
        (lambda rows, e: [*right(e, [0], features=[0.5] * 10), *rows[1:]], f"1 {OTHER}: e00000000"),
        (lambda rows, e: [*right(e, [0], features=[None] * 10), *rows[1:]], f"1 {OTHER}: e00000000"),
    ],
)
def test_every_difference_is_named(
    events: Events, spoil: Callable[[list[Row], Events], list[Row]], sentence: str
) -> None:
    assert found(events, spoil(right(events, range(EVENTS)), events)) == [sentence]


def test_the_smallest_change_of_a_score_is_told_with_both(events: Events) -> None:
    score = float(np.nextafter(events.scores[0], 1))
    first, second = found(events, [*right(events, [0], score=score), *right(events, range(1, EVENTS))])
    assert first == "1 scored differently: e00000000"
    assert repr(score) in second
    assert repr(float(events.scores[0])) in second


def test_a_stopped_contestant_may_have_left_out_events_at_its_end_only(events: Events) -> None:
    last = list(range(2_000, EVENTS))
    late_gap = EVENTS - IN_FLIGHT
    early_gap = late_gap - 1
    assert found(events, right(events, last), partial=True) == []  # nothing of the other partition is no gap
    assert found(events, right(events, last[:100]), partial=True) == []
    assert found(events, right(events, [n for n in last if n != late_gap]), partial=True) == []
    rows = right(events, [n for n in last if n != early_gap])
    assert found(events, rows, partial=True) == [f"1 skipped: {synthetic.event_id(early_gap)}"]


def test_what_a_stopped_contestant_wrote_must_be_right_all_the_same(events: Events) -> None:
    assert found(events, right(events, range(50), label=2), partial=True) == ["1 labelled differently: e00000000"]
    assert found(events, right(events, [3, 3]), partial=True) == ["1 scored twice: e00000003"]


def test_whose_predictions_they_are_is_told(events: Events) -> None:
    rows = [*right(events, [0], model_id="m2"), *right(events, [1], variant="challenger")]
    assert Outputs.read(rows, events).makers == {("m2", "champion"), ("m1", "challenger")}


@pytest.mark.parametrize("length", [1, 9])
def test_predictions_with_fewer_features_are_refused(events: Events, length: int) -> None:
    with pytest.raises(ValueError, match="not as many features"):
        Outputs.read(right(events, [0], features=[0.5] * length), events)


def test_no_outputs_and_no_predictions_are_refused(events: Events) -> None:
    with pytest.raises(ValueError, match="no predictions"):
        Outputs.read([], events)
    with pytest.raises(msgspec.ValidationError):
        Outputs.read([Row(b"", b"{}", 0, 0, 0)], events)


def test_a_source_that_lacks_an_event_is_refused() -> None:
    rows = [Row(key, value, 0, n, 0) for n, (key, value) in enumerate(synthetic.documents(VALUES[:10]))]
    with pytest.raises(ValueError, match="9 events are in the source, and 10"):
        Events.read(rows[1:], synthetic.train(seed=3, trees=2), VALUES[:10])


def histogram(events: Events, first: int, last: int) -> Histogram:
    counted = [count(scale, column[first:last])[0] for scale, column in zip(SCALES, events.columns, strict=True)]
    return Histogram(last - first, [each.cells.tolist() for each in counted], [each.missing for each in counted])


def counted(events: Events, *each: Histogram, scored: int = EVENTS, partial: bool = False) -> list[str]:
    rows = [Row(None, msgspec.json.encode(one), 0, 0, 0) for one in each]
    outputs = Outputs.read(right(events, range(scored)), events)
    return histograms.peer_differences(SCALES, rows, events, outputs, partial=partial)


def test_histograms_may_lack_what_was_not_yet_due(events: Events) -> None:
    assert counted(events, histogram(events, 0, 5_000), histogram(events, 5_000, EVENTS)) == []
    assert counted(events, histogram(events, 0, EVENTS - 4_000)) == []
    lacking = histogram(events, 0, EVENTS - 4_001)
    assert counted(events, lacking) == [
        f"the histograms are of {EVENTS - 4_001} events, and {EVENTS} have a prediction"
    ]
    assert counted(events, lacking, partial=True) == []


def test_the_histograms_of_a_stopped_contestant_are_about_those_of_its_predictions(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histograms, "IN_FLIGHT", 500)  # of two partitions
    assert counted(events, partial=True) == [f"the histograms are of 0 events, and {EVENTS} have a prediction"]
    assert counted(events, histogram(events, 0, EVENTS - 5_000), partial=True) == []
    assert counted(events, histogram(events, 0, EVENTS - 5_001), partial=True) != []
    assert counted(events, histogram(events, 0, 7_000), scored=6_000, partial=True) == []
    assert counted(events, histogram(events, 0, 7_001), scored=6_000, partial=True) != []


def test_histograms_that_count_an_event_twice_or_elsewhere_are_found(events: Events) -> None:
    whole = histogram(events, 0, EVENTS)
    twice = counted(events, whole, histogram(events, 0, 1))
    assert twice[0] == f"the histograms are of {EVENTS + 1} events, and {EVENTS} have a prediction"
    assert "f0: 1 cells have more values than numpy.histogram gives" in twice
    whole.cells[2][0] += 1
    whole.cells[2][1] -= 1
    assert counted(events, whole) == ["f2: 1 cells have more values than numpy.histogram gives"]


def test_histograms_whose_columns_do_not_add_up_are_found(events: Events) -> None:
    whole = histogram(events, 0, EVENTS)
    whole.missing[1] -= 1
    whole.cells[3].append(0)
    assert counted(events, whole) == [
        f"f1: {EVENTS - 1} values were counted of {EVENTS} events",
        "f3: a histogram has other cells than the baseline",
    ]
