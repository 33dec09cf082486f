"""Who owns which partitions."""

import itertools
from collections import Counter
from collections.abc import Mapping

import pytest

from stream.assignor import StreamAssignor

SMALL = {f"s{i}.{kind}": 1 for i in range(6) for kind in ("samples", "commands")}
FLIGHTS = {"flights.features": 4, "flights.labels": 4}


class _Cluster:
    def __init__(self, partitions: Mapping[str, int]) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._partitions[topic])) if topic in self._partitions else None


def _assign(partitions: Mapping[str, int], **topics: list[str]) -> dict[str, dict[str, list[int]]]:
    """Return what each member owns of topics with so many `partitions`; `topics` are what each subscribes to."""
    members = {member: StreamAssignor.metadata(names) for member, names in topics.items()}
    answer = StreamAssignor.assign(_Cluster(partitions), members)
    return {member: dict(assignment.assignment) for member, assignment in answer.items()}


def _spread(partitions: Mapping[str, int], members: int) -> dict[str, dict[str, list[int]]]:
    return _assign(partitions, **{f"m{i}": list(partitions) for i in range(members)})


@pytest.mark.parametrize("members", [1, 2, 3, 5, 9])
def test_every_partition_has_exactly_one_owner_and_loads_differ_by_one_at_most(members: int) -> None:
    topics = FLIGHTS | SMALL
    owned = _spread(topics, members)
    found = [(topic, number) for mine in owned.values() for topic, numbers in mine.items() for number in numbers]
    assert sorted(found) == sorted((topic, number) for topic, count in topics.items() for number in range(count))
    units = [
        len({(topic.partition(".")[0], number) for topic, numbers in mine.items() for number in numbers})
        for mine in owned.values()
    ]
    assert max(units) - min(units) <= 1


def test_topics_of_a_stream_meet_on_the_same_member() -> None:
    for mine in _spread(FLIGHTS, 3).values():
        assert mine["flights.features"] == mine["flights.labels"]


def test_streams_of_a_single_partition_do_not_pile_up_on_one_member() -> None:
    assert Counter(len(mine) for mine in _spread(SMALL, 3).values()) == {4: 3}


def test_the_order_in_which_members_joined_makes_no_difference() -> None:
    orders = itertools.permutations(["a", "b", "c"])
    answers = [_assign(FLIGHTS, **{member: list(FLIGHTS) for member in order}) for order in orders]
    assert all(answer == answers[0] for answer in answers)


def test_a_topic_that_does_not_exist_yet_is_owned_by_nobody() -> None:
    assert _assign({"flights.features": 2}, a=["flights.features", "new.features"]) == {
        "a": {"flights.features": [0, 1]}
    }


def test_a_member_is_given_only_topics_it_subscribed_to_as_while_a_new_stream_is_rolled_out() -> None:
    partitions = {"flights.features": 2, "fraud.features": 2}
    answer = _assign(partitions, a=["flights.features", "fraud.features"], b=["flights.features"])
    assert "fraud.features" not in answer["b"]
    assert answer["a"]["fraud.features"] == [0, 1]
    assert sorted(answer["a"].get("flights.features", []) + answer["b"].get("flights.features", [])) == [0, 1]
