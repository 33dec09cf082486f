"""Spaces of hyper-parameters: every point is inside, grids are whole, and what cannot be searched is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.training.protocol import TrainingImpossible
from ml.training.search_space import Given, Range, distributions, grid, read_space

whole_numbers = st.integers(-1_000, 1_000)


@given(low=whole_numbers, length=st.integers(1, 50), step=st.integers(1, 20))
def test_a_grid_of_whole_numbers_has_each_step_and_nothing_beyond_the_end(low: int, length: int, step: int) -> None:
    space = read_space({"depth": {"low": low, "high": low + length, "step": step}})
    points = grid(space, most=1_000, seed=1)
    found = sorted(points[index]["depth"] for index in range(len(points)))
    assert found == list(range(low, low + length + 1, step))
    [distribution] = distributions(space).values()
    assert (distribution.low, distribution.high) == (found[0], found[-1])


@given(count=st.integers(1, 200), step=st.sampled_from([0.1, 0.01, 0.3, 0.7]))
def test_a_grid_of_steps_has_its_end_although_sums_of_them_are_not_exact(count: int, step: float) -> None:
    space = read_space({"eta": {"low": 0.0, "high": step * count, "step": step}})
    points = grid(space, most=1_000, seed=1)
    assert len(points) == count + 1
    assert max(float(points[index]["eta"]) for index in range(len(points))) == pytest.approx(step * count)


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_a_grid_has_each_combination_once_and_a_part_of_it_none_twice(sizes: list[int], seed: int) -> None:
    space = read_space({f"p{number}": {"choices": list(range(size))} for number, size in enumerate(sizes)})
    whole, part = grid(space, most=10_000, seed=seed), grid(space, most=3, seed=seed)
    for points, expected in ((whole, 10_000), (part, 3)):
        found = {tuple(sorted(points[index].items())) for index in range(len(points))}
        size = 1
        for length in sizes:
            size *= length
        assert len(found) == len(points) == min(size, expected)


def test_numbers_are_whole_only_when_all_of_the_range_are() -> None:
    space = read_space({"a": (1, 9), "b": (1, 9.0), "c": {"low": 1, "high": 9, "step": 0.5}})
    assert [isinstance(found, Range) and found.whole for found in space.values()] == [True, False, False]
    assert {name: type(kind).__name__ for name, kind in distributions(space).items()} == {
        "a": "IntDistribution",
        "b": "FloatDistribution",
        "c": "FloatDistribution",
    }


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ((3, 3), "low 3 is not below high 3"),
        ({"low": 0, "high": 1, "log": True}, "above 0, and is 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "either log or step"),
        ({"low": 1, "high": 9, "step": 0}, "step must be above 0"),
        ({"low": 1}, "needs low and high"),
        ({"low": True, "high": 9}, "needs low and high"),
        ((0.0, float("inf")), "needs low and high"),
        ({"choices": []}, "needs low and high, or choices"),
    ],
)
def test_a_range_that_is_none_is_said_by_name(wanted: Given, words: str) -> None:
    with pytest.raises(TrainingImpossible, match="the search of eta") as caught:
        read_space({"eta": wanted})
    assert words in str(caught.value)


@pytest.mark.parametrize("wanted", [(0.1, 0.3), {"low": 1, "high": 9, "log": True}])
def test_a_grid_of_a_range_without_steps_is_none(wanted: Given) -> None:
    with pytest.raises(TrainingImpossible, match="needs choices or a step for eta"):
        grid(read_space({"eta": wanted}), most=9, seed=0)
