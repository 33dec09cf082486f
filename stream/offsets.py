"""How far a consumer group is."""

from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.commit import OffsetFetchRequest

from schemas.errors import RetryableError
from stream.batches import TopicPartition


async def committed_offset(client: AIOKafkaClient, group: str, source: TopicPartition) -> int | None:
    """Return what `group` has committed of `source` by now; None when it has nothing.

    Asked of the broker, not of aiokafka's consumer: that shares the answer of a question that it asked earlier, such as
    before the last owner's transaction was ended. Raises what the broker answers; one that still loads the group, or no
    longer keeps it, can be asked again later.
    """
    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
    request = OffsetFetchRequest(group, [(source.topic, [source.partition])])
    answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    return _offset_in(answer, f"the offset of {group} on {source.topic}/{source.partition}")


def _offset_in(answer: Any, what: str) -> int | None:
    """Return the offset in an answer about one partition; an error of the group stands beside, without partitions."""
    found = [partition for _, partitions in answer.topics for partition in partitions]
    for error_code in (getattr(answer, "error_code", 0), *(error_code for *_, error_code in found)):
        if error_code:
            raise errors.for_code(error_code)(what)
    if not found:
        raise RetryableError(f"the broker said nothing of {what}")
    [(_, offset, *_)] = found
    return int(offset) if offset >= 0 else None
