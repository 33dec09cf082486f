"""How views are written into a real Redis: in steps, over what somebody else left there, and never half unnoticed."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from agents.views import Views
from app.embedded_redis import redis_server
from stores.views import ASSIGNMENT_S, Assignment, Changes, Entry, RedisViews, View, ViewsChanged, ViewsUnavailable
from stream.metric_values import Metrics
from tests.command_line import CANARY
from tests.redis_server import RedisServer
from tests.support import version_of
from tests.viewing import DEPLOYMENTS, MODELS, NOW_MS, SPEC, Reader, entries, experiment_of, routed

MARK = "views:mark:flights"


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def views(server: RedisServer) -> AsyncIterator[RedisViews]:
    views = RedisViews(server.url)
    yield views
    await views.close()


def models(count: int, mark: str = "1", **more: Entry) -> View:
    """A view of so many models."""
    made = {f"ml:model:flights:m{number}": Entry(b"{}") for number in range(count)}
    return View(mark, "", made | {f"ml:model:flights:{name}": entry for name, entry in more.items()})


class Flushing(Mapping[str, str]):
    """A hash that has its server flushed at the moment when it is written."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def __getitem__(self, key: str) -> str:
        return "0"

    def __iter__(self) -> Iterator[str]:
        cli = redis_server().with_name("redis-cli")
        arguments = [cli, "-p", str(self._server.port), "-a", CANARY, "--no-auth-warning", "flushall"]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        return iter(["psi"])

    def __len__(self) -> int:
        return 1


async def test_many_keys_are_written_in_steps_and_the_mark_comes_last(views: RedisViews, client: Redis) -> None:
    assert await views.show("flights", None, models(1_234), NOW_MS) == Changes(1_234, 0)
    assert len(await client.keys("ml:model:flights:*")) == 1_234
    assert await client.get(MARK) == "1"
    transactions = (await client.info("commandstats"))["cmdstat_exec"]["calls"]
    large = View("2", "", {f"ml:model:flights:m{number}": Entry(b"x" * 400_000) for number in range(5)})
    assert await views.show("flights", models(1_234), large, NOW_MS) == Changes(5, 1_229)
    assert (await client.info("commandstats"))["cmdstat_exec"]["calls"] == transactions + 2 + 3
    assert len(await client.keys("*")) == 6


async def test_only_news_are_written(views: RedisViews, client: Redis) -> None:
    before = models(3)
    await views.show("flights", None, before, NOW_MS)
    await client.set("ml:model:flights:m0", "as it was")
    after = models(3, "2", m1=Entry(b"new"))
    assert await views.show("flights", before, after, NOW_MS) == Changes(1, 0)
    assert await client.mget("ml:model:flights:m0", "ml:model:flights:m1", MARK) == ["as it was", "new", "2"]
    assert await views.show("flights", after, after, NOW_MS) == Changes(0, 0)
    assert await client.get("ml:model:flights:m0") == "as it was"


async def test_a_flush_between_two_steps_is_not_overlooked(
    server: RedisServer, views: RedisViews, client: Redis
) -> None:
    for view in (models(2, flush=Entry(Flushing(server))), models(1_234, flush=Entry(Flushing(server)))):
        await views.show("flights", None, models(1, "0"), NOW_MS)
        with pytest.raises(ViewsChanged):
            await views.show("flights", models(1, "0"), view, NOW_MS)
        assert await client.get(MARK) is None


async def test_two_who_write_at_once_do_not_mix_their_views(server: RedisServer, views: RedisViews) -> None:
    other = RedisViews(server.url)
    results = await asyncio.gather(
        views.show("flights", None, models(5_000, "1"), NOW_MS),
        other.show("flights", None, models(5_000, "2"), NOW_MS),
        return_exceptions=True,
    )
    await other.close()
    assert any(isinstance(result, ViewsChanged) for result in results)


async def test_what_does_not_belong_goes_and_what_is_another_s_stays(views: RedisViews, client: Redis) -> None:
    strange: dict[Any, str] = {
        "ml:model:flights:nobody": "x",
        "ab:experiment:flights:old": "x",
        "ab:assignment:flights:x:N1": "x",
        "drift:views:flights": "3:4",
        "drift:stats:flights": "x",
        b"ml:model:flights:\xff": "x",
    }
    kept = ["ml:model:flights-ewr:m", "drift:stats:flights_2", "somebody:flights:else", "ml:model:x:flights:m"]
    await client.mset(strange | dict.fromkeys(kept, "x"))
    assert await views.show("flights", None, models(2), NOW_MS) == Changes(2, len(strange))
    assert set(await client.keys("*")) == {*kept, "ml:model:flights:m0", "ml:model:flights:m1", MARK}


async def test_what_expires_has_the_time_left_and_what_has_expired_is_not_written(
    views: RedisViews, client: Redis
) -> None:
    hashed = Entry({"psi": 1.0}, NOW_MS + 60_000)
    ended, gone = Entry(b"x", NOW_MS + 90_000), Entry(b"x", NOW_MS)
    assert await views.show("flights", None, models(0, ended=ended, gone=gone, hashed=hashed), NOW_MS) == Changes(2, 0)
    left_ms = [await client.pttl(f"ml:model:flights:{name}") for name in ("hashed", "ended")]
    assert left_ms == [pytest.approx(60_000, abs=9_000), pytest.approx(90_000, abs=9_000)]
    assert not await client.exists("ml:model:flights:gone")
    running = models(0, "2", ended=Entry(b"x"))
    await views.show("flights", models(0, ended=ended, hashed=hashed), running, NOW_MS)
    assert await client.pttl("ml:model:flights:ended") == -1
    assert not await client.exists("ml:model:flights:hashed")


async def test_an_assignment_is_there_for_a_day_or_until_the_shares_change(views: RedisViews, client: Redis) -> None:
    assignment = Assignment(
        stream="flights",
        experiment_id="x",
        entity_id="N1",
        variant="v1",
        model_id="m2",
        bucket=77,
        epoch=0,
        deployment_revision=3,
    )
    before = View("1", "x/0/m1,m2", {})
    await views.show("flights", None, before, NOW_MS)
    key = await views.assign(assignment)
    assert key == "ab:assignment:flights:x:N1"
    assert json.loads(await client.get(key))["bucket"] == 77
    assert ASSIGNMENT_S - 60 < await client.ttl(key) <= ASSIGNMENT_S
    same = View("2", before.assigning, {"ml:model:flights:m1": Entry(b"{}")})
    await views.show("flights", before, same, NOW_MS)
    assert await client.exists(key)
    assert await views.show("flights", same, View("3", "x/1/m1,m2", same.entries), NOW_MS) == Changes(0, 1)
    assert not await client.exists(key)


async def test_a_redis_that_is_full_is_a_failure_and_drift_and_experiments_come_before_models(
    views: RedisViews, client: Redis
) -> None:
    await client.config_set("maxmemory", (await client.info("memory"))["used_memory"] + 20_000_000)
    first = {"drift:stats:flights": Entry(b"x" * 1_000_000)}
    large = {f"ml:model:flights:m{number}": Entry(b"x" * 1_000_000) for number in range(30)}
    with pytest.raises(ViewsUnavailable, match="maxmemory"):
        await views.show("flights", None, View("1", "", first | large), NOW_MS)
    assert await client.exists("drift:stats:flights")


async def test_models_and_experiments_come_back_within_five_seconds_of_a_flush(
    server: RedisServer, views: RedisViews, client: Redis
) -> None:
    logs = {
        MODELS: entries(*[version_of(SPEC, f"m{number}") for number in range(1, 801)]),
        DEPLOYMENTS: entries(routed(1, experiment_of("x", 50, 50))),
    }
    stage = Views(SPEC, Reader(logs), views, Metrics(), lambda: NOW_MS)
    await stage.open({MODELS: 800, DEPLOYMENTS: 1})

    async def shown() -> dict[str, str]:
        async with asyncio.timeout(5):
            while await client.get(MARK) != "0:0:800:1:0":  # noqa: ASYNC110  # nobody tells when
                await asyncio.sleep(0.02)
        keys = await client.keys("*")
        return dict(zip(keys, await client.mget(keys), strict=True))

    before = await shown()
    assert len(before) == 802
    assert json.loads(before["ab:experiment:flights:x"])["shares"] == {"champion": 0.5, "v1": 0.5}
    await client.flushall()
    assert await shown() == before
    await stage.close()
