"""Fingerprints see what an object holds, and nothing else."""

import pickle
import random
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from ml.models.canonical import fingerprint


class _Node:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)


class _OtherNode(_Node):
    pass


def test_the_order_of_dicts_and_sets_and_of_attributes_does_not_count() -> None:
    assert fingerprint({1: "a", 2: "b"}) == fingerprint({2: "b", 1: "a"})
    assert fingerprint({8, 0}) == fingerprint({0, 8})
    assert fingerprint(_Node(a=1, b=2)) == fingerprint(_Node(b=2, a=1))
    assert fingerprint(Counter("abb")) == fingerprint(Counter("bba"))


def test_it_does_not_count_whether_two_equal_objects_are_one() -> None:
    shared = _Node(value=[1.5])
    assert fingerprint([shared, shared]) == fingerprint([_Node(value=[1.5]), _Node(value=[1.5])])


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, "text", b"bytes", None, True, (1, [2])],
        defaultdict(float, {"b": 1.0, "a": -0.0}),
        random.Random(3),
        _Node(child=_Node(numbers={3: 0.1 + 0.2}), kind=dict),
        np.arange(3.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_outlives_a_pickle(value: Any) -> None:
    assert fingerprint(pickle.loads(pickle.dumps(value))) == fingerprint(value)


def test_each_difference_shows() -> None:
    values: list[Any] = [
        *(None, True, 1, 2, 1.0, float(np.nextafter(1.0, 2.0)), 0.0, -0.0, float("nan"), "1", b"1", "", [], {}, set()),
        *([1, 2], [2, 1], [[1], 2], [[1, 2]], {1: 2}, {2: 1}, {1: 2, 2: 1}, {(1, 2)}, {1, 2}),
        *(_Node(), _Node(a=1), _Node(a=2), _Node(b=1), _OtherNode(a=1), _Node(a=_Node(a=1)), Counter("a"), int, float),
        *(random.Random(1), random.Random(2), defaultdict(int), defaultdict(float)),
    ]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_what_holds_itself_has_none() -> None:
    node = _Node()
    node.child = node  # type: ignore[attr-defined]
    with pytest.raises(RecursionError):
        fingerprint(node)
