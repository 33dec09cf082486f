"""Spreads partitions over the members of a group by (stream, partition), not by topic.

All topics of a stream give the same partition number to the same worker, which a join needs. Streams whose
topics have a single partition are spread too, where an assignor that goes topic by topic can pile them all
on the first worker.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata


def spread(
    partitions_of_topic: Mapping[str, Iterable[int]], topics_of_member: Mapping[str, Collection[str]]
) -> dict[str, dict[str, list[int]]]:
    """Return, by member and topic, the partitions it owns: units (stream, partition) dealt out in turn.

    A topic's stream is its name up to the first dot. A unit goes to the next member that subscribes to all of its
    topics, which during a roll-out not every member does; members that subscribe alike differ by at most one unit.
    """
    units: dict[tuple[str, int], list[str]] = defaultdict(list)
    for topic, partitions in partitions_of_topic.items():
        for partition in partitions:
            units[topic.partition(".")[0], partition].append(topic)
    owned: dict[str, dict[str, list[int]]] = {member: defaultdict(list) for member in sorted(topics_of_member)}
    turns = deque(owned)
    for unit in sorted(units):
        able = [member for member in turns if set(units[unit]) <= set(topics_of_member[member])]
        if able:
            turns.remove(able[0])
            turns.append(able[0])  # it is the last to be asked again
            for topic in units[unit]:
                owned[able[0]][topic].append(unit[1])
    return owned


class StreamAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is untyped here
    """`spread` in the terms of the group protocol."""

    name = "penstock-stream"
    version = 0

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        subscriptions = {member: metadata.subscription for member, metadata in members.items()}
        topics = {topic for subscription in subscriptions.values() for topic in subscription}
        partitions = {topic: cluster.partitions_for_topic(topic) or () for topic in topics}
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, sorted(owned.items()), b"")
            for member, owned in spread(partitions, subscriptions).items()
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), b"")

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing is remembered: tasks are opened by what is assigned, not by what changed."""
