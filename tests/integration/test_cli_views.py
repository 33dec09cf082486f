"""`penstock views rebuild`, on both brokers, without any worker."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from aiokafka import AIOKafkaProducer

from schemas.event import Event
from schemas.wire import encode
from stores.views import Changes, RedisViews, ViewsChanged
from tests.command_line import CANARY, Penstock, free_port
from tests.conftest import Broker
from tests.drifting import alert_of, report_of
from tests.redis_server import RedisServer
from tests.support import version_of
from tests.viewing import SPEC, experiment_of, routed, told_of

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def written(broker: Broker, penstock: Penstock, unique: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stream whose logs know two models, of which one was pruned, an experiment, a drift report and an alert."""
    tables = "".join(f'[streams.{name}]\nfeatures = ["distance"]\n' for name in (unique, f"{unique}-2"))
    Path("penstock.toml").write_text(tables)
    monkeypatch.setenv("ML_KAFKA_BOOTSTRAP", broker.bootstrap)
    assert penstock("topics", "apply").code == 0
    pruned = msgspec.structs.replace(version_of(SPEC, "m2"), status="archived", pruned=True)
    experiment = experiment_of("x", 60, 40)
    events: dict[str, list[Event]] = {
        "models": [version_of(SPEC, "m1"), version_of(SPEC, "m2"), pruned],
        "deployments": [routed(1, experiment_of("before", 50, 50)), routed(2, experiment)],
        "experiments": [told_of("x", number) for number in range(30)],
        "drift": [report_of(1, stream=unique)],
        "alerts": [alert_of("a1", stream=unique)],
    }

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            for topic, of_it in events.items():
                for event in of_it:
                    await producer.send(f"{unique}.{topic}", encode(event), partition=0)

    asyncio.run(send())
    return unique


def test_a_rebuild_writes_everything_from_the_logs_and_removes_what_does_not_belong(
    written: str, penstock: Penstock, server: RedisServer
) -> None:
    wanted = {
        f"drift:stats:{written}",
        f"drift:stats:{written}:feature:distance",
        f"drift:stats:{written}:prediction:score",
        f"drift:alert:{written}:a1",
        f"ml:model:{written}:m1",
        f"ab:experiment:{written}:before",
        f"ab:experiment:{written}:x",
    }
    marks = {f"views:mark:{written}", f"views:mark:{written}-2"}
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.mset({f"ml:model:{written}:m2": "x", f"ab:assignment:{written}:before:N1": "x", "another": "x"})
        ended = penstock("views", "rebuild", ML_REDIS_URL=server.url)
        said = f"{written}: 7 keys are in Redis at 127.0.0.1:{server.port}; 2 that did not belong were removed\n"
        assert (ended.code, ended.out.startswith(said)) == (0, True), ended
        assert set(client.keys("*")) == wanted | marks | {"another"}
        experiment: Any = json.loads(client.get(f"ab:experiment:{written}:x") or "")
        assert (experiment["shares"], experiment["report"]["number"]) == ({"champion": 0.6, "v1": 0.4}, 29)
        assert client.ttl(f"ab:experiment:{written}:before") > 0
        assert json.loads(client.get(f"ml:model:{written}:m1") or "")["routed"] == ["champion"]
        kept = dict(zip(wanted, map(client.dump, wanted), strict=True))
        client.flushall()
        ended = penstock("views", "rebuild", "--stream", written, "--json", ML_REDIS_URL=server.url)
        assert ended.document == [{"stream": written, "written": 7, "removed": 0}]
        assert dict(zip(wanted, map(client.dump, wanted), strict=True)) == kept
    assert CANARY not in ended.out + ended.err


def test_a_redis_that_cannot_be_used_is_one_sentence(
    written: str, penstock: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"redis://:{CANARY}@127.0.0.1:{free_port()}/0"
    ended = penstock("views", "rebuild", ML_REDIS_URL=url)
    assert ended.is_one_sentence(2), ended
    assert "Redis at 127.0.0.1:" in ended.err
    assert CANARY not in ended.err
    ended = penstock("views", "rebuild")
    assert ended.is_one_sentence(2), ended
    assert "set ML_REDIS_URL" in ended.err
    ended = penstock("views", "rebuild", "--stream", "nobody", ML_REDIS_URL=url)
    assert ended.is_one_sentence(2), ended
    assert "no stream is called 'nobody'" in ended.err


def test_a_rebuild_that_meets_a_worker_begins_again_a_few_times(
    written: str, penstock: Penstock, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.views._PAUSE_S", 0.0)
    in_the_way = [1, 1, 1, 1]
    show = RedisViews.show

    async def disturbed(*arguments: Any) -> Changes:
        if in_the_way:
            in_the_way.pop()
            raise ViewsChanged("a worker was faster")
        return await show(*arguments)

    monkeypatch.setattr(RedisViews, "show", disturbed)
    ended = penstock("views", "rebuild", "--stream", written, "--json", ML_REDIS_URL=server.url)
    assert [row["written"] for row in ended.document] == [7]
    in_the_way += [1, 1, 1, 1, 1]
    ended = penstock("views", "rebuild", "--stream", written, ML_REDIS_URL=server.url)
    assert (ended.is_one_sentence(2), "a worker was faster" in ended.err) == (True, True), ended
