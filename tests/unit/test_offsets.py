"""What a broker answers when it is asked how far a group is."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors

from schemas.errors import RetryableError
from stream.batches import TopicPartition
from stream.failures import is_retryable
from stream.offsets import committed_offset

SOURCE = TopicPartition("in", 3)


class Client:
    """A client whose brokers give one answer after the other."""

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)

    async def coordinator_lookup(self, kind: int, key: str) -> int:
        return 7

    async def send(self, node: int, request: Any, *, group: int) -> Any:
        assert (node, request._partitions) == (7, [("in", [3])])
        return next(self._answers)


def answer(*partitions: tuple[int, int, str, int], error_code: int = 0) -> SimpleNamespace:
    return SimpleNamespace(topics=[("in", list(partitions))] if partitions else [], error_code=error_code)


def asked(client: Client) -> int | None:
    return asyncio.run(committed_offset(client, "group", SOURCE))  # type: ignore[arg-type]


def test_each_question_has_an_answer_of_its_own() -> None:
    client = Client(answer((3, 41, "", 0)), answer((3, 42, "", 0)))
    assert [asked(client), asked(client)] == [41, 42]


def test_who_has_committed_nothing_has_no_offset() -> None:
    assert asked(Client(answer((3, -1, "", 0)))) is None


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (answer(error_code=errors.GroupLoadInProgressError.errno), errors.GroupLoadInProgressError),
        (answer(error_code=errors.NotCoordinatorForGroupError.errno), errors.NotCoordinatorForGroupError),
        (answer((3, -1, "", errors.UnknownTopicOrPartitionError.errno)), errors.UnknownTopicOrPartitionError),
        (answer(), RetryableError),
    ],
)
def test_a_broker_that_cannot_tell_is_asked_again_later(said: SimpleNamespace, error: type[Exception]) -> None:
    with pytest.raises(error, match="the offset of group on in/3") as raised:
        asked(Client(said))
    assert is_retryable(raised.value)


def test_who_may_not_ask_is_told() -> None:
    with pytest.raises(errors.GroupAuthorizationFailedError, match="the offset of group on in/3") as raised:
        asked(Client(answer(error_code=errors.GroupAuthorizationFailedError.errno)))
    assert not is_retryable(raised.value)
