"""What a worker refuses before it looks at Kafka."""

import pytest

from app.roles import ROLES, RoleName
from app.settings import Settings
from app.worker import Worker
from schemas.errors import RetryableError, SettingsError
from schemas.streams import StreamSpec
from stream.connection import KafkaConnection
from tests.training import spec_of

BIRDS = StreamSpec(name="birds", features=("a",))
FLIGHTS = StreamSpec(name="flights", features=("a",))


@pytest.fixture(autouse=True)
def kafka_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: KafkaConnection) -> None:
        raise RetryableError("Kafka is away")

    monkeypatch.setattr(KafkaConnection, "reachable", away)


@pytest.mark.parametrize("roles", [["train"], ["score", "train"]])
async def test_the_role_train_that_would_do_nothing_is_refused_with_the_table_that_is_missing(
    roles: list[RoleName],
) -> None:
    worker = Worker(Settings(streams=(BIRDS, FLIGHTS)), KafkaConnection(bootstrap="nowhere:9092"), roles)
    with pytest.raises(SettingsError, match=r"\[streams.birds.training\] or \[streams.flights.training\]"):
        await worker.run()


@pytest.mark.parametrize(
    ("roles", "streams"), [(ROLES, (BIRDS,)), (["score"], (BIRDS,)), (["train"], (BIRDS, spec_of()))]
)
async def test_a_worker_with_all_roles_or_with_a_stream_that_is_trained_begins(
    roles: list[RoleName], streams: tuple[StreamSpec, ...]
) -> None:
    with pytest.raises(RetryableError, match="Kafka is away"):
        await Worker(Settings(streams=streams), KafkaConnection(bootstrap="nowhere:9092"), roles).run()
