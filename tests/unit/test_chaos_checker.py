"""The chaos checker finds what it is there to find."""

import random

import pytest

from benchmarks.checker import Place, Scored, Sent, tally

GOOD = [Sent(f"e{n}", Place(n % 4, n // 4), good=True) for n in range(1_000)]
BAD = [Sent(f"b{n}", Place(n % 4, 1_000 + n // 4), good=False) for n in range(10)]
SENT = GOOD + BAD
SCORED = [Scored(event.event_id, event.place) for event in GOOD]
DEAD = [event.place for event in BAD]


def test_one_outcome_per_event_in_any_order_is_right() -> None:
    shuffled = random.Random(1).sample(SCORED, len(SCORED))
    found = tally(SENT, shuffled, DEAD[::-1])
    assert found.right
    assert found.as_dict() == {
        "events": 1_010,
        "lost": 0,
        "duplicated": 0,
        "dead_letters_expected": 10,
        "dead_letters": 10,
        "misjudged": 0,
        "unknown": 0,
    }


def test_a_skipped_event_is_lost() -> None:
    found = tally(SENT, SCORED[:500] + SCORED[501:], DEAD)
    assert (found.lost, found.right) == (1, False)


def test_a_bad_event_without_a_dead_letter_is_lost() -> None:
    found = tally(SENT, SCORED, DEAD[1:])
    assert (found.lost, found.right) == (1, False)


def test_every_surplus_outcome_is_a_double() -> None:
    found = tally(SENT, [*SCORED, SCORED[3], SCORED[3], SCORED[4]], [*DEAD, DEAD[0]])
    assert (found.duplicated, found.right) == (4, False)


def test_a_lost_event_is_not_made_up_for_by_a_double() -> None:
    found = tally(SENT, [*SCORED[1:], SCORED[1]], DEAD)
    assert (found.lost, found.duplicated, found.right) == (1, 1, False)


@pytest.mark.parametrize(
    ("scored", "dead"),
    [
        pytest.param(SCORED[1:], [*DEAD, GOOD[0].place], id="a good event in the dead letters"),
        pytest.param([*SCORED, Scored("b0", BAD[0].place)], DEAD[1:], id="a bad event with a score"),
        pytest.param([*SCORED[1:], Scored("e1", GOOD[0].place)], DEAD, id="a prediction under another event's id"),
    ],
)
def test_an_outcome_of_the_wrong_kind_is_misjudged(scored: list[Scored], dead: list[Place]) -> None:
    found = tally(SENT, scored, dead)
    assert (found.lost, found.duplicated, found.misjudged, found.right) == (0, 0, 1, False)


def test_an_event_with_both_a_prediction_and_a_dead_letter_is_a_double() -> None:
    found = tally(SENT, SCORED, [*DEAD, GOOD[0].place])
    assert (found.duplicated, found.misjudged, found.right) == (1, 1, False)


def test_an_outcome_of_an_event_that_nobody_sent_is_unknown() -> None:
    found = tally(SENT, [*SCORED, Scored("ghost", Place(3, 99_999))], DEAD)
    assert (found.unknown, found.right) == (1, False)
